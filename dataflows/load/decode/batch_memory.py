"""Memory for the images of batches: used again when nobody looks at it, and one array wherever images are alike."""
import threading
from collections import deque
from typing import Any, Callable

import numpy as np
import torch

from dataflows.load.workers.shared_memory import lent

_DTYPES = {getattr(torch, name): np.dtype(name) for name in (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128")}


class Recycler:
    """Arrays of one shape and dtype, used again as soon as nobody references them.

    A fresh batch of 256 costs 18 ms of page faults, more than a third of decoding it from uint8 records. What the user
    still holds, in whole or as any view, is never handed out again. The last `keep` arrays are remembered: of those
    that are held for longer, the memory goes back to the system when the user is done with it.
    """

    def __init__(self, shape: tuple[int, ...], keep: int, dtype: np.dtype[Any] | None = None) -> None:
        self.shape, self.dtype = shape, dtype or np.dtype(np.uint8)
        self._lent: deque[tuple[Callable[[], object | None], np.ndarray]] = deque(maxlen=keep)

    def __reduce__(self) -> tuple[type["Recycler"], tuple[tuple[int, ...], int | None, np.dtype[Any]]]:
        return Recycler, (self.shape, self._lent.maxlen, self.dtype)

    def take(self) -> np.ndarray:
        """An array whose content is undefined."""
        memory = self._returned()
        if memory is None:
            memory = np.empty(self.shape, self.dtype)
        view, in_use = lent(memory)
        self._lent.append((in_use, memory))
        return view

    def _returned(self) -> np.ndarray | None:
        for _ in range(len(self._lent)):
            try:
                in_use, memory = self._lent.popleft()  # whole steps: iterations in other threads take from it, too
            except IndexError:
                return None
            if in_use() is None:
                return memory
            self._lent.append((in_use, memory))
        return None


class ResultMemory:
    """Memory for what a callable makes of images, of which nobody knows shape and dtype before the first result.

    Batches are of up to `batch_size` results, and the last `keep` of them are remembered. While the results of a batch
    differ from each other, none is looked for.
    """

    def __init__(self, batch_size: int, keep: int) -> None:
        self._batch_size, self._keep = batch_size, keep
        self._recycler: Recycler | None = None
        self._alike = True

    def __reduce__(self) -> tuple[type["ResultMemory"], tuple[int, int]]:
        return ResultMemory, (self._batch_size, self._keep)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray | None:
        """An array of (batch_size, *shape), or None where a batch is not expected to be one."""
        if not self._alike:
            return None
        recycler = self._recycler
        if recycler is None or (recycler.shape[1:], recycler.dtype) != (shape, dtype):
            recycler = self._recycler = Recycler((self._batch_size, *shape), self._keep, dtype)
        return recycler.take()

    def learn(self, alike: bool) -> None:
        """Says whether the results of a batch were alike."""
        self._alike = alike


class Results:
    """The results of one batch, as threads put them: one array if all are numbers of one shape and dtype, else a list.
    """

    def __init__(self, count: int, memory: ResultMemory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._array: np.ndarray | None = None
        self._asked = False
        self._others: list[Any] = [None] * count
        self._different = False

    def put(self, place: int, result: Any) -> None:
        """The result of the image at this place; an array is copied."""
        array = _as_array(result)
        if array is not None:
            self._ask(array)
            if self._array is not None and (array.shape, array.dtype) == (self._array.shape[1:], self._array.dtype):
                self._array[place] = array
                return
        self._others[place] = result
        self._different = True

    def _ask(self, array: np.ndarray) -> None:
        with self._lock:
            if not self._asked:
                self._array, self._asked = self._memory.take(array.shape, array.dtype), True

    def all(self) -> np.ndarray | list[Any]:
        """All of them, when the last one is there."""
        if self._array is not None and not self._different:
            return self._array[:len(self._others)]
        results = [self._array[place] if other is None and self._array is not None else other
                   for place, other in enumerate(self._others)]
        arrays = [_as_array(result) for result in results]
        self._memory.learn(len({(array.shape, array.dtype) if array is not None else None for array in arrays}) == 1)
        return results


def _as_array(result: Any) -> np.ndarray | None:
    """Numbers in host memory as an array; None for everything else."""
    if isinstance(result, np.ndarray):
        return result if result.dtype in _DTYPES.values() else None
    if isinstance(result, torch.Tensor) and is_plain(result):
        return result.detach().as_subclass(torch.Tensor).numpy()
    return None


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether numpy can hold it without loss."""
    return (tensor.dtype in _DTYPES and tensor.device.type == "cpu" and tensor.layout == torch.strided
            and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg()))
