"""Holds Ctrl-C back while Python or zmq would lose it."""
import contextlib
import signal
import threading
from typing import Any, Iterator


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C takes effect after the body: one in the middle of starting or killing a process would lose its traces.

    Processes that start in the body do not hear it: it reaches all of a terminal's processes, and is the parent's.
    """
    held: list[Any] = []
    handler = signal.getsignal(signal.SIGINT)
    replace = callable(handler) and threading.current_thread() is threading.main_thread()
    if replace:  # other threads do not block the signal, and Python tells the main thread of it
        signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if replace:
            signal.signal(signal.SIGINT, handler)
        if held and callable(handler):
            handler(*held[0])
