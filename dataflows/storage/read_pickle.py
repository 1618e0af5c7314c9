"""Reads a pickle of arrays, bytes, numbers and containers, and refuses every other pickle.

tensorpack's default wire format is pickle, and unpickling runs whatever the file names. This reader resolves the few
names that numpy writes into a pickle of an array to stand-ins of ours, so a file can make numpy call nothing: the
stand-ins check sizes and types, and build the array from its bytes.
"""
import io
import math
import pickle
from typing import Any, Callable, Literal

import numpy as np

from dataflows.errors import UnsafePickle

_MAX_DEPTH = 3


class _DType:
    """Stands in for numpy.dtype: numbers and booleans only, never objects or structures."""

    def __init__(self, code: str, *_: Any) -> None:
        self.value = np.dtype(code) if isinstance(code, str) else np.dtype("V")
        if self.value.kind not in "biuf":
            raise UnsafePickle(f"dtype {code!r} is not a plain number type")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray until all of its state is known and checked."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        self.value = _from_bytes(data, dtype, shape, "F" if fortran else "C")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    sides: tuple[int, ...] = (shape,) if isinstance(shape, int) else tuple(shape)
    if not isinstance(dtype, _DType) or not isinstance(data, (bytes, bytearray)):
        raise UnsafePickle("an array must be a number type and its bytes")
    if any(type(n) is not int or n < 0 for n in sides) or math.prod(sides) * dtype.value.itemsize != len(data):
        raise UnsafePickle(f"an array of shape {sides} and dtype {dtype.value} does not fit its {len(data)} bytes")
    array = np.frombuffer(data, dtype.value)
    array.flags.writeable = False
    return array.reshape(sides, order=order)


def _frombuffer(data: Any, dtype: Any, shape: Any, order: str, axes: tuple[int, ...] | None = None) -> _Array:
    """Stands in for how pickle protocol 5 makes arrays; `axes` is numpy 2.2's way for transposed ones."""
    array = _Array()
    array.value = _from_bytes(data, dtype, shape, "F" if order == "F" else "C")
    if axes is not None:
        array.value = array.value.transpose(axes)
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return _from_bytes(data, dtype, (1,), "C")[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode, by which pickle protocols 0 to 2 carry bytes."""
    if encoding != "latin1":
        raise UnsafePickle(f"text encoding {encoding!r}")
    return text.encode("latin1")


class _Name:
    """One resolved name. A pickle may set attributes of what it resolves, so it gets a fresh object each time."""

    __slots__ = ("_stand_in",)

    def __init__(self, stand_in: Callable[..., Any]) -> None:
        self._stand_in = stand_in

    def __call__(self, *args: Any) -> Any:
        return self._stand_in(*args)


_NAMES: dict[str, Callable[..., Any]] = {"ndarray": _Array, "dtype": _DType, "_codecs.encode": _latin1}
for _package in ("core", "_core"):  # numpy 1 and numpy 2 name the same functions differently
    _NAMES[f"{_package}.multiarray._reconstruct"] = lambda *_: _Array()
    _NAMES[f"{_package}.multiarray.scalar"] = _scalar
    _NAMES[f"{_package}.numeric._frombuffer"] = _frombuffer


class _Unpickler(pickle._Unpickler):
    """The unpickler of the standard library that is written in Python: the one in C allocates what a file states."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Name(_NAMES[f"{module}.{name}".removeprefix("numpy.")])
        except KeyError:
            raise UnsafePickle(f"it names {module}.{name}, and only plain numpy arrays are read") from None


def _unwrap(value: Any, depth: int = _MAX_DEPTH) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, (list, tuple)):
        if depth == 0:
            raise UnsafePickle(f"its lists are nested more than {_MAX_DEPTH} deep")
        return [_unwrap(item, depth - 1) for item in value]
    return value


def loads(data: Any) -> Any:
    """The value pickled in `data` (any bytes-like object); tuples come back as lists, arrays are read-only.

    Raises UnsafePickle for a damaged pickle and for one that names anything but numpy's plain arrays.
    """
    try:
        return _unwrap(_Unpickler(io.BytesIO(data)).load())
    except UnsafePickle:
        raise
    except Exception as error:  # a crafted pickle can make the unpickler raise nearly anything
        raise UnsafePickle(f"damaged pickle ({type(error).__name__}: {error})") from error
