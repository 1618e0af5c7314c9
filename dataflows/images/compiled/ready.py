"""Whether our own kernels decode and resize in this process.

A thread of its own loads what numba has compiled, half a second, or compiles it, which takes longer, once on a machine.
libjpeg and torch give the same pixels: so nobody waits for it, and they do the work meanwhile. fast_decode=True gives
others, so it does wait. Importing this imports neither numba nor what it compiles.

numba works under locks, and a process that is forked meanwhile would find them taken for ever. So forks wait for it.
"""
import contextlib
import logging
import os
import threading
from types import ModuleType
from typing import Iterator

_MOST_S = 120.0  # that a fork waits
logger = logging.getLogger(__name__)
_lock = threading.Lock()
_threads: list[threading.Thread] = []  # the one that prepares it
_works: list[bool] = []


def start() -> None:
    """Has a thread load, or compile, the kernels, unless that was done. Thread-safe.

    Where they do not work, one warning says why, and libjpeg and torch do their work.
    """
    if _works or _threads:
        return
    with _lock:
        if _works or _threads:
            return
        thread = threading.Thread(target=_prepare, name="dataflows-kernels")
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more threads
            _without(error, "a thread to load it in", "Raise the limit of threads (`ulimit -u`)")
        else:
            _threads.append(thread)


def make_ready() -> bool:
    """The same, and waits for it: whether it works here."""
    start()
    for thread in _threads:
        thread.join()
    return _works[0]


def own_kernels(*, wait: bool) -> ModuleType | None:
    """The module kernels.py; None where it does not work here, or does not yet and `wait` is not set."""
    if wait:
        make_ready()
    else:
        start()
    if not _works or not _works[0]:
        return None
    from dataflows.images.compiled import kernels

    return kernels


@contextlib.contextmanager
def without() -> Iterator[None]:
    """Has this process do without in the body, as where numba does not work: to compare."""
    make_ready()
    before = list(_works)
    _works[:] = [False]
    try:
        yield
    finally:
        _works[:] = before


def _prepare() -> None:
    try:
        from dataflows.images.compiled import kernels
        from dataflows.jpeg import compiled

        compiled.make_ready(kernels.run_all, lambda: logger.warning(
            "compiling what decodes and resizes, which takes some 45 seconds, once on a machine; libjpeg and torch do "
            "so meanwhile, but for fast_decode=True. `python -m dataflows compile` does so ahead of time"))
        _works.append(True)
    except Exception as error:  # packages that do not fit each other raise nearly anything
        _without(error, "numba", "`pip install --upgrade numba` may mend it")


def _without(error: Exception, missing: str, remedy: str) -> None:
    logger.warning("libjpeg decodes and torch resizes here, which takes longer, and fast_decode=True takes libjpeg's "
                   "fast options: what does it faster needs %s, which does not work (%s: %s). %s", missing,
                   type(error).__name__, error, remedy)
    _works.append(False)


def _before_fork() -> None:
    for thread in _threads:
        if thread is not threading.current_thread():
            thread.join(_MOST_S)


def _after_fork() -> None:
    """In the child, where the thread does not exist: what was not ready is prepared anew."""
    global _lock
    _lock = threading.Lock()
    _threads.clear()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
