"""Packs and unpacks a datapoint [image, label] as the bytes of a record.

What we write is msgpack with msgpack-numpy's arrays, which tensorpack's msgpack serializer reads:

    92                                            a list of two
       c4|c5|c6 <length, 1|2|4 bytes> <bytes>     image, encoded: the bytes of a JPEG (or of any file OpenCV decodes)
    or 85                                         image, decoded: a map of five
          c4 02 "nd"     c3                       it is an array
          c4 04 "type"   a3 "|u1"                 of uint8
          c4 04 "kind"   c4 00
          c4 05 "shape"  93 <height> <width> 03   height, width, channels: RGB
          c4 04 "data"   c4|c5|c6 <length> <bytes>   contiguous rows
       <label>                                    class number: an integer in msgpack's shortest form
    or 85                                         vector: a map as above, of type a3 "<f4" and shape 91 <k>

What we read is that, and what tensorpack's serializers make of lists and tuples of [image, label] elsewhere: msgpack or
pickle, images as bytes, as uint8 arrays of encoded bytes, or as uint8 arrays of pixels; labels as any kind of integer,
or as arrays of floats of one dimension.
Reading never copies the payload of a msgpack record, never runs code, and never reads past the value.
"""
import math
import struct
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np

from dataflows.errors import DamagedMsgpack, RecordError, UnsafePickle
from dataflows.label_vectors import Label, as_vector, size_text
from dataflows.storage import read_msgpack, read_pickle

Image = np.ndarray  # uint8: of one dimension, an encoded file; of three, pixels
_LABELS = range(-2**63, 2**63)  # int64, as batches hold them


def pack(datapoint: list[Any]) -> bytes:
    """The bytes of `[image, label]`: image is encoded bytes or uint8 RGB of shape (H, W, 3); label an int, or a
    vector: a float32 array of shape (k,), all of whose numbers are finite.

    Raises RecordError when they are anything else: a wrong record is cheaper to refuse here than to read for years.

    >>> pack([b"a JPEG", 3]).hex(" ")
    '92 c4 06 61 20 4a 50 45 47 03'
    """
    if len(datapoint) != 2:
        raise RecordError(f"a record must be [image, label], not a list of {len(datapoint)}")
    image, label = datapoint
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise RecordError(f"pixels must be uint8 of shape (H, W, 3), not {image.dtype} of shape {image.shape}")
    elif not isinstance(image, bytes) or not image:
        raise RecordError(f"an encoded image must be non-empty bytes, not {type(image).__name__}")
    label = as_vector(label) if _is_vector(label) and label.dtype == np.float32 else _class_number(label)
    packed: bytes = msgpack.packb([image, label], default=msgpack_numpy.encode, use_bin_type=True)
    return packed


def view(value: np.ndarray, *, array_layout: str = "HWC", array_channels: str = "RGB", label_size: int | None = None
         ) -> tuple[Image, Label]:
    """The (image, label) stored in `value`, a one-dimensional uint8 array.

    The image is uint8: of shape (n,) when it is an encoded file, of shape (H, W, 3) in RGB when it is pixels. It is a
    read-only view of `value` where the format allows it. `array_layout` ("HWC" or "CHW") and `array_channels` ("RGB"
    or "BGR") say how the writer stored arrays of pixels; encoded files need neither. The label is an int, or a float32
    array of shape (k,) that is the caller's own; `label_size` is what it must be: 0 for a class number, k for a vector,
    None for either. Raises RecordError.

    >>> image, label = view(np.frombuffer(pack([b"a JPEG", 3]), np.uint8))
    >>> image.tobytes(), label
    (b'a JPEG', 3)
    """
    image, label = _parts(value)
    return (_image(image, array_layout, array_channels),
            _class_number(label) if label_size == 0 else _label(label, label_size))


def label_size(value: np.ndarray) -> int:
    """How many numbers the label of a record has; 0 for a class number. Raises RecordError."""
    label = _parts(value)[1]
    return len(as_vector(label, finite=False)) if _is_vector(label) else 0


def _parts(value: np.ndarray) -> list[Any]:
    record = _unpack_pixels(value) or _unpack(value)
    if not isinstance(record, list) or len(record) != 2:
        raise RecordError(f"a record must be a list or tuple of [image, label], not {_describe(record)}")
    return record


def _unpack(value: np.ndarray) -> Any:
    """The value in either wire format: a pickle of protocol 2 or later starts with 0x80, which no msgpack list does."""
    if len(value) == 0:
        raise RecordError("the value is empty")
    try:
        return read_pickle.loads(value) if value[0] == 0x80 else read_msgpack.loads(value)
    except (UnsafePickle, DamagedMsgpack) as error:
        raise RecordError(str(error)) from error


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} of length {len(value)}" if hasattr(value, "__len__") else type(value).__name__


def _label(value: Any, size: int | None) -> Label:
    """A label of this size, of any if it is None."""
    if size is None and not _is_vector(value):
        return _class_number(value)
    if not _is_vector(value):
        raise RecordError(f"its label is no vector, and those of the other records have {size:,} numbers")
    label = as_vector(value, finite=False)
    if size is not None and len(label) != size:
        raise RecordError(f"its label is {size_text(len(label))}, and those of the other records have {size:,} numbers")
    return label


def _is_vector(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == 1 and value.size > 0


def _class_number(value: Any) -> int:
    number = value.reshape(())[()] if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(number, (int, np.integer)) and not isinstance(number, bool) and int(number) in _LABELS:
        return int(number)
    raise RecordError(f"a label must be an integer of 64 bits, or an array of floats of one dimension, not "
                      f"{_describe(value)}")


def _image(value: Any, layout: str, channels: str) -> Image:
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = np.frombuffer(value, np.uint8)
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim == 0:
        raise RecordError(f"an image must be bytes or a uint8 array, not {_describe(value)}")
    if value.size == 0:
        raise RecordError(f"an image must not be empty, and this one has shape {value.shape}")
    image = value if value.ndim == 1 else _pixels(value, layout, channels)
    image.flags.writeable = False
    return image


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
    keys = _unpack(value)
    if not isinstance(keys, list):
        raise RecordError(f"__keys__ must hold a list, not {_describe(keys)}")
    try:
        return [key.encode() if isinstance(key, str) else _bytes(key) for key in keys]
    except (TypeError, UnicodeEncodeError) as error:
        raise RecordError(f"__keys__ must hold bytes or text only: {error}") from error


def _bytes(key: Any) -> bytes:
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"one is {_describe(key)}")
    return bytes(key)


ARRAY_HEAD = bytes.fromhex("9285") + b"\xc4\x02nd\xc3\xc4\x04type\xa3|u1\xc4\x04kind\xc4\x00\xc4\x05shape\x93"
ARRAY_DATA = b"\xc4\x04data"
_LONG = b"\xc6"


def _unpack_pixels(value: np.ndarray) -> list[Any] | None:
    """What _unpack gives for pixels as `pack` writes them, in a third of the time; None for anything else.

    It saves 13 of some 350 us that a sample of uint8 records takes. Encoded images would gain 1 us by their like.
    """
    if len(value) < 2 or value[1] != 0x85:
        return None
    head = value[:64].tobytes()
    if not head.startswith(ARRAY_HEAD):
        return None
    data, shape, pos = memoryview(value), [], len(ARRAY_HEAD)
    try:
        for _ in range(3):
            side, pos = read_msgpack.read(data, pos)
            shape.append(side)
        start = pos + len(ARRAY_DATA + _LONG) + 4
        end = start + int.from_bytes(head[start - 4:start], "big")
        if head[pos:start - 4] != ARRAY_DATA + _LONG or math.prod(shape) != end - start or end >= len(value):
            return None
        label, pos = read_msgpack.read(data, end)
        return [value[start:end].reshape(shape), label] if pos == len(value) else None
    except (TypeError, ValueError, struct.error):
        return None  # _unpack says what is wrong with it
