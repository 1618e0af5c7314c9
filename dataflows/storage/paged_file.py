"""Bytes of a file by offset: mapped or read, asked for ahead of time, and given back after use.

What the kernel does by itself suits neither order of reading. Its readahead on a map reads up to twice what is needed
when records come in random order; without it, every page of 4 KB is a fault and a wait of its own. Here the map is
marked as randomly read, and the exact extents of what will be needed soon are named to the kernel, which fetches all of
them at once, however they are scattered.
"""
import contextlib
import errno
import logging
import mmap
import os
from typing import Callable, Protocol

import numpy as np

from dataflows.errors import NoMap
from dataflows.system import advise, advise_map, naming, told

logger = logging.getLogger(__name__)

PAGE = mmap.PAGESIZE
_READAHEAD = 128 * 1024  # bytes, the kernel's default limit: what it may cut off a request that names more
_NETWORK = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "9p", "afs", "pvfs2", "glusterfs"}

Extents = tuple[np.ndarray, np.ndarray]  # where each starts, how long it is: int64, bytes, whole pages


class StoredBytes(Protocol):
    """A file by offset, as the readers of records see it: a PagedFile, or one in another place (remote/).

    private: whether what was asked for waits in this process's memory, and not in the kernel's.
    """

    path: str
    private: bool

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """The bytes there: uint8, read-only. Raises OSError, with the file's name."""

    def extents(self, offsets: np.ndarray, nbytes: np.ndarray) -> Extents:
        """These stretches, int64 (n,) each, as `will_need` and `drop` take them."""

    def will_need(self, wanted: Extents) -> None:
        """Asks for these stretches, and does not wait for them."""

    def resident(self, offsets: np.ndarray) -> bool:
        """Whether what is at these offsets need not be asked for."""

    def drop(self, done: Extents) -> None:
        """These stretches are done with."""

    def close(self) -> None:
        """Ends what is under way; a later use begins it again."""


def extents(offsets: np.ndarray, nbytes: np.ndarray) -> Extents:
    """The pages of these stretches of a file, at least one, in ascending order; those that touch or overlap as one."""
    first, last = offsets // PAGE, -(-(offsets + nbytes) // PAGE)
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    apart = np.append(True, first[1:] > last[:-1])
    ends = last[np.append(apart[1:], True)]
    return first[apart] * PAGE, (ends - first[apart]) * PAGE


class PagedFile:
    """One open file of at least `size` bytes, whose bytes are views of a map, or copies if `copies`.

    Threads and forked children may share it. A map is closed when the last view of it is gone. Raises NoMap where the
    system gives no map, and OSError, with the file's name, where it cannot be opened.
    """

    private = False

    def __init__(self, path: str, size: int, *, copies: bool) -> None:
        self.path = path
        self._fds: list[int] = []
        self._map: mmap.mmap | None = None
        try:
            # The second is asked and the first is read: reads change the readahead of the one that they use, and FUSE
            # then ignores requests while it is busy.
            for _ in range(2):
                self._fds.append(os.open(path, os.O_RDONLY))
            self._fd, self._asking = self._fds
            self._most = readahead_bytes(self._fd)  # that one request may name
            for fd in self._fds:
                advise(fd, 0, 0, "RANDOM")  # read what is asked for, and nothing around it
            if not copies:
                self._map = _map(self._fd, size, path)
                advise_map(self._map, "RANDOM")
                self._bytes = np.frombuffer(self._map, np.uint8)
        except BaseException:
            self._close()
            raise

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """The bytes there: uint8, read-only. Raises OSError, with the file's name, if reading a copy fails, or if the
        file has become shorter; of a map, the system ends the process then.
        """
        if self._map is not None:
            return self._bytes[start:start + nbytes]
        return np.frombuffer(pread(self._fd, start, start + nbytes, self.path), np.uint8)

    def extents(self, offsets: np.ndarray, nbytes: np.ndarray) -> Extents:
        """Their pages."""
        return extents(offsets, nbytes)

    def will_need(self, wanted: Extents) -> None:
        """Asks the kernel for these pages, and does not wait for them; where it cannot be asked, reads them."""
        for start, nbytes in zip(*(column.tolist() for column in wanted)):
            for at in range(start, start + nbytes, self._most):
                count = min(self._most, start + nbytes - at)
                if not advise(self._asking, at, count, "WILLNEED"):
                    with contextlib.suppress(OSError):  # is told to whoever needs them, with the record's key
                        os.pread(self._asking, count, at)

    def resident(self, offsets: np.ndarray) -> bool:
        """Whether the pages at these offsets are all in memory; asking has the first that is not read."""
        if not hasattr(os, "RWF_NOWAIT"):
            return False
        byte = bytearray(1)
        try:
            return all(os.preadv(self._fd, [byte], offset, os.RWF_NOWAIT) for offset in offsets.tolist())
        except OSError:  # EAGAIN: not in memory; others: the file system or the kernel does not tell
            return False

    def drop(self, done: Extents) -> None:
        """Lets the kernel have these pages back: they no longer count as this process's, nor as cached."""
        for start, nbytes in zip(*(column.tolist() for column in done)):
            if self._map is not None:
                advise_map(self._map, "DONTNEED", start, nbytes)
            advise(self._fd, start, nbytes, "DONTNEED")

    def close(self) -> None:
        """Does nothing: the file is closed when nobody holds it."""

    def _close(self, close: Callable[[int], None] = os.close) -> None:  # which at the interpreter's end is still there
        while self._fds:
            try:
                close(self._fds.pop())
            except OSError:
                pass

    def __del__(self) -> None:
        self._close()


def open_file(path: str, io: str = "auto") -> PagedFile:
    """The whole of a file, as views ("mmap"), as copies ("pread"), or ("auto") as what suits its file system.

    "auto" takes copies where the system gives no map, and says so once for each file system. Raises OSError, with the
    file's name, when it cannot be opened; with "mmap" NoMap.
    """
    size = os.path.getsize(path)
    try:
        return PagedFile(path, size, copies=io == "pread" or io == "auto" and on_network(path))
    except NoMap as error:
        if io == "mmap":
            raise NoMap(error.errno, f"{path} cannot be mapped into memory: {error.strerror}. Leave io='mmap' out, so "
                                     f"that it is read without a map; or raise the limit on memory, if there is one "
                                     f"(ulimit -v)") from error
        device = os.stat(path).st_dev
        if device not in _unmapped:
            _unmapped.add(device)
            logger.warning("%s cannot be mapped into memory (%s), so its records are copied instead, as with "
                           "io='pread'", path, error.strerror)
    return PagedFile(path, size, copies=True)


_unmapped: set[int] = set()  # file systems that this was said of


def _map(fd: int, size: int, path: str) -> mmap.mmap:
    try:
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # a map has a descriptor of its own
            error.filename = path
            raise
        raise NoMap(error.errno, error.strerror, path) from error


def pread(fd: int, start: int, end: int, path: str) -> bytes:
    """The bytes of an open file from `start` to `end`. Raises OSError, with the file's name, if reading fails or the
    file ends before.
    """
    parts = []
    with naming(path):
        while start < end:
            part = os.pread(fd, end - start, start)
            if not part:
                raise OSError(errno.EIO, f"the file ends at byte {start:,}, and more was there when it was opened")
            parts.append(part)
            start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def readahead_bytes(fd: int) -> int:
    """How much the kernel is sure to read of one request on the device of an open file: its readahead limit.

    A device that counts requests, as cloud disks do, is faster the fewer and larger they are.
    """
    device = os.fstat(fd).st_dev
    limits = told(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    return max([_READAHEAD, *(int(words[0]) * 1024 // PAGE * PAGE for words in limits if words and words[0].isdigit())])


def on_network(path: str) -> bool:
    """Whether a file is on a network or parallel file system, where page faults are slow; False if nobody can tell."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    kinds = {fields[fields.index("-") + 1] for fields in told("/proc/self/mountinfo") if fields[2] == name}
    return any(kind in _NETWORK or kind.startswith("fuse.") for kind in kinds)
