"""What runs in a worker process: its part of the chain, its signals, and its end when the parent is gone."""
import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any, Iterator

import cv2
import numpy as np
import torch

from dataflows.load.meter import Meter
from dataflows.load.workers.messages import packed, pickled
from dataflows.load.workers.shared_memory import SharedMemory
from dataflows.tensorpack import DataFlow, ProxyDataFlow

TAKEN = b""  # the message that a datapoint was read
_SMALL = 2**16  # bytes: less is sent, labels for one
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_WATCH_S = 0.5  # between looks at whether the parent is alive


class InWorker(ProxyDataFlow):
    """What runs in a worker: yields (kind, content), and never ends, for tensorpack's worker would start it again.

    `taken` is a pipe with one message for each that the parent has read, and one for each slot of `shared` memory that
    it has done with: its number.
    """

    def __init__(self, ds: DataFlow, prefetch: int, meter: Meter, taken: Any, shared: SharedMemory | None,
                 slots: int) -> None:
        super().__init__(ds)
        self._prefetch = prefetch
        self._meter = meter
        # The system ends a process with the thread that has forked it, which need not live as long as its process.
        self._bound = threading.current_thread() is threading.main_thread()
        self._taken = taken
        self._shared = shared
        self._free = list(range(slots))

    def __len__(self) -> int:
        return len(self.ds) + 1

    def reset_state(self) -> None:
        parent = os.getppid()  # read before the thread starts, or it may be the next one already
        threading.Thread(target=_watch, args=(parent,), daemon=True, name="dataflows-watch").start()
        if self._bound:
            _die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler that saves the training's state is the parent's
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # or what a transform prints would be lost when it is killed
        # The workers are the parallelism; and OpenMP's pool, which torch would use, does not survive a fork.
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        super().reset_state()
        self._meter.begin()  # what came along with the copy is the parent's

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        try:
            for number, datapoint in enumerate(self.ds, 1):
                components = [self._share(*packed(component)) for component in datapoint]
                yield "datapoint", (components, self._meter.take(), time.perf_counter())
                if number >= self._prefetch:
                    while self._hear() != TAKEN:
                        pass
            yield "end", None
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            yield "error", pickled(error)
        threading.Event().wait()

    def _hear(self) -> bytes:
        message: bytes = self._taken.recv_bytes()
        if message != TAKEN:
            self._free += message
        return message

    def _share(self, how: str, content: Any, axes: tuple[int, ...] | None) -> tuple[str, Any, tuple[int, ...] | None]:
        """A packed component, in shared memory if it fits and if the user has not kept so many that none is free."""
        if self._shared is None or not isinstance(content, np.ndarray) or content.nbytes < _SMALL:
            return how, content, axes
        if not self._free or content.nbytes > self._shared.nbytes:
            return how, content, axes
        slot = self._free.pop()
        what = slot, content.shape, content.dtype.str
        np.copyto(self._shared.slot(*what), content)
        return "shared", what, axes


def _die_with_parent() -> None:
    """Has Linux kill this process when its parent is gone: a process that is stopped cannot watch."""
    with contextlib.suppress(OSError, AttributeError):  # no Linux; tensorpack asks for this where python-prctl is
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(parent: int) -> None:
    """Ends this process when its parent is gone, whichever start method made it."""
    process = multiprocessing.parent_process()
    while os.getppid() == parent and process is not None and process.is_alive():
        process.join(_WATCH_S)
    os.kill(os.getpid(), signal.SIGKILL)
