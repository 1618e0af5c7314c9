"""Threads that are gone when they are said to be."""
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

_MOST_S = 1.0  # for a thread to end: it takes microseconds, and is waited for only where the system tells


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
