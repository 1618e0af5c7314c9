"""The journal and lock of an unfinished dump: `train.lmdb.journal`, beside `train.lmdb.partial`.

Lines of JSON. The first is the header: an object of all that decides what the dump writes. Each other line is a source
file, in the order of the dump: a list of the fields of StoredFile, or of SkippedFile for one that was left out. The
lines of a transaction are on the disk before LMDB has it, so there is a line for each record that LMDB holds, and maybe
more, which are cut off before the dump goes on. The last line is `true` when the files are complete and verified, and
have only to be renamed.

Whoever has the journal open has it locked, and a process that is killed is rid of its lock. Where the file system has
no locks, a warning says that nothing keeps a second dump out.
"""
import contextlib
import errno
import fcntl
import json
import logging
import os
from typing import Any, Iterator, NamedTuple

from dataflows.errors import Locked
from dataflows.label_vectors import Label
from dataflows.storage.flush import flush_file
from dataflows.terminal import printable

logger = logging.getLogger(__name__)
_VERIFIED = b"true\n"  # the last line
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class StoredFile(NamedTuple):
    """One source file that is stored: what the index and the summary say of it, before it is known where it is."""

    name: str  # undecodable bytes as os.fsdecode makes them
    label: int | str  # class number; or a vector's float32 numbers, little-endian, in hexadecimal
    height: int  # pixels, as stored
    width: int
    crc32: int  # of the record
    source_bytes: int
    untiled: str | None
    findings: list[str]  # see images/examine.py
    digest: str  # of the source file's content, examine.digest in hexadecimal

    @property
    def label_size(self) -> int:
        """How many numbers the label has; 0 for a class number."""
        return len(self.label) // 8 if isinstance(self.label, str) else 0


def noted(label: Label) -> int | str:
    """A label as StoredFile has it."""
    return label if isinstance(label, int) else label.astype("<f4").tobytes().hex()


class SkippedFile(NamedTuple):
    """One source file that is left out."""

    name: str
    reason: str


def journal_path(lmdb_path: str) -> str:
    """Where the journal of an LMDB file's dump is."""
    return lmdb_path + ".journal"


def is_verified(lmdb_path: str) -> bool:
    """Whether an LMDB file's journal says that its dump is complete but for its renames; asks for no lock."""
    try:
        with open(journal_path(lmdb_path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - len(_VERIFIED)))
            return file.read() == _VERIFIED
    except OSError:
        return False


class Journal:
    """The journal of one LMDB file, locked; made, empty, where there is none. Raises Locked, or OSError.

    lock: False where nobody else can know of the file.
    """

    def __init__(self, lmdb_path: str, *, lock: bool = True) -> None:
        self.path = journal_path(lmdb_path)
        self._file = _lock(self.path) if lock else os.fdopen(_open(self.path), "rb+")
        self._flushes = True  # until the file system says that it does not

    @property
    def header(self) -> dict[str, Any] | None:
        """What decides about the dump; None when that was never written."""
        header = next(self._lines(), None)
        return header if isinstance(header, dict) else None

    @property
    def verified(self) -> bool:
        """Whether the dump is complete but for its renames."""
        return any(line is True for line in self._lines())

    def rows(self) -> Iterator[StoredFile | SkippedFile]:
        """The source files that were dealt with, in order."""
        for line in self._lines():
            if isinstance(line, list):
                yield StoredFile(*line) if len(line) == len(StoredFile._fields) else SkippedFile(*line)

    def _lines(self) -> Iterator[Any]:
        """What the lines hold, up to one that is incomplete."""
        self._file.seek(0)
        for line in self._file:
            try:
                value = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                value = None
            if value is None:
                return
            yield value

    def begin(self, header: dict[str, Any]) -> None:
        """Makes it the journal of a new dump."""
        self.clear()
        self._append([header])

    def clear(self) -> None:
        """Empties it, and keeps the lock."""
        self._file.seek(0)
        self._file.truncate()

    def add(self, rows: list[StoredFile | SkippedFile]) -> None:
        """Adds source files, down to the disk."""
        self._append([list(row) for row in rows])

    def mark_verified(self) -> None:
        """Says that all files are complete."""
        self._append([True])

    def _append(self, values: list[Any]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write("".join(json.dumps(value) + "\n" for value in values).encode())
        self._file.flush()
        if self._flushes and not flush_file(self._file.fileno(), self.path):
            self._flushes = False
            logger.warning("%s: the file system refuses to flush files (fsync), so a loss of power may damage the "
                           "dump; `python -m dataflows verify` tells then", printable(self.path))

    def cut(self, count: int | None) -> int:
        """Cuts off all behind the first `count` records, or nothing when None; how many source files are left.

        Raises ValueError when there are fewer.
        """
        self._file.seek(0)
        header = self._file.readline()
        end, kept, records = len(header), 0, 0
        for line in self._file:
            complete = line.endswith(b"\n") and line.startswith(b"[")
            if not complete or records == count:
                break
            end, kept = end + len(line), kept + 1
            records += len(json.loads(line)) == len(StoredFile._fields)
        if count is not None and records < count:
            raise ValueError(f"{self.path} names {records:,} records and LMDB holds {count:,}")
        self._file.truncate(end)
        return kept

    def remove(self) -> None:
        """Removes and closes it."""
        if not self._file.closed:
            os.unlink(self.path)
            self._file.close()

    def close(self) -> None:
        """Closes and unlocks it. An empty one is removed."""
        if not self._file.closed and os.fstat(self._file.fileno()).st_size == 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self._file.close()


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _lock(path: str) -> Any:
    """The journal, open and locked, as far as that is possible."""
    while True:
        made = not os.path.lexists(path)
        fd = _open(path)
        try:
            # Whoever had the lock may have removed the file meanwhile.
            if not _take(fd, path) or os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                return os.fdopen(fd, "rb+")
        except Locked:
            os.close(fd)
            raise
        except BaseException:
            os.close(fd)
            if made:
                os.unlink(path)
            raise
        os.close(fd)


def _take(fd: int, path: str) -> bool:
    """Locks an open file; False, after a warning, where the file system has no locks. Raises Locked, or OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):  # EACCES: of CIFS
            raise Locked(errno.EWOULDBLOCK, f"another dump writes this file at the moment: it holds {path}. Wait for "
                                            f"it, stop it, or give another target") from None
        if error.errno not in _NO_LOCKS:
            raise OSError(error.errno, f"it could not be locked: {error.strerror}", path) from error
        logger.warning("%s: the file system has no locks (flock: %s), so nothing keeps out a second dump of this "
                       "target, which would spoil both. See to it that there is none", printable(path), error.strerror)
        return False
    return True
