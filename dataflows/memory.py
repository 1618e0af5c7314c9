"""Memory that is used again when nobody references it any more."""
import math
import mmap
import multiprocessing.reduction
import os
import weakref
from typing import Any, Callable

import numpy as np


class _Owner:
    """The one object that every view of some memory keeps alive, so that its end tells when all are gone."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: np.ndarray) -> None:
        self.__array_interface__ = memory.__array_interface__
        self.memory = memory


def lent(memory: np.ndarray) -> tuple[np.ndarray, Callable[[], object | None]]:
    """A view of `memory`, and a function that returns None when it and all views of it are gone.

    To ask is the lender's part. A callback would run wherever the last view goes, and an exception raised in it, as
    KeyboardInterrupt may be anywhere, would be lost.
    """
    owner = _Owner(memory)
    return np.asarray(owner), weakref.ref(owner)


class SharedMemory:
    """`slots` pieces of `nbytes` bytes that a process shares with a child it starts, whatever the start method.

    Has no name: nothing is left of it when the last process that has it is gone, however it went. Raises OSError where
    the system does not give it; AttributeError where it is not Linux.
    """

    def __init__(self, slots: int, nbytes: int) -> None:
        self._attach(os.memfd_create("dataflows"), slots, nbytes, new=True)

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


def _attached(descriptor: Any, slots: int, nbytes: int) -> SharedMemory:
    shared = SharedMemory.__new__(SharedMemory)
    shared._attach(descriptor.detach(), slots, nbytes)
    return shared
