"""The bytes of a file by offset: mapped or read, asked for ahead of time, and let go of when they are done with.

What the kernel does by itself suits neither order of reading. Its readahead on a map reads up to twice what is needed
when records come in random order; without it, every page of 4 KB is a fault and a wait of its own. Here the map is
marked as randomly read, and the exact extents of what will be needed soon are named to the kernel, which fetches all of
them at once, however they are scattered.
"""
import contextlib
import mmap
import os

import numpy as np

PAGE = mmap.PAGESIZE
_READAHEAD = 128 * 1024  # bytes, the kernel's default limit: what it may cut off a request that names more
_NETWORK = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "9p", "afs", "pvfs2", "glusterfs"}

Extents = tuple[np.ndarray, np.ndarray]  # where each starts, how long it is: int64, bytes, whole pages


def extents(offsets: np.ndarray, nbytes: np.ndarray) -> Extents:
    """The pages of these stretches of a file, at least one, in ascending order; those that touch or overlap as one."""
    first, last = offsets // PAGE, -(-(offsets + nbytes) // PAGE)
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    apart = np.append(True, first[1:] > last[:-1])
    ends = last[np.append(apart[1:], True)]
    return first[apart] * PAGE, (ends - first[apart]) * PAGE


class Content:
    """One open file of at least `size` bytes, whose bytes are views of a map, or copies if `copies`.

    Threads and forked children may share it. A map is closed when the last view of it is gone.
    """

    def __init__(self, path: str, size: int, *, copies: bool) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        # Apart from the one that is read: reads change its readahead, and FUSE then ignores requests while it is busy.
        self._asking = os.open(path, os.O_RDONLY)
        self._most = readahead_bytes(self._fd)  # that one request may name
        if hasattr(os, "posix_fadvise"):
            for fd in (self._fd, self._asking):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # read what is asked for, and nothing around it
        self._map: mmap.mmap | None = None
        if not copies:
            self._map = mmap.mmap(self._fd, size, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_RANDOM"):
                self._map.madvise(mmap.MADV_RANDOM)
            self._bytes = np.frombuffer(self._map, np.uint8)

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """The bytes there: uint8, read-only. Raises OSError if reading fails or the file has become shorter."""
        if self._map is not None:
            return self._bytes[start:start + nbytes]
        out, done = np.empty(nbytes, np.uint8), 0
        while done < nbytes:
            count = os.preadv(self._fd, [memoryview(out)[done:]], start + done)
            if count == 0:
                raise OSError(f"the file ends at byte {start + done}, within a record")
            done += count
        out.flags.writeable = False
        return out

    def fetch(self, wanted: Extents) -> None:
        """Asks the kernel for these pages, and does not wait for them; where it cannot be asked, reads them."""
        for start, nbytes in zip(*(column.tolist() for column in wanted)):
            for at in range(start, start + nbytes, self._most):
                count = min(self._most, start + nbytes - at)
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(self._asking, at, count, os.POSIX_FADV_WILLNEED)
                else:
                    os.pread(self._asking, count, at)

    def resident(self, offsets: np.ndarray) -> bool:
        """Whether the pages at these offsets are all in memory; asking brings the first that is not."""
        if not hasattr(os, "RWF_NOWAIT"):
            return False
        byte = bytearray(1)
        try:
            return all(os.preadv(self._fd, [byte], offset, os.RWF_NOWAIT) for offset in offsets.tolist())
        except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: the file system does not tell
            return False

    def drop(self, done: Extents) -> None:
        """Lets the kernel have these pages back: they no longer count as this process's, nor as cached."""
        for start, nbytes in zip(*(column.tolist() for column in done)):
            if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
                with contextlib.suppress(ValueError):  # the last page of the file may be beyond the map
                    self._map.madvise(mmap.MADV_DONTNEED, start, nbytes)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._fd, start, nbytes, os.POSIX_FADV_DONTNEED)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._fd)
            os.close(self._asking)


def readahead_bytes(fd: int) -> int:
    """How much the kernel is sure to read of one request on the device of an open file: its readahead limit.

    A device that counts requests, as cloud disks do, is faster the fewer and larger they are.
    """
    device = os.fstat(fd).st_dev
    try:
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb") as file:
            return max(_READAHEAD, int(file.read()) * 1024 // PAGE * PAGE)
    except (OSError, ValueError):
        return _READAHEAD


def on_network(path: str) -> bool:
    """Whether a file is on a network or parallel file system, where page faults are slow; False if nobody can tell."""
    try:
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return False
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    kinds = {fields[fields.index("-") + 1] for fields in mounts if fields[2] == name}
    return any(kind in _NETWORK or kind.startswith("fuse.") for kind in kinds)
