"""One file at a URL, read by ranges: what is asked for ahead comes in few requests, and waits in memory."""
import asyncio
import errno
import functools
import itertools
import os
import weakref
from concurrent.futures import Future

import numpy as np

from dataflows.storage.paged_file import Extents
from dataflows.storage.remote.connection import Answer, Connection, connect
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.pool import pool

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
        self._asked: list[Future[list[Answer]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # which answers them
        _files.add(self)

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """The bytes there: uint8, read-only. Raises OSError, with the URL, where they cannot be had."""
        piece = pool().take(self._number, start, nbytes)
        content = None if piece is None else piece.content()
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
        try:
            connection = self._connection()
        except OSError:
            return  # `read` says it
        here = pool()
        stretches = [*zip(wanted[0].tolist(), wanted[1].tolist())]
        requests = here.reserve(self._number, stretches, connection.together)
        if not requests:
            return
        missing = functools.partial(here.forget, self._number)
        try:
            answers = connection.ask(self.path, [request.ranges for request in requests])
            self._asked = [asked for asked in self._asked if not asked.done()] + answers
            self._loop = connection.loop
            while requests:
                requests[-1].follow(answers[len(requests) - 1], missing)
                requests.pop()
        except BaseException:  # Ctrl-C, or a loop that is gone: nobody waits for what nobody brings
            for request in requests:
                request.give_up(missing)
            raise

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
            try:
                self._loop.call_soon_threadsafe(_give_up, self._number, self._asked)
            except (RuntimeError, AttributeError, TypeError):  # the program ends, and what this uses may be gone
                pass


def _give_up(number: int, asked: "list[Future[list[Answer]]]") -> None:
    for request in asked:
        request.cancel()
    pool().forget(number)
