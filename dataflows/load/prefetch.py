"""Asking for the pages of records before they are decoded."""
import itertools
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Iterator

from dataflows.load.meter import Meter, Spent
from dataflows.order.local_shuffle import FiniteLocallyShuffleData
from dataflows.storage.store import Store
from dataflows.system import available_memory
from dataflows.tensorpack import DataFlow, ProxyDataFlow
from dataflows.threads import Threads

AHEAD_BYTES = 256 * 2**20  # at most: a second or so of the fastest disk, in page cache that may be evicted at any time
_SAMPLE = 16  # neighbours in the file are in memory together, or not; what is missed, its batch asks for


class PrefetchPages(ProxyDataFlow):
    """Yields the batches of `ds`, `[numbers, positions]`, after asking the kernel for the pages of their records.

    Looks ahead by as many batches as fit into `ahead_bytes`, two at least, but starts with one and doubles with each
    that it yields, so the first batch does not wait for the pages of others. A thread of its own does the asking, which
    waits while the disk's queue is full; `meter` is told how long this waits for it. `len` and order are those of `ds`;
    several iterations may be alive at once.

    With `shuffle`, the local shuffle that the batches come from, pages are asked for when their record enters its
    buffer, which is in the order of the file, and wait in memory for their turn: a disk that has to seek reads from
    start to end. That needs memory for as many records as the buffer holds; where there is less than twice that, they
    are asked for as they leave the buffer. `every`: `ds` has each so many-th batch, as a worker process has.
    """

    def __init__(self, ds: DataFlow, store: Store, meter: Meter, ahead_bytes: int = AHEAD_BYTES, *,
                 shuffle: FiniteLocallyShuffleData | None = None, every: int = 1) -> None:
        super().__init__(ds)
        self._store = store
        self._meter = meter
        self._ahead_bytes = ahead_bytes
        self._shuffle = shuffle
        self._every = every

    def __iter__(self) -> Iterator[list[Any]]:
        waiting: deque[tuple[list[Any], Future[tuple[int, bool]]]] = deque()
        most, entering = 1, self._entering()
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

    def _entering(self) -> Callable[[int], list[int]]:
        """A function that tells which records enter the shuffle's buffer while so many more of this epoch leave it."""
        shuffle, index = self._shuffle, self._store.index
        if shuffle is None or index is None or 2 * shuffle.buffer_size * index.nbytes.mean() > available_memory():
            return lambda _: []
        pointers, left = iter(shuffle.ds), shuffle.skip
        taken = shuffle.taken(left)
        next(itertools.islice(pointers, taken, taken), None)  # what an earlier run has had

        def entering(count: int) -> list[int]:
            nonlocal left, taken
            left, before = left + self._every * count, taken
            taken = shuffle.taken(left)
            return [number for number, _ in itertools.islice(pointers, taken - before)]

        return entering

    def _fetch(self, batch: list[int], entering: list[int]) -> tuple[int, bool]:
        found = self._store.will_need(batch)  # first: most of them are on their way, the others are wanted soonest
        if entering:
            self._store.will_need(entering, sample=_SAMPLE)
        return found

    def _result(self, fetched: Future[tuple[int, bool]]) -> int:
        started = time.perf_counter()
        nbytes, self._meter.asks_for_pages = fetched.result()
        self._meter.worker(Spent(storage=time.perf_counter() - started))
        return nbytes
