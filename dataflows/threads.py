"""Thread pools: an ordered map over a DataFlow, and threads that are really gone when they are closed."""
import contextlib
import functools
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Generator, Iterable, Iterator, TypeVar

from dataflows.tensorpack import DataFlow, ProxyDataFlow

_MOST_S = 1.0  # for a thread to end: it takes microseconds, and is waited for only where the system tells
T = TypeVar("T")
R = TypeVar("R")


class Threads(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose threads are gone for the system, too, when `shutdown` or a `with` block ends.

    Python takes a thread for ended after its last line of Python, but C++ libraries clean up after that, under locks of
    theirs. A process that is forked in that moment finds such a lock taken for ever: of 1,080 forks right after threads
    that had used OpenCV, one child hung in its first call of it.
    """

    def __init__(self, count: int, name: str) -> None:
        started: list[int] = []
        super().__init__(count, name, initializer=lambda: started.append(threading.get_native_id()))
        self._started = started

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As ThreadPoolExecutor's."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        give_up = time.monotonic() + _MOST_S
        while wait and any(map(_exists, self._started)) and time.monotonic() < give_up:
            time.sleep(5e-5)


def _exists(native_id: int) -> bool:
    return os.path.exists(f"/proc/self/task/{native_id}")


@contextlib.contextmanager
def torch_in_one_thread() -> Iterator[None]:
    """Has torch's operators run in the calling thread alone, in the body; other threads are not concerned.

    Where workers have all processors, an operator that shares its work with torch's pool waits, spinning, until a
    thread of the pool gets one: RandomErasing of one image in four took 2.2 ms of processor time an image, and 0.1 so.
    """
    import torch  # which the dump does without

    torch.get_num_threads()  # has it set its own number for this thread, which it does once
    with _pools().limit(limits=1, user_api="openmp"):
        yield


@functools.cache
def _pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


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
