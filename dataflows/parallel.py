"""Work for several threads, in order."""
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Generator, Iterable, Iterator, TypeVar

from dataflows.quiet import DataFlow, ProxyDataFlow
from dataflows.threads import Threads

T = TypeVar("T")
R = TypeVar("R")


def map_ordered(fn: Callable[[T], R], items: Iterable[T], num_threads: int, ahead: int) -> Generator[R, None, None]:
    """Yields fn(item) for each item, in order, while up to `ahead` calls after it run or wait in `num_threads` threads.

    With num_threads=0 each call runs in the caller when its result is asked for. An exception of `items` or of `fn` is
    raised at its place in the order. The threads end with the iteration: when it is exhausted, fails, or is dropped,
    calls that have not started are cancelled and running ones are waited for.
    """
    if num_threads == 0:
        for item in items:  # not `yield from map`: a StopIteration of fn would end it silently
            yield fn(item)
        return
    with Threads(num_threads, "dataflows") as pool:
        pending: deque[Future[R]] = deque()
        try:
            for future in _submit(pool, fn, items):
                pending.append(future)
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _submit(pool: Threads, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[Future[R]]:
    """A future for each item. If `items` raises, the last one has its exception, behind the results before it."""
    try:
        for item in items:
            yield pool.submit(fn, item)
    except Exception as error:
        failed: Future[R] = Future()
        failed.set_exception(error)
        yield failed


class OrderedThreadMapData(ProxyDataFlow):
    """tensorpack's MapData with threads: yields fn(datapoint) in the order of `ds`, and drops those that are None.

    tensorpack's MultiThreadMapData reorders datapoints and hangs when `fn` raises; here the exception is raised at its
    place in the order. At most `buffer_size` results wait. `len` is that of `ds`, exact when `fn` returns no None.

        ds: [1] [2] [3]    fn=lambda dp: [dp[0] ** 2]:    [1] [4] [9]
    """

    def __init__(self, ds: DataFlow, fn: Callable[[list[Any]], Any | None], *, num_threads: int,
                 buffer_size: int) -> None:
        super().__init__(ds)
        self._fn = fn
        self._num_threads = num_threads
        self._buffer_size = buffer_size

    def __iter__(self) -> Iterator[Any]:
        for datapoint in map_ordered(self._fn, self.ds, self._num_threads, self._buffer_size):
            if datapoint is not None:
                yield datapoint
