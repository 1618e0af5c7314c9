"""A datapoint [image, label] and its bytes in LMDB.

What we write is msgpack with msgpack-numpy's arrays, which tensorpack's msgpack serializer reads:

    92                                            a list of two
       c4|c5|c6 <length, 1|2|4 bytes> <bytes>     image, encoded: the bytes of a JPEG (or of any file OpenCV decodes)
    or 85                                         image, decoded: a map of five
          c4 02 "nd"     c3                       it is an array
          c4 04 "type"   a3 "|u1"                 of uint8
          c4 04 "kind"   c4 00
          c4 05 "shape"  93 <height> <width> 03   height, width, channels: RGB
          c4 04 "data"   c6 <length> <bytes>      contiguous rows
       <label>                                    an integer in msgpack's shortest form

What we read is that, and what tensorpack's serializers make of lists and tuples of [image, label] elsewhere: msgpack or
pickle, images as bytes, as uint8 arrays of encoded bytes, or as uint8 arrays of pixels; labels as any kind of integer.
Reading never copies the payload of a msgpack record, never runs code, and never reads past the value.
"""
import math
import operator
import struct
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np

from dataflows import pickled

Image = np.ndarray  # uint8: of one dimension, an encoded file; of two or three, pixels
_MAX_DEPTH = 4  # a record is a list, of an array's map, of its shape


class RecordError(ValueError):
    """The bytes are not a record. The message says which rule they break; readers add the file and the key."""


def pack(datapoint: list[Any]) -> bytes:
    """The bytes of `[image, label]`: image is encoded bytes or uint8 RGB of shape (H, W, 3), label an int.

    Raises RecordError when they are anything else: a wrong record is cheaper to refuse here than to read for years.
    """
    image, label = datapoint
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise RecordError(f"pixels must be uint8 of shape (H, W, 3), not {image.dtype} of shape {image.shape}")
    elif not isinstance(image, bytes) or not image:
        raise RecordError(f"an encoded image must be non-empty bytes, not {type(image).__name__}")
    packed: bytes = msgpack.packb([image, operator.index(label)], default=msgpack_numpy.encode, use_bin_type=True)
    return packed


def view(value: np.ndarray, *, array_layout: str = "HWC", array_channels: str = "RGB") -> tuple[Image, int]:
    """The (image, label) stored in `value`, a one-dimensional uint8 array.

    The image is uint8: of shape (n,) when it is an encoded file, of shape (H, W, 3) in RGB when it is pixels. It is a
    read-only view of `value` where the format allows it. `array_layout` ("HWC" or "CHW") and `array_channels` ("RGB"
    or "BGR") say how the writer stored arrays of pixels; encoded files need neither. Raises RecordError.
    """
    if len(value) == 0:
        raise RecordError("the value is empty")
    try:
        record = pickled.loads(value) if value[0] == 0x80 else _unpack_pixels(value) or _unpack(value)
    except (pickled.UnsafePickle, struct.error) as error:
        raise RecordError(str(error)) from error
    if not isinstance(record, list) or len(record) != 2:
        raise RecordError(f"a record must be a list or tuple of [image, label], not {_describe(record)}")
    return _image(record[0], array_layout, array_channels), _label(record[1])


def _describe(value: Any) -> str:
    return f"{type(value).__name__} of length {len(value)}" if hasattr(value, "__len__") else type(value).__name__


def _label(value: Any) -> int:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise RecordError(f"a label must be an integer, not {_describe(value)}")


def _image(value: Any, layout: str, channels: str) -> Image:
    if isinstance(value, (bytes, bytearray)):
        value = np.frombuffer(value, np.uint8)
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        raise RecordError(f"an image must be bytes or a uint8 array, not {getattr(value, 'dtype', _describe(value))}")
    if value.size == 0:
        raise RecordError(f"an image must not be empty, and this one has shape {value.shape}")
    if value.ndim == 1:
        return value
    return _pixels(value, layout, channels)


def _pixels(array: np.ndarray, layout: str, channels: str) -> Image:
    if array.ndim == 2:
        array, layout = array[:, :, None], "HWC"
    if array.ndim == 3 and layout == "CHW":
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise RecordError(f"pixels must have shape (H, W), (H, W, 1) or (H, W, 3), and with array_layout={layout!r} "
                          f"these have {array.shape}; arrays stored as (3, H, W) need array_layout='CHW'")
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return array[:, :, ::-1] if channels == "BGR" else array


def unpack_keys(value: np.ndarray) -> list[bytes]:
    """The list of keys that tensorpack stores under `__keys__`, in either format. Raises RecordError."""
    n = (len(value) - 5) // 10
    if len(value) == 5 + 10 * n and bytes(value[:5]) == b"\xdd" + struct.pack(">I", n):
        rows = value[5:].reshape(n, 10)  # 8-digit keys, as every stock writer makes them: no loop over a million
        if (rows[:, 0] == 0xC4).all() and (rows[:, 1] == 8).all():
            return [row.tobytes() for row in np.ascontiguousarray(rows[:, 2:])]
    try:
        keys = pickled.loads(value) if len(value) and value[0] == 0x80 else _unpack(value)
    except (pickled.UnsafePickle, struct.error) as error:
        raise RecordError(str(error)) from error
    if not isinstance(keys, list):
        raise RecordError(f"__keys__ must hold a list, not {_describe(keys)}")
    keys = [k.tobytes() if isinstance(k, np.ndarray) else k.encode() if isinstance(k, str) else k for k in keys]
    if not all(isinstance(k, bytes) for k in keys):
        raise RecordError("__keys__ must hold bytes or text only")
    return keys


_PIXELS = bytes.fromhex("9285") + b"\xc4\x02nd\xc3\xc4\x04type\xa3|u1\xc4\x04kind\xc4\x00\xc4\x05shape\x93"
_DATA = b"\xc4\x04data\xc6"


def _unpack_pixels(value: np.ndarray) -> list[Any] | None:
    """What _unpack gives for pixels as `pack` writes them, in a third of the time; None for anything else."""
    head = value[:64].tobytes()
    if not head.startswith(_PIXELS):
        return None
    data, shape, pos = memoryview(value), [], len(_PIXELS)
    for _ in range(3):
        side, pos = _read(value, data, pos, 1)
        shape.append(side)
    if head[pos:pos + len(_DATA)] != _DATA:
        return None
    start = pos + len(_DATA) + 4
    end = start + int.from_bytes(head[start - 4:start], "big")
    if not all(isinstance(side, int) for side in shape) or min(shape) < 1 or math.prod(shape) != end - start:
        return None
    label, pos = _read(value, data, end, 1)
    return [value[start:end].reshape(shape), label] if pos == len(value) else None


def _unpack(value: np.ndarray) -> Any:
    """One msgpack value that fills all of `value`; its binary parts are views."""
    result, end = _read(value, memoryview(value), 0, _MAX_DEPTH)
    if end != len(value):
        raise RecordError(f"{len(value) - end} bytes follow the msgpack value")
    return result


_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
            0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
            0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}
_BYTES = {0xC4, 0xC5, 0xC6, 0xA0, 0xD9, 0xDA, 0xDB}  # text too: writers before msgpack 1.0 stored bytes as text
_DTYPES = {dtype.str: dtype for code in "?bBhHiIqQefd" for dtype in (np.dtype(code), np.dtype(code).newbyteorder())}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def _read(value: np.ndarray, data: memoryview, pos: int, depth: int) -> tuple[Any, int]:
    """The msgpack value at `pos` and where the next one starts. struct.error marks the end of the data."""
    if depth == 0 or pos >= len(data):
        raise RecordError("msgpack is nested too deeply" if depth == 0 else "msgpack ends too early")
    tag = data[pos]
    pos += 1
    if tag < 0x80:
        return tag, pos
    if tag >= 0xE0:
        return tag - 256, pos
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], pos
    if tag in _NUMBERS:
        return struct.unpack_from(_NUMBERS[tag], data, pos)[0], pos + struct.calcsize(_NUMBERS[tag])
    if tag < 0xC0:
        length, kind = tag & (0x1F if tag >= 0xA0 else 0x0F), (tag & 0xF0 if tag < 0xA0 else 0xA0)
    elif tag in _LENGTHS:
        length, kind = struct.unpack_from(_LENGTHS[tag], data, pos)[0], tag
        pos += struct.calcsize(_LENGTHS[tag])
    else:
        raise RecordError(f"msgpack type 0x{tag:02x} has no place in a record")
    if length > len(data) - pos:  # every item takes a byte at least, so this bounds lists and maps too
        raise RecordError(f"msgpack states {length} bytes or items where {len(data) - pos} bytes are left")
    if kind in _BYTES:
        return value[pos:pos + length], pos + length
    if kind in (0x90, 0xDC, 0xDD):
        return _read_list(value, data, pos, length, depth)
    items, pos = _read_list(value, data, pos, 2 * length, depth)
    return _from_map(items), pos


def _read_list(value: np.ndarray, data: memoryview, pos: int, length: int, depth: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(length):
        item, pos = _read(value, data, pos, depth - 1)
        items.append(item)
    return items, pos


def _from_map(items: list[Any]) -> np.ndarray:
    """msgpack-numpy's map of an array or of a number, as an array that views its data."""
    fields = {_text(key): field for key, field in zip(items[::2], items[1::2])}
    dtype, data, shape = _DTYPES.get(_text(fields.get("type"))), fields.get("data"), fields.get("shape", [])
    if "nd" not in fields or dtype is None or not isinstance(data, np.ndarray):
        raise RecordError("a map in a record must be a numpy array or number of plain type, as msgpack-numpy writes it")
    plain = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not plain or math.prod(shape) * dtype.itemsize != len(data):
        raise RecordError(f"an array of shape {shape} and dtype {dtype} does not fit its {len(data)} bytes")
    return data.view(dtype).reshape(shape) if len(data) else np.empty(shape, dtype)


def _text(value: Any) -> str:
    return value[:16].tobytes().decode("latin1") if isinstance(value, np.ndarray) else repr(value)
