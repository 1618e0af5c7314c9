"""A file that is read once, from its start to its end, wherever it is: for comparing it with its checksums."""
import contextlib
import os
from typing import Iterator, Protocol

from dataflows.storage.paged_file import pread
from dataflows.storage.remote.connection import connect
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.urls import is_url
from dataflows.system import advise

FAR_THREADS = 8  # that read a file at a URL: each waits most of the time


class ReadOnce(Protocol):
    """size: bytes. Threads may share it."""

    size: int

    def read(self, start: int, end: int) -> bytes:
        """The bytes there. Raises OSError, with the file's name."""

    def forget(self, start: int, end: int) -> None:
        """What memory has of this stretch is not what is asked for."""


class _OnDisk:
    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path, self.size = fd, path, os.fstat(fd).st_size

    def read(self, start: int, end: int) -> bytes:
        return pread(self._fd, start, end, self._path)

    def forget(self, start: int, end: int) -> None:
        advise(self._fd, start, end - start, "DONTNEED")


class _Far:
    def __init__(self, url: str, options: RemoteOptions) -> None:
        self._url, self._connection = url, connect(url, options)
        self.size = self._connection.size(url)

    def read(self, start: int, end: int) -> bytes:
        return self._connection.get(self._url, start, end) if start < end else b""

    def forget(self, start: int, end: int) -> None:
        pass  # nothing is kept


@contextlib.contextmanager
def opened_once(path: str, options: RemoteOptions) -> Iterator[ReadOnce]:
    """The file at a path or URL. Raises OSError, with its name, where it cannot be opened."""
    if is_url(path):
        yield _Far(path, options)
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        yield _OnDisk(fd, path)
    finally:
        os.close(fd)
