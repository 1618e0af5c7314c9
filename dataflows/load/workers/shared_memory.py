"""Batch memory that is used again when nobody references it any more, also shared between processes."""
import math
import mmap
import multiprocessing.context
import multiprocessing.reduction
import os
import tempfile
import weakref
from typing import Any, Callable

import numpy as np

from dataflows.owned_arrays import Owner


def lent(memory: np.ndarray) -> tuple[np.ndarray, Callable[[], object | None]]:
    """A view of `memory`, and a function that returns None when it and all views of it are gone.

    The lender has to ask. A callback would run wherever the last view goes, and an exception raised in it, as
    KeyboardInterrupt may be anywhere, would be lost.
    """
    owner = Owner(memory.__array_interface__, memory)
    return np.asarray(owner), weakref.ref(owner)


class SharedMemory:
    """`slots` pieces of `nbytes` bytes that a process shares with a child it starts, whatever the start method.

    Has no name: nothing is left of it when the last process that has it is gone, however it went. It is no file of
    /dev/shm, which may be small or missing; where Linux is not the system, it is a temporary file, as it is with
    `on_disk`. Raises OSError where the system does not give it.
    """

    def __init__(self, slots: int, nbytes: int, *, on_disk: bool = False) -> None:
        self._attach(_unnamed_file(on_disk), slots, nbytes, new=True)

    def _attach(self, descriptor: int, slots: int, nbytes: int, *, new: bool = False) -> None:
        self._descriptor = descriptor
        close = weakref.finalize(self, os.close, descriptor)
        try:
            if new:
                os.ftruncate(descriptor, slots * nbytes)
            self._bytes = np.frombuffer(mmap.mmap(descriptor, slots * nbytes), np.uint8).reshape(slots, nbytes)
        except BaseException:
            close()
            raise

    @property
    def nbytes(self) -> int:
        """Of each slot."""
        return self._bytes.shape[1]

    def slot(self, number: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """The first bytes of a slot as an array."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return self._bytes[number, :nbytes].view(dtype).reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        descriptor = multiprocessing.reduction.DupFd(self._descriptor)
        return _attached, (descriptor, *self._bytes.shape)


def _unnamed_file(on_disk: bool) -> int:
    if hasattr(os, "memfd_create") and not on_disk:
        return os.memfd_create("dataflows")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _attached(descriptor: Any, slots: int, nbytes: int) -> SharedMemory:
    shared = SharedMemory.__new__(SharedMemory)
    shared._attach(descriptor.detach(), slots, nbytes)
    return shared


class SharedNumber:
    """An integer, 0 to 2**63 - 1, whose changes are seen by all processes that this one forks or starts with it.

    Any other copy, as of pickle and deepcopy, is a number of its own.
    """

    def __init__(self, value: int = 0) -> None:
        try:
            self._attach(SharedMemory(1, 8))
        except OSError:  # a sandbox that refuses such memory; for one number, a file does as well
            self._attach(SharedMemory(1, 8, on_disk=True))
        self.value = value

    def _attach(self, shared: SharedMemory) -> None:
        self._shared, self._cell = shared, shared.slot(0, (1,), "int64")

    @property
    def value(self) -> int:
        """What it is now; may be set."""
        return int(self._cell[0])

    @value.setter
    def value(self, value: int) -> None:
        self._cell[0] = value

    def __reduce__(self) -> tuple[Any, ...]:
        if multiprocessing.context.get_spawning_popen() is None:
            return SharedNumber, (self.value,)
        return _attached_number, (self._shared,)


def _attached_number(shared: SharedMemory) -> SharedNumber:
    number = SharedNumber.__new__(SharedNumber)
    number._attach(shared)
    return number
