"""Asking for the pages of records before they are decoded."""
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Iterator

from dataflows.meter import Meter, Spent
from dataflows.quiet import DataFlow, ProxyDataFlow
from dataflows.store import Store
from dataflows.threads import Threads

AHEAD_BYTES = 256 * 2**20  # at most: a second or so of the fastest disk, in page cache that may be evicted at any time


class PrefetchPages(ProxyDataFlow):
    """Yields the batches of `ds`, `[numbers, positions]`, after asking the kernel for the pages of their records.

    Looks ahead by as many batches as fit into `ahead_bytes`, two at least, but starts with one and doubles with each
    that it yields, so the first batch does not wait for the pages of others. A thread of its own does the asking, which
    waits while the disk's queue is full; `meter` is told how long this waits for it. `len` and order are those of `ds`;
    several iterations may be alive at once.
    """

    def __init__(self, ds: DataFlow, store: Store, meter: Meter, ahead_bytes: int = AHEAD_BYTES) -> None:
        super().__init__(ds)
        self._store = store
        self._meter = meter
        self._ahead_bytes = ahead_bytes

    def __iter__(self) -> Iterator[list[Any]]:
        waiting: deque[tuple[list[Any], Future[tuple[int, bool]]]] = deque()
        most = 1
        with Threads(1, "dataflows-io") as thread:
            try:
                for batch in self.ds:
                    waiting.append((batch, thread.submit(self._store.fetch, batch[0])))
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

    def _result(self, fetched: Future[tuple[int, bool]]) -> int:
        started = time.perf_counter()
        nbytes, self._meter.asks_for_pages = fetched.result()
        self._meter.worker(Spent(storage=time.perf_counter() - started))
        return nbytes
