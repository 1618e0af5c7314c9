"""Asks the kernel for the pages of records before they are decoded."""
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Iterator

from dataflows.load.meter import Meter, Spent
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow, ProxyDataFlow
from dataflows.threads import Threads

AHEAD_BYTES = 256 * 2**20  # at most: a second or so of the fastest disk, in page cache that may be evicted at any time
_SAMPLE = 16  # neighbours in the file are in memory together, or not; what is missed, its batch asks for

Entering = Callable[[int], list[list[int]]]  # how many samples leave next -> the pointers that enter meanwhile


class PrefetchPages(ProxyDataFlow):
    """Yields the batches of `ds`, `[numbers, positions]`, after asking the kernel for the pages of their records.

    Looks ahead by as many batches as fit into `ahead_bytes`, two at least, but starts with one and doubles with each
    that it yields, so the first batch does not wait for the pages of others. A thread of its own does the asking, which
    waits while the disk's queue is full; `meter` is told how long this waits for it. `len` and order are those of `ds`;
    several iterations may be alive at once.

    `entering` is for batches that a buffer before them has shuffled: called when an iteration begins, it gives a
    function that is told how many samples leave the buffer next, and gives the pointers that enter it meanwhile. Their
    pages are asked for then, which is in the order of the file, and wait in memory for their turn: a disk that has to
    seek reads from start to end. That needs memory for the `held` records of the buffer; where there is less than
    twice that, pages are asked for as their records leave the buffer.
    """

    def __init__(self, ds: DataFlow, store: Store, meter: Meter, ahead_bytes: int = AHEAD_BYTES, *,
                 entering: Callable[[], Entering] | None = None, held: int = 0) -> None:
        super().__init__(ds)
        self._store = store
        self._meter = meter
        self._ahead_bytes = ahead_bytes
        self._entering = entering
        self._held = held

    def __iter__(self) -> Iterator[list[Any]]:
        waiting: deque[tuple[list[Any], Future[tuple[int, bool]]]] = deque()
        most, entering = 1, self._follow()
        with Threads(1, "dataflows-io") as thread:
            try:
                for batch in self.ds:
                    waiting.append((batch, thread.submit(self._fetch, batch[0], entering(len(batch[0])))))
                    while len(waiting) >= most:
                        ready, fetched = waiting.popleft()
                        most = min(2 * most, max(2, self._ahead_bytes // max(1, self._result(fetched))))
                        yield ready
                while waiting:
                    ready, fetched = waiting.popleft()
                    self._result(fetched)
                    yield ready
            finally:
                for _, fetched in waiting:
                    fetched.cancel()

    def _follow(self) -> Entering:
        nbytes = self._store.mean_nbytes
        if self._entering is None or nbytes is None or 2 * self._held * nbytes > self._store.room():
            return lambda _: []
        return self._entering()

    def _fetch(self, batch: list[int], entering: list[list[int]]) -> tuple[int, bool]:
        found = self._store.will_need(batch)  # first: most of them are on their way, the others are wanted soonest
        if entering:
            self._store.will_need([number for number, _ in entering], sample=_SAMPLE)
        return found

    def _result(self, fetched: Future[tuple[int, bool]]) -> int:
        started = time.perf_counter()
        nbytes, self._meter.asks_for_pages = fetched.result()
        self._meter.worker(Spent(storage=time.perf_counter() - started))
        return nbytes
