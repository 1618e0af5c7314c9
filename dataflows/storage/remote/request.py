"""What is asked for ahead: stretches that lie near each other by one range, several ranges by one request.

Of a record there is one small object, and no Future: thousands of them wait at a time, and Python's garbage collector
would look at all that they refer to. Nothing refers to itself by others, so bytes are free as soon as they were read.
"""
import functools
import threading
from concurrent.futures import Future
from typing import Callable

from dataflows.storage.remote.backend import Content
from dataflows.storage.remote.connection import SMALL_BYTES, Answer, content_of

_MOST_BYTES = 4 * 2**20  # of one range, unless a record is larger
_GAP_BYTES = 16 * 2**10  # that may be read in vain for one range less: records lie pages apart

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
        with self._lock:
            pass


class Piece:
    """One stretch. Its bytes are there when its request has arrived, or has failed, or was given up."""

    __slots__ = ("nbytes", "_answer", "_arrived")

    def __init__(self, nbytes: int, arrived: "_Gate") -> None:
        self.nbytes = nbytes
        self._answer: Answer | None = None
        self._arrived: _Gate | None = arrived

    def arrive(self, answer: Answer | None) -> None:
        """What became of it. Who waits goes on when its request says so."""
        self._answer = answer
        self._arrived = None

    @property
    def came(self) -> bool:
        """Whether its bytes are here."""
        return self._answer is not None and not isinstance(self._answer, BaseException)

    def content(self) -> Content | None:
        """Its bytes, which are waited for; None where they were given up. Raises what the request has met."""
        arrived = self._arrived
        if arrived is not None:
            arrived.wait()
        return None if self._answer is None else content_of(self._answer)


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

    def follow(self, answer: "Future[list[Answer]]", failed: Callable[[list[int]], None]) -> None:
        """Cuts the pieces when the answer is there. failed: is told where those start that did not come, if any."""
        answer.add_done_callback(functools.partial(self._cut, failed))

    def _cut(self, failed: Callable[[list[int]], None], answer: "Future[list[Answer]]") -> None:
        found: list[Answer | None] = [None if answer.cancelled() else answer.exception()] * len(self.ranges)
        if found[0] is None and not answer.cancelled():
            found[:] = answer.result()
            answer.result().clear()  # whoever keeps the answer does not keep the bytes
        try:
            for (first, _), pieces, content in zip(self.ranges, self._pieces, found):
                _arrive(first, pieces, content)
            if missing := [start for start, piece in self.pieces if not piece.came]:
                failed(missing)
        finally:  # nobody waits for ever
            self._pieces = []
            self._arrived.open()


def _arrive(first: int, pieces: list[tuple[int, Piece]], content: Answer | None) -> None:
    """Gives pieces, (start, piece), their part of what one range gave, which starts at `first`."""
    for start, piece in pieces:
        if content is not None and not isinstance(content, BaseException) and len(pieces) > 1:
            part = memoryview(content)[start - first:start - first + piece.nbytes]
            piece.arrive(bytes(part))  # a copy, so that none keeps the others in memory
        else:
            piece.arrive(content)


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
