"""Brings whole files into the cache, one after the other, in a thread that ends with those who want them."""
import atexit
import contextlib
import logging
import os
import threading
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Callable
from zlib import crc32

import numpy as np

from dataflows.storage.flush import flush_file
from dataflows.storage.index import Index
from dataflows.storage.remote.backend import Content
from dataflows.storage.remote.cache.entry import Entry, letting_in
from dataflows.storage.remote.connection import PART, Answer, Connection
from dataflows.terminal import printable

logger = logging.getLogger(__name__)

_PARTS = 4  # that are on their way at once; the other requests in flight are for records
_LOOK_SECONDS = 0.2  # how often it is asked whether anybody still wants it
_LONG_SECONDS = 10.0  # for a thread to notice that nobody does


class Job:
    """One file that is wanted. owners: who wants it, by number; fetching stops when none is left."""

    def __init__(self, entry: Entry, url: str, index: Index, connect: Callable[[], Connection]) -> None:
        self.entry, self.url, self.index, self.connect = entry, url, index, connect
        self.owners: set[int] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        """Fetches the file, unless another process does. What goes wrong is said, and ranges go on."""
        try:
            with letting_in(self.entry) as file:
                if file is not None:
                    self._fetch(file)
        except Exception as error:  # whatever a package raises: the records come all the same
            logger.warning("%s is read by ranges, for it cannot be kept in %s: %s", printable(self.url),
                           printable(self.entry.folder), printable(str(error)))
        finally:
            self.ended.set()

    def _fetch(self, file: int) -> None:
        """Goes on where somebody stopped: parts are written in their order."""
        size, connection = self.entry.size, self.connect()
        done = min(os.fstat(file).st_size, size) // PART * PART
        os.ftruncate(file, done)
        coming: deque[Future[list[Answer]]] = deque()
        asked = done
        try:
            while done < size:
                while asked < size and len(coming) < _PARTS:
                    coming += connection.ask(self.url, [[(asked, min(asked + PART, size))]])
                    asked += PART
                part = self._awaited(coming[0])
                if part is None:
                    return
                coming.popleft()
                done += os.pwrite(file, part, done)
        finally:
            for request in coming:
                request.cancel()
        self._publish(file)

    def _awaited(self, part: "Future[list[Answer]]") -> Content | None:
        """The bytes of a part; None where nobody wants the file any more."""
        while self.owners:
            with contextlib.suppress(NotYet):
                part.exception(_LOOK_SECONDS)
            if part.done():
                return part.result()[0]
        return None

    def _publish(self, file: int) -> None:
        if not self._is_whole(file):
            if self.owners:
                os.unlink(self.entry.partial)
                raise OSError(f"what came is not what {self.url} should be by its index. Compare it with its checksums "
                              f"(python -m dataflows verify), and copy it there again")
            return
        flush_file(file, self.entry.partial)
        os.replace(self.entry.partial, self.entry.path)

    def _is_whole(self, file: int) -> bool:
        """Whether every byte has the checksum that the index states."""
        index, at, rest = self.index, 0, 0
        order = np.argsort(index.offset, kind="stable")
        columns = (index.offset[order], index.nbytes[order], index.crc32[order])
        for start, nbytes, expected in zip(*(column.tolist() for column in columns)):
            rest = crc32(os.pread(file, start - at, at), rest)
            if not self.owners or crc32(os.pread(file, nbytes, start)) != expected:
                return False
            at = start + nbytes
        rest = crc32(os.pread(file, self.entry.size - at, at), rest)
        return rest == index.meta.rest_crc32


class Fetcher:
    """The jobs of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._thread: threading.Thread | None = None

    def want(self, owner: int, job: Job) -> Job:
        """Adds a job, or an owner to the one that there is for the same file."""
        with self._lock:
            known = self._jobs.get(job.entry.path)
            if known is not None and known.owners and not known.ended.is_set():
                known.owners.add(owner)
                return known
            job.owners.add(owner)
            self._jobs[job.entry.path] = job
            self._queue.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dataflows-cache", daemon=True)
                self._thread.start()
            return job

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._thread = None
                    return
                job = self._queue.popleft()
            if job.owners:
                job.run()
            job.ended.set()

    def stop(self) -> None:
        """Nobody wants anything any more."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.owners.clear()
        for job in jobs:
            job.ended.wait(_LONG_SECONDS)


def give_up(owner: int, job: Job, *, wait: bool) -> None:
    """Says that an owner does not want it any more; without waiting, it takes no lock."""
    job.owners.discard(owner)
    if wait and not job.owners:
        job.ended.wait(_LONG_SECONDS)


_fetcher = Fetcher()


def fetcher() -> Fetcher:
    """That of this process."""
    return _fetcher


def _after_fork() -> None:
    global _fetcher
    _fetcher = Fetcher()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: fetcher().stop())
