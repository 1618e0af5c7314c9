"""A FUSE file system that shows a folder, to be read and written, and answers some requests with an error.

    python refusing_file_system.py FOLDER MOUNTPOINT REFUSALS

Runs until it is unmounted. REFUSALS is an object of JSON: names of errors by request, such as {"fsyncdir": "EINVAL"}.
Of the requests, open, read, fsync, fsyncdir, flock and statfs are known; statfs may be "unknown", which is to answer
zeros.
"""
import errno
import fcntl
import json
import os
import sys

import mfusepy

_STAT = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino", "st_blocks")
_STATVFS = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_flag", "f_frsize",
            "f_namemax")


class RefusingFolder(mfusepy.Operations):
    """The files of one folder."""

    use_ns = True

    def __init__(self, folder: str, refusals: dict[str, str]) -> None:
        self._folder = folder
        self._refusals = refusals

    def _real(self, path: str) -> str:
        return os.path.join(self._folder, path.lstrip("/"))

    def _refuse(self, request: str) -> None:
        if request in self._refusals:
            raise mfusepy.FuseOSError(getattr(errno, self._refusals[request]))

    def getattr(self, path, fh=None):
        stat = os.fstat(fh) if fh is not None else os.lstat(self._real(path))
        return {name: getattr(stat, name) for name in _STAT}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self._real(path))]

    def create(self, path, mode, fi=None):
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT, mode)

    def open(self, path, flags):
        self._refuse("open")
        return os.open(self._real(path), flags)

    def release(self, path, fh):
        os.close(fh)
        return 0

    def read(self, path, size, offset, fh):
        self._refuse("read")
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self._real(path) if fh is None else fh, length)
        return 0

    def unlink(self, path):
        os.unlink(self._real(path))
        return 0

    def rmdir(self, path):
        os.rmdir(self._real(path))
        return 0

    def rename(self, old, new):
        os.rename(self._real(old), self._real(new))
        return 0

    def mkdir(self, path, mode):
        os.mkdir(self._real(path), mode)
        return 0

    def fsync(self, path, datasync, fh):
        self._refuse("fsync")
        os.fsync(fh)
        return 0

    def fsyncdir(self, path, datasync, fh):
        self._refuse("fsyncdir")
        return 0

    def flock(self, path, fh, op):
        self._refuse("flock")
        fcntl.flock(fh, op)
        return 0

    def statfs(self, path):
        if self._refusals.get("statfs") == "unknown":
            return {}
        self._refuse("statfs")
        stat = os.statvfs(self._real(path))
        return {name: getattr(stat, name) for name in _STATVFS}


if __name__ == "__main__":
    folder, mountpoint, refusals = sys.argv[1:]
    mfusepy.FUSE(RefusingFolder(folder, json.loads(refusals)), mountpoint, foreground=True, allow_other=True,
                 fsname="refusing", subtype="refusing")
