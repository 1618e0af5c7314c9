"""A FUSE file system that shows a folder, read-only, as one that cannot map files, on a disk with a bad place.

    python failing_file_system.py FOLDER MOUNTPOINT START END [ENDING]

Shared maps are refused with ENODEV, as the kernel does for files whose pages it does not keep. Reading any of the bytes
from START to END of a file whose name ends in ENDING, by default .lmdb, is an input/output error.
"""
import errno
import os
import sys

import mfusepy


class FailingFolder(mfusepy.Operations):
    """The files of one folder."""

    use_ns = True

    def __init__(self, folder: str, start: int, end: int, ending: str) -> None:
        self._folder, self._start, self._end, self._ending = folder, start, end, ending

    def _real(self, path: str) -> str:
        return os.path.join(self._folder, path.lstrip("/"))

    def getattr(self, path, fh=None):
        try:
            stat = os.stat(self._real(path))
        except FileNotFoundError:
            raise mfusepy.FuseOSError(errno.ENOENT) from None
        return {name: getattr(stat, name) for name in ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self._real(path))]

    def open(self, path, flags):
        return os.open(self._real(path), flags)

    def release(self, path, fh):
        os.close(fh)
        return 0

    def read(self, path, size, offset, fh):
        if offset < self._end and self._start < offset + size and path.endswith(self._ending):
            raise mfusepy.FuseOSError(errno.EIO)
        return os.pread(fh, size, offset)


if __name__ == "__main__":
    folder, mountpoint, start, end, ending = [*sys.argv[1:], ".lmdb"][:5]
    mfusepy.FUSE(FailingFolder(folder, int(start), int(end), ending), mountpoint, foreground=True, ro=True,
                 direct_io=True, fsname="failing", subtype="failing")
