"""Whole files of other places in a folder of this machine: their names there, and which are let in.

    train-1f2e3d4c5b6a7988-146212345.lmdb           complete and compared with its checksums
    train-1f2e3d4c5b6a7988-146212345.lmdb.partial   its beginning; whoever fetches holds a lock on it
    .lock                                            held for moments, while somebody is let in

A name has the checksums that the index states, and the size. So what was dumped anew has another name, and an entry
never is of another file. Nothing is ever removed for something else: what does not fit is read by ranges. The share of
a data set that is here is then read from here in every epoch; with a rule that makes room, an epoch would remove what
the next one begins with.
"""
import contextlib
import fcntl
import logging
import os
import re
from typing import Iterator, NamedTuple
from zlib import crc32

from dataflows.storage.index import Index
from dataflows.system import free_bytes
from dataflows.terminal import printable

logger = logging.getLogger(__name__)

_OURS = re.compile(r".+-[0-9a-f]{16}-(\d+)\.lmdb(\.partial)?")
_LONGEST = 100  # characters of a name that are kept


class Entry(NamedTuple):
    """A file in the folder. path: where it is when it is complete. limit: bytes that all of them may have, or None."""

    folder: str
    path: str
    size: int
    limit: int | None

    @property
    def partial(self) -> str:
        """Where it is until then."""
        return self.path + ".partial"

    @property
    def complete(self) -> bool:
        """Whether it is there. One of another size was cut off by somebody else, and counts as missing."""
        try:
            return os.stat(self.path).st_size == self.size
        except OSError:
            return False


def entry_of(url: str, index: Index, folder: str, limit: int | None) -> Entry:
    """That of the LMDB at a URL which has this index."""
    stem = re.sub(r"[^\w.-]", "_", url.rpartition("/")[2].removesuffix(".lmdb"))[-_LONGEST:]
    digest = f"{crc32(index.crc32.tobytes()):08x}{index.meta.rest_crc32:08x}"
    size = index.meta.file_size
    return Entry(folder, os.path.join(folder, f"{stem}-{digest}-{size}.lmdb"), size, limit)


@contextlib.contextmanager
def letting_in(entry: Entry) -> Iterator[int | None]:
    """Gives the unfinished file, open and locked for this process; None where the entry is complete, another process
    fetches it, or there is no room. Raises OSError where the folder cannot be written.
    """
    os.makedirs(entry.folder, exist_ok=True)
    with open(os.path.join(entry.folder, ".lock"), "w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        partial = None if entry.complete or not _has_room(entry) else _locked(entry.partial)
        if partial is not None and entry.complete:  # it became so meanwhile
            os.unlink(entry.partial)
            os.close(partial)
            partial = None
    try:
        yield partial
    finally:
        if partial is not None:
            _held.discard(partial)
            os.close(partial)


_held: set[int] = set()  # a forked child would hold their locks on


def _after_fork() -> None:
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_after_fork)


def _locked(path: str) -> int | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    _held.add(file)
    return file


def _has_room(entry: Entry) -> bool:
    """Whether the entry fits, beside all that is there, and all that is being fetched."""
    if os.path.exists(entry.partial):  # it was let in before
        return True
    taken = coming = 0
    for found in os.scandir(entry.folder):
        match = _OURS.fullmatch(found.name)
        if match:
            taken += int(match[1])
            coming += int(match[1]) - found.stat().st_size if match[2] else 0
    free = free_bytes(entry.folder)
    limit = entry.limit
    full = f"cache_bytes={limit:,}" if limit is not None and taken + entry.size > limit else ""
    if free is not None and coming + entry.size > free:
        full = f"the {free:,} bytes that are free"
    if full:
        logger.warning("%s does not fit into %s in %s, so it is read by ranges",
                       printable(os.path.basename(entry.path)), full, printable(entry.folder))
    return not full
