"""A FUSE file system that shows a folder, read-only, and takes its time for each read: what a network does to readers.

    python slow_file_system.py FOLDER MOUNTPOINT LOG SECONDS

Runs until it is unmounted. LOG gets a line of JSON for each read request, when it arrives: [file's name, offset, bytes,
how many requests are being served, this one included].
"""
import json
import os
import sys
import threading
import time

import mfusepy
from shown_folder import ShownFolder


class SlowFolder(ShownFolder):
    """The files of one folder. Requests are served by several threads, as many as the kernel sends."""

    def __init__(self, folder: str, log: str, seconds: float) -> None:
        super().__init__(folder)
        self._log = open(log, "a")
        self._seconds = seconds
        self._lock = threading.Lock()
        self._serving = 0

    def read(self, path, size, offset, fh):
        with self._lock:
            self._serving += 1
            print(json.dumps([os.path.basename(path), offset, size, self._serving]), file=self._log, flush=True)
        time.sleep(self._seconds)
        with self._lock:
            self._serving -= 1
        return os.pread(fh, size, offset)


if __name__ == "__main__":
    folder, mountpoint, log, seconds = sys.argv[1:]
    mfusepy.FUSE(SlowFolder(folder, log, float(seconds)), mountpoint, foreground=True, ro=True, allow_other=True,
                 kernel_cache=True, fsname="slow", subtype="slow")
