"""A FUSE file system that shows a folder, read-only, as one that cannot map files, on a disk with a bad place.

    python failing_file_system.py FOLDER MOUNTPOINT START END [ENDING]

Shared maps are refused with ENODEV, as the kernel does for files whose pages it does not keep. Reading any of the bytes
from START to END of a file whose name ends in ENDING, by default .lmdb, is an input/output error.
"""
import errno
import os
import sys

import mfusepy
from shown_folder import ShownFolder


class FailingFolder(ShownFolder):
    """The files of one folder."""

    def __init__(self, folder: str, start: int, end: int, ending: str) -> None:
        super().__init__(folder)
        self._start, self._end, self._ending = start, end, ending

    def read(self, path, size, offset, fh):
        if offset < self._end and self._start < offset + size and path.endswith(self._ending):
            raise mfusepy.FuseOSError(errno.EIO)
        return os.pread(fh, size, offset)


if __name__ == "__main__":
    folder, mountpoint, start, end, ending = [*sys.argv[1:], ".lmdb"][:5]
    mfusepy.FUSE(FailingFolder(folder, int(start), int(end), ending), mountpoint, foreground=True, ro=True,
                 direct_io=True, fsname="failing", subtype="failing")
