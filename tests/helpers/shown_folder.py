"""A folder shown read-only by FUSE: what the file systems of the tests derive from."""
import errno
import os

import mfusepy


class ShownFolder(mfusepy.Operations):
    """The files of one folder. Subclasses read."""

    use_ns = True

    def __init__(self, folder: str) -> None:
        self._folder = folder

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
