"""One file at a URL, read by ranges: what is asked for ahead comes in few requests, and waits in memory."""
import asyncio
import contextlib
import errno
import itertools
import os
import weakref
from concurrent.futures import Future

import numpy as np

from dataflows.storage.paged_file import Extents
from dataflows.storage.remote.backend import Content
from dataflows.storage.remote.connection import Connection, connect
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.pool import Request, content_of, pool

_MOST_BYTES = 4 * 2**20  # of one request, unless a record is larger
_GAP_BYTES = 16 * 2**10  # that may be read in vain for one request less: records lie pages apart
_numbers = itertools.count()
_files: "weakref.WeakSet[RemoteFile]" = weakref.WeakSet()


def _after_fork() -> None:
    for file in _files:  # requests are the parent's
        file._asked = []


os.register_at_fork(after_in_child=_after_fork)


class RemoteFile:
    """The bytes of a file at a URL; beside PagedFile, and with its methods. Threads and forked children may share it.

    opening: few requests are made, and workers may be forked later: see backend.
    """

    private = True

    def __init__(self, url: str, options: RemoteOptions, *, opening: bool = False) -> None:
        self.path = url
        self._options = options
        self._opening = opening
        self._number = next(_numbers)
        self._asked: list[Future[Content]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # which answers them
        _files.add(self)

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """The bytes there: uint8, read-only. Raises OSError, with the URL, where they cannot be had."""
        piece = pool().take(self._number, start, nbytes)
        content: Content | None = None if piece is None else content_of(piece)
        if content is None:
            content = self._connection().get(self.path, start, start + nbytes)
        return np.frombuffer(content, np.uint8)

    def _connection(self) -> Connection:
        try:
            return connect(self.path, self._options, opening=self._opening)
        except ImportError as error:
            raise OSError(errno.ENOPKG, str(error), self.path) from error

    def extents(self, offsets: np.ndarray, nbytes: np.ndarray) -> Extents:
        """The stretches as they are asked for: int64 (n,) each."""
        return offsets, nbytes

    def will_need(self, wanted: Extents) -> None:
        """Asks for these stretches, and does not wait for them. What goes wrong is told to whoever reads them."""
        stretches = sorted({*zip(wanted[0].tolist(), wanted[1].tolist())})
        here = pool()
        new = here.reserve(self._number, stretches)
        if not new:
            return
        self._asked = [asked for asked in self._asked if not asked.done()]
        try:
            connection = self._connection()
        except OSError:
            here.forget(self._number)  # `read` says it
            return
        self._loop = connection.loop
        requests = _joined([(start, piece.nbytes) for start, piece in new])
        answers = connection.ask(self.path, [(start, end) for start, end, _ in requests])
        self._asked += answers
        for (_, _, members), answer in zip(requests, answers):
            Request(here, self._number, new[members.start:members.stop], answer)

    def resident(self, offsets: np.ndarray) -> bool:
        """False: who asks again for what is here makes no request."""
        return False

    def drop(self, done: Extents) -> None:
        """These stretches are done with."""
        pool().forget(self._number, done[0].tolist())

    def close(self) -> None:
        """Gives up what was asked for, also what is here. A later use asks again."""
        _give_up(self._number, self._asked)
        self._asked = []

    def __del__(self) -> None:
        # Elsewhere: garbage collection may have come between a thread and a lock that it holds.
        if getattr(self, "_asked", None) and self._loop is not None:
            with contextlib.suppress(RuntimeError, AttributeError):  # the program ends, and asyncio may be gone
                self._loop.call_soon_threadsafe(_give_up, self._number, self._asked)


def _give_up(number: int, asked: "list[Future[Content]]") -> None:
    for request in asked:
        request.cancel()
    pool().forget(number)


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int, range]]:
    """(start, end, which of the stretches) of requests for them all. stretches: (start, nbytes), ascending.

    >>> _joined([(0, 10), (20, 5), (10**6, 7)])
    [(0, 25, range(0, 2)), (1000000, 1000007, range(2, 3))]
    """
    requests: list[tuple[int, int, range]] = []
    for i, (start, nbytes) in enumerate(stretches):
        if requests:
            first, end, members = requests[-1]
            if start <= end + _GAP_BYTES and start + nbytes - first <= _MOST_BYTES:
                requests[-1] = first, max(end, start + nbytes), range(members.start, i + 1)
                continue
        requests.append((start, start + nbytes, range(i, i + 1)))
    return requests
