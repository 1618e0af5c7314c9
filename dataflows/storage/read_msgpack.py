"""Reads msgpack in place: bytes and arrays are views; nothing is copied, and nothing is executed.

msgpack's own unpacker copies each payload with the GIL held, and once msgpack-numpy has patched it, which tensorpack
does when it is imported, it unpickles arrays of objects.
"""
import math
import struct
from typing import Any

import numpy as np

from dataflows.errors import DamagedMsgpack

_MAX_DEPTH = 4  # a record is a list, of an array's map, of its shape, of numbers
_MAX_SIDE = 2**31

_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
            0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
            0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_BINARY, _TEXT, _LIST = {0xC4, 0xC5, 0xC6}, {0xA0, 0xD9, 0xDA, 0xDB}, {0x90, 0xDC, 0xDD}
_DTYPES = {dtype.str: dtype for code in "?bBhHiIqQefd" for dtype in (np.dtype(code), np.dtype(code).newbyteorder())}


def loads(value: np.ndarray) -> Any:
    """The msgpack value that fills all of `value`, a one-dimensional uint8 array.

    Binary parts are memoryviews of `value`, arrays are read-only views of it. Raises DamagedMsgpack.

    >>> loads(np.array([0x93, 1, 0xC0, 0xC3], np.uint8))
    [1, None, True]
    """
    try:
        result, end = read(memoryview(value).toreadonly(), 0)
    except struct.error:
        raise DamagedMsgpack("msgpack ends too early") from None
    if end != len(value):
        raise DamagedMsgpack(f"{len(value) - end} bytes follow the msgpack value")
    return result


def read(data: memoryview, pos: int, depth: int = _MAX_DEPTH) -> tuple[Any, int]:
    """(the value at `pos`, where the next one starts). Raises DamagedMsgpack, and struct.error at the end of `data`."""
    if depth == 0 or pos >= len(data):
        raise DamagedMsgpack("msgpack is nested too deeply" if depth == 0 else "msgpack ends too early")
    tag = data[pos]
    pos += 1
    if tag < 0x80:
        return tag, pos
    if tag >= 0xE0:
        return tag - 256, pos
    if tag in _NUMBERS:
        return struct.unpack_from(_NUMBERS[tag], data, pos)[0], pos + struct.calcsize(_NUMBERS[tag])
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], pos
    kind, length, pos = _head(data, tag, pos)
    if length > len(data) - pos:  # every item takes a byte at least, so this bounds lists and maps too
        raise DamagedMsgpack(f"msgpack states {length} bytes or items where {len(data) - pos} bytes are left")
    if kind in _BINARY:
        return data[pos:pos + length], pos + length
    if kind in _TEXT:
        return _text(data[pos:pos + length]), pos + length
    items, pos = _items(data, pos, length if kind in _LIST else 2 * length, depth - 1)
    return (items if kind in _LIST else _array(items)), pos


def _head(data: memoryview, tag: int, pos: int) -> tuple[int, int, int]:
    """(kind, length, position of the payload) of a value that has a length."""
    if tag < 0xA0:
        return tag & 0xF0, tag & 0x0F, pos
    if tag < 0xC0:
        return 0xA0, tag & 0x1F, pos
    if tag not in _LENGTHS:
        raise DamagedMsgpack(f"msgpack type 0x{tag:02x} is none that a record may have")
    return tag, struct.unpack_from(_LENGTHS[tag], data, pos)[0], pos + struct.calcsize(_LENGTHS[tag])


def _items(data: memoryview, pos: int, length: int, depth: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(length):
        item, pos = read(data, pos, depth)
        items.append(item)
    return items, pos


def _text(part: memoryview) -> str | memoryview:
    """Text; but writers before msgpack 1.0 stored bytes as text too, and those stay bytes."""
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError:
        return part


def _array(items: list[Any]) -> np.ndarray | np.generic:
    """The array or number that msgpack-numpy stores as a map of these items."""
    fields = {_name(key): field for key, field in zip(items[::2], items[1::2])}
    dtype, data, shape = _DTYPES.get(_name(fields.get("type"))), fields.get("data"), fields.get("shape", [])
    if "nd" not in fields or dtype is None or not isinstance(data, memoryview):
        raise DamagedMsgpack("a map must be a numpy array or number of plain type, as msgpack-numpy writes it")
    if not isinstance(shape, list) or len(shape) > 8 or not all(type(n) is int and 0 <= n < _MAX_SIDE for n in shape) \
            or math.prod(shape) * dtype.itemsize != len(data):
        raise DamagedMsgpack(f"an array of shape {shape} and dtype {dtype} does not fit its {len(data)} bytes")
    if not len(data):
        return np.empty(0, dtype)
    array = np.frombuffer(data, dtype)
    return array[0] if fields["nd"] is False else array.reshape(shape)


def _name(value: Any) -> str:
    return str(value[:16], "latin1") if isinstance(value, memoryview) else value if isinstance(value, str) else ""
