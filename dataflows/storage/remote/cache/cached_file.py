"""A file that is read by ranges until all of it is in the cache, and from there then."""
import contextlib
import itertools
import logging
import os
import threading
import time

import numpy as np

from dataflows.storage.index import Index
from dataflows.storage.paged_file import Extents, PagedFile, open_file
from dataflows.storage.remote.cache.entry import entry_of
from dataflows.storage.remote.cache.fetching import Job, fetcher, give_up
from dataflows.storage.remote.connection import connect
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.remote_file import RemoteFile

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # how often it is looked whether another process has fetched it
_AGAIN_SECONDS = 10.0  # how often it is tried again, where that one may have ended
_numbers = itertools.count()


class CachedFile:
    """The bytes of a file at a URL; nobody waits for the cache. Threads and forked children may share it.

    It is asked for when something of it is first read, by the process that reads.
    """

    private = True

    def __init__(self, url: str, options: RemoteOptions, index: Index) -> None:
        assert options.cache_dir is not None
        self.path = url
        self._options, self._index = options, index
        self._entry = entry_of(url, index, os.fspath(options.cache_dir), options.cache_bytes)
        self._remote = RemoteFile(url, options)
        self._local: PagedFile | None = None
        self._number = next(_numbers)
        self._begin()

    def _begin(self) -> None:
        """Knows nothing of the cache: at first, and in a forked child."""
        self._job: Job | None = None
        self._pid = os.getpid()
        self._looked = self._asked = -_AGAIN_SECONDS
        self._lock = threading.Lock()

    def _now(self) -> PagedFile | RemoteFile:
        if self._local is not None:
            return self._local
        if self._pid != os.getpid():
            self._begin()
        if time.monotonic() - self._looked > _LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._local or self._remote

    def _look(self) -> None:
        self._looked = time.monotonic()
        if self._local is None and self._entry.complete:
            with contextlib.suppress(OSError):  # it was removed meanwhile, or too many files are open: ranges go on
                self._local = open_file(self._entry.path)
                self._remote.close()  # who waits for a part of it reads that by itself
        elif (self._job is None or self._job.ended.is_set()) and self._looked - self._asked > _AGAIN_SECONDS:
            self._asked = self._looked
            job = Job(self._entry, self.path, self._index, lambda: connect(self.path, self._options))
            self._job = fetcher().want(self._number, job)

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """The bytes there: uint8, read-only. Raises OSError, with the URL, where they cannot be had."""
        return self._now().read(start, nbytes)

    def extents(self, offsets: np.ndarray, nbytes: np.ndarray) -> Extents:
        """The stretches as they are."""
        return offsets, nbytes

    def will_need(self, wanted: Extents) -> None:
        """Asks for these stretches, and does not wait for them."""
        file = self._now()
        file.will_need(file.extents(*wanted))

    def resident(self, offsets: np.ndarray) -> bool:
        """Whether these are in memory, once the file is here."""
        return self._now().resident(offsets)

    def drop(self, done: Extents) -> None:
        """These stretches are done with."""
        file = self._now()
        file.drop(file.extents(*done))

    def close(self) -> None:
        """Ends fetching, if nobody else wants the file."""
        self._remote.close()
        if self._job is not None and self._pid == os.getpid():
            give_up(self._number, self._job, wait=True)
            self._job = None

    def __del__(self) -> None:
        if getattr(self, "_job", None) is not None:
            give_up(self._number, self._job, wait=False)  # type: ignore[arg-type]
