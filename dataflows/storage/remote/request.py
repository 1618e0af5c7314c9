"""What is asked for ahead: stretches that lie near each other by one range, several ranges by one request.

Of a record there is one small object, and no Future: thousands of them wait at a time, and Python's garbage collector
would look at all that they refer to. Nothing refers to itself by others, so bytes are free as soon as they were read.
"""
import functools
import threading
from concurrent.futures import Future
from typing import Callable

from dataflows.storage.remote.backend import Content
from dataflows.storage.remote.connection import SMALL_BYTES, Answer

_MOST_BYTES = 4 * 2**20  # of one range, unless a record is larger
_GAP_BYTES = 16 * 2**10  # that may be read in vain for one range less: records lie pages apart
_LONGEST_SECONDS = 300.0  # that a request takes, with all its attempts, and more

Stretch = tuple[int, int]  # start, nbytes


class _Gate:
    """Opens once, for all who wait. A lock that is free when it is open: threading.Event has a dozen objects."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        """Not for ever: Ctrl-C may come between a gate and whoever opens it."""
        if self._lock.acquire(timeout=_LONGEST_SECONDS):
            self._lock.release()


class Piece:
    """One stretch. Its bytes are there when its request has arrived, or has failed, or was given up."""

    __slots__ = ("nbytes", "_content", "_error", "_arrived")

    def __init__(self, nbytes: int, arrived: _Gate) -> None:
        self.nbytes = nbytes
        self._content: Content | None = None
        self._error: BaseException | None = None
        self._arrived: _Gate | None = arrived

    def arrive(self, content: Content | None, error: BaseException | None) -> None:
        """What became of it. Who waits goes on when its request says so."""
        self._content, self._error = content, error
        self._arrived = None

    def content(self) -> Content | None:
        """Its bytes, which are waited for; None where they were given up. Raises what the request has met."""
        arrived = self._arrived
        if arrived is not None:
            arrived.wait()
        if self._error is not None:
            raise self._error
        return self._content


class Request:
    """Several ranges, (start, end), and the pieces that are cut out of what they give."""

    def __init__(self, joined: list[list[Stretch]]) -> None:
        self.ranges = [(stretches[0][0], max(map(sum, stretches))) for stretches in joined]
        self._arrived = _Gate()
        self._pieces = [[(start, Piece(nbytes, self._arrived)) for start, nbytes in stretches] for stretches in joined]

    @property
    def pieces(self) -> list[tuple[int, Piece]]:
        """(start, piece) of each; none once they have been cut."""
        return [piece for pieces in self._pieces for piece in pieces]

    def follow(self, answer: "Future[list[Answer]]", missing: Callable[[list[int]], None]) -> None:
        """Cuts the pieces when the answer is there. missing: is told where those start that did not come, if any."""
        answer.add_done_callback(functools.partial(self._cut, missing))

    def give_up(self, missing: Callable[[list[int]], None]) -> None:
        """Nothing will come: whoever waits goes on without."""
        given_up: Future[list[Answer]] = Future()
        given_up.cancel()
        self._cut(missing, given_up)

    def _cut(self, missing: Callable[[list[int]], None], answer: "Future[list[Answer]]") -> None:
        error = None if answer.cancelled() else answer.exception()
        found: list[Answer] = [None] * len(self.ranges)
        if error is None and not answer.cancelled():
            found = [*answer.result()]
            answer.result().clear()  # whoever keeps the answer does not keep the bytes
        try:
            gone = []
            for (first, _), pieces, content in zip(self.ranges, self._pieces, found):
                for start, piece in pieces:
                    part = content
                    if content is None:
                        gone.append(start)
                    elif len(pieces) > 1:  # a copy, so that none keeps the others in memory
                        part = bytes(memoryview(content)[start - first:start - first + piece.nbytes])
                    piece.arrive(part, error)
            if gone:
                missing(gone)
        finally:
            if self._pieces:
                self._pieces = []
                self._arrived.open()


def requests_for(wanted: list[Stretch], together: int) -> list[Request]:
    """Requests for stretches that differ, of so many ranges each; what is wanted first is in the first.

    >>> [request.ranges for request in requests_for([(10**6, 7), (20, 5), (2 * 10**6, 5), (0, 10)], together=2)]
    [[(1000000, 1000007), (0, 25)], [(2000000, 2000005)]]
    """
    turn = {stretch: at for at, stretch in enumerate(wanted)}
    requests, group = [], []
    for joined in sorted(_joined(sorted(wanted)), key=lambda stretches: min(turn[stretch] for stretch in stretches)):
        if max(map(sum, joined)) - joined[0][0] > SMALL_BYTES:
            requests.append(Request([joined]))
            continue
        group.append(joined)
        if len(group) == together:
            requests.append(Request(group))
            group = []
    return requests + [Request(group)] if group else requests


def _joined(stretches: list[Stretch]) -> list[list[Stretch]]:
    """Ascending stretches, those in one list that one range brings."""
    ranges: list[list[Stretch]] = []
    end = 0
    for start, nbytes in stretches:
        if ranges and start <= end + _GAP_BYTES and start + nbytes - ranges[-1][0][0] <= _MOST_BYTES:
            ranges[-1].append((start, nbytes))
            end = max(end, start + nbytes)
        else:
            ranges.append([(start, nbytes)])
            end = start + nbytes
    return ranges
