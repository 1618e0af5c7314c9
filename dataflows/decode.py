"""From a record to pixels: the only file that knows the image codecs and torch's resize.

Pixels are uint8 RGB of shape (H, W, 3), as PIL would give them: no EXIF rotation, grayscale spread to three channels.
simplejpeg, OpenCV and Pillow all decode JPEGs with libjpeg-turbo and give identical pixels. simplejpeg takes memory of
ours, which has no page faults left and needs no GIL in between: 0.85 ms for a crop's JPEG where OpenCV takes 0.95. It
takes perfect JPEGs only; of all others, and other formats, OpenCV is the judge.

The antialiased resize of torch differs from PIL's BILINEAR, hence from torchvision's on PIL images, by one level at
most on photos (by two in one value of some thousand images of white noise).
"""
import functools
import logging
import math
from typing import Any, Callable, Iterable, NamedTuple, TypeVar

import cv2
import numpy as np
import simplejpeg
import torch

from dataflows import record
from dataflows.crop import reduced, reductions, regions, unreduced
from dataflows.cutting import TileMap, cut, read_tiles
from dataflows.jpeg import jpeg_size
from dataflows.options import integer
from dataflows.record import RecordError
from dataflows.store import Store

T = TypeVar("T")
logger = logging.getLogger(__name__)

_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
MAX_PIXELS = 178_956_970  # where Pillow stops: twice its MAX_IMAGE_PIXELS
# The operator behind torch.nn.functional.interpolate(antialias=True). Called directly, it writes into memory of ours,
# and computes no more of the output than is asked for. It frees the GIL.
_resize_antialiased = torch.ops.aten._upsample_bilinear2d_aa.out


class Memory:
    """Memory for one image at a time, for the decoder to write into: it grows, and is used again for the next image."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def take(self, count: int) -> np.ndarray:
        """At least `count` bytes, whose content is undefined; what was taken before must not be used any more."""
        if len(self._bytes) < count:
            self._bytes = np.empty(count, np.uint8)
        return self._bytes


def decode(encoded: np.ndarray | bytes, memory: Memory | None = None, most_pixels: int | None = None, *,
           fast: bool = False) -> np.ndarray:
    """The pixels of an encoded image: uint8 RGB, (H, W, 3), in `memory` or fresh. Raises RecordError if that fails.

    `most_pixels` is how many it may have, from who knows that; by default its header is asked. `fast` is the
    transforms' fast_decode.
    """
    pixels = decode_perfect(encoded, memory, most_pixels, fast=fast)
    if pixels is not None:
        return pixels
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), _FLAGS)
    except cv2.error as error:
        raise RecordError(f"OpenCV cannot decode the image: {error.err or error}") from error
    if pixels is None:
        raise RecordError("the image is damaged, or of a format that OpenCV does not decode")
    return pixels


def decode_perfect(encoded: np.ndarray | bytes, memory: Memory | None = None, most_pixels: int | None = None, *,
                   fast: bool = False) -> np.ndarray | None:
    """What `decode` gives for a JPEG of one or three colors without any flaw; None for all else."""
    if most_pixels is None:
        most_pixels = math.prod(jpeg_size(encoded) or (0,))
    if most_pixels:
        try:
            into = None if memory is None else memory.take(3 * most_pixels)
            return simplejpeg.decode_jpeg(encoded, "RGB", fast, fast, buffer=into)
        except ValueError:  # it warns of something, or is of four colors
            pass
    return None


def refuse_bomb(height: int, width: int, max_pixels: int) -> None:
    """Raises RecordError for an image of more pixels than that, before memory is taken for them."""
    if height * width > max_pixels:
        raise RecordError(f"it states {height:,} x {width:,} pixels, and max_pixels is {max_pixels:,}: if it is not a "
                          f"bomb, give more, a dump by --max-pixels")


def decode_reduced(encoded: np.ndarray | bytes, factor: int, *, fast: bool = False) -> np.ndarray:
    """The pixels of a JPEG at 1/2, 1/4 or 1/8 of its size, rounded up, as `decode` gives them."""
    height, width = (-(-side // factor) for side in jpeg_size(encoded) or (0, 0))
    try:
        return simplejpeg.decode_jpeg(encoded, "RGB", fast, fast, height, width, factor)
    except ValueError:
        return cv2.resize(decode(encoded), (width, height), interpolation=cv2.INTER_AREA)


def resize(pixels: np.ndarray, height: int, width: int, *, antialias: bool = True,
           scales: tuple[float, float] | tuple[None, None] = (None, None), out: np.ndarray | None = None) -> np.ndarray:
    """`pixels` (H, W, 3) resized to (height, width) with bilinear interpolation: uint8, in `out` or in fresh memory.

    `scales` are of height and width, from the top left corner, where they are not those of the two sizes: the result is
    a part of a larger one. They need antialias. `out` is contiguous, of (height, width).
    """
    if not antialias:
        resized = cv2.resize(pixels, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
        return resized if out is None else out
    # A strided crop would be copied inside the operator by a pool of torch's own, one in each of our threads, whose
    # idle threads spin: 1.24 ms of processor time for a 400x300 crop, against 0.35 with this copy.
    pixels = np.ascontiguousarray(pixels)
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    _resize_antialiased(_tensor(pixels), (height, width), False, *scales, out=_tensor(out))
    return out


class _Writable:
    """Names memory to numpy without its read-only mark, at which torch warns; nothing here writes to it."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, array: np.ndarray) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}
        self.owner = array


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) pixels as a (1, 3, H, W) tensor on the same memory."""
    if not pixels.flags.writeable:
        pixels = np.asarray(_Writable(pixels))
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def to_planes(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) pixels as (3, H, W), in fresh contiguous memory."""
    out = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(out))  # five times as fast as numpy's strided copy
    return out


def crop(pixels: np.ndarray, row: list[int], antialias: bool, out: np.ndarray, *,
         origin: tuple[int, int] = (0, 0), memory: Memory | None = None) -> None:
    """Fills `out`, uint8 of shape (3, h, w) in either memory order, by one row of a plan (see crop.py).

    `pixels` is the image, or a part of it that has the row's region, with its top left pixel at `origin`. A window that
    is not the whole of the resized box needs antialias. `memory` is used for what lies in between.
    """
    top, left, height, width, to_height, to_width, y, x, flip = row
    box = _box(pixels, top - origin[0], left - origin[1], height, width, memory or Memory())
    if box.strides[2] != 1:  # planar or BGR arrays of other writers
        box = np.ascontiguousarray(box)
    # In channels-last memory, the last step leaves its result in place.
    last = out.transpose(1, 2, 0) if out.strides[2] == 3 else None
    bottom, right = y + out.shape[1], x + out.shape[2]
    if (height, width) != (to_height, to_width):
        box = resize(box, bottom, right, antialias=antialias, out=None if flip or y or x else last,
                     scales=(None, None) if (bottom, right) == (to_height, to_width) else (to_height / height,
                                                                                           to_width / width))
    if y or x or box.shape[:2] != (bottom, right):
        box = box[y:bottom, x:right]
    if flip:
        flipped = cv2.flip(box, 1, dst=last)
        box = flipped if last is None else last
    if last is None:
        cv2.split(box, list(out))
    elif box is not last:
        np.copyto(last, box)


def _box(pixels: np.ndarray, top: int, left: int, height: int, width: int, memory: Memory) -> np.ndarray:
    """A box of the image. Where `pixels` is a part of it that lacks some of the box, nobody looks at what is missing:
    it is undefined above and left of the part, and left out below and right of it, but for a pixel.
    """
    if top >= 0 and left >= 0 and top + height <= pixels.shape[0] and left + width <= pixels.shape[1]:
        return pixels[top:top + height, left:left + width]
    # With the pixel, for the resize rounds otherwise than crop.regions, and may give it a weight of next to nothing.
    height, width = min(height, pixels.shape[0] - top + 1), min(width, pixels.shape[1] - left + 1)
    box = memory.take(3 * height * width)[:3 * height * width].reshape(height, width, 3)
    y, x = max(-top, 0), max(-left, 0)
    part = pixels[max(top, 0):top + height, max(left, 0):left + width]
    box[y:y + part.shape[0], x:x + part.shape[1]] = part
    return box


class _Source(NamedTuple):
    """One image before its pixels are needed."""

    height: int
    width: int
    image: np.ndarray  # as record.view gives it, or decoded
    tiles: TileMap | None  # of a tiled JPEG
    label: int


class RecordReader:
    """Reads and decodes the records of a Store, and adds file and key to what goes wrong. Threads may share it.

    `array_layout` and `array_channels` are those of record.view. `max_pixels` is how many pixels an image may have by
    its header, or after the resize that a center crop is cut from.
    """

    def __init__(self, store: Store, *, array_layout: str = "HWC", array_channels: str = "RGB",
                 max_pixels: int = MAX_PIXELS) -> None:
        for name, value, known in (("array_layout", array_layout, ("HWC", "CHW")),
                                   ("array_channels", array_channels, ("RGB", "BGR"))):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, not {value!r}")
        self.store = store
        self._max_pixels = integer("max_pixels", max_pixels, 1)
        self._view = functools.partial(record.view, array_layout=array_layout, array_channels=array_channels)

    def view(self, number: int) -> tuple[np.ndarray, int]:
        """(image, label) as record.view gives them, without decoding."""
        return self._located(self._view, number, self.store.value(number))

    def pixels(self, number: int) -> tuple[np.ndarray, int]:
        """(pixels, label): uint8 RGB, (H, W, 3), writable and the caller's own; and an int."""
        image, label = self.view(number)
        return (image.copy() if image.ndim == 3 else self._located(_decode, number, image, self._max_pixels)), label

    def labels(self) -> np.ndarray:
        """The label of each record: int64. Without an index, reading them reads the whole file once, with a warning."""
        if self.store.index is not None:
            return self.store.index.label.astype(np.int64)
        logger.warning("%s has no index, so all of its records are read once for their labels; dump_imagenet.py writes "
                       "an index", self.store.path)
        return np.array([self.view(number)[1] for number in range(len(self.store))], np.int64)

    def crops(self, numbers: list[int], transform: Any, positions: np.ndarray, seed: int, epoch: int,
              out: np.ndarray) -> list[int]:
        """Fills `out`, uint8 of shape (len(numbers), 3, h, w), by one of crop.py's transforms, and returns labels."""
        index = self.store.index
        sources: Iterable[_Source] = map(self._source, numbers, self.store.values(numbers))
        if index is None or transform.scaled_decode:
            sources = list(sources)
            heights, widths = np.array([source[:2] for source in sources]).T
        else:  # sizes are known before reading, so each record is read, cut, decoded and forgotten in its turn
            heights, widths = index.height[numbers].astype(np.int64), index.width[numbers].astype(np.int64)
        plan = transform.plan(heights, widths, positions, seed, epoch)
        factors = np.ones(len(plan), np.int64)
        if transform.scaled_decode:
            factors = np.where([source.image.ndim == 1 for source in sources], reductions(plan), factors)
            plan = reduced(plan, factors)
        needed = unreduced(regions(plan, transform.size), factors, heights, widths)
        labels, memory, frame = [], Memory(), Memory()
        for number, source, height, width, row, region, factor, slot in zip(
                numbers, sources, heights.tolist(), widths.tolist(), plan.tolist(), needed.tolist(), factors.tolist(),
                out):
            if source.height != height or source.width != width:
                raise RecordError(f"{self._place(number)}: the index states {height} x {width} pixels, and it has "
                                  f"{source.height} x {source.width}. Dump it again")
            self._located(refuse_bomb, number, row[4], row[5], self._max_pixels)
            pixels, origin = self._located(_part, number, source, region, factor, transform.fast_decode, memory)
            crop(pixels, row, transform.antialias, slot, origin=origin, memory=frame)
            labels.append(source.label)
        return labels

    def _source(self, number: int, value: np.ndarray) -> _Source:
        return self._located(_source, number, self._view, value, self._max_pixels)

    def _located(self, fn: Callable[..., T], number: int, *args: Any) -> T:
        """fn(*args), whose ValueErrors become RecordErrors that name file and key."""
        try:
            return fn(*args)
        except ValueError as error:
            raise RecordError(f"{self._place(number)}: {error}") from error

    def _place(self, number: int) -> str:
        return f"{self.store.path}, key {self.store.key(number).decode(errors='replace')}"


def _decode(encoded: np.ndarray, max_pixels: int) -> np.ndarray:
    """`decode`, after a look at the header."""
    size = jpeg_size(encoded)
    if size is None:
        from dataflows.audit import examine  # Pillow, which readers of JPEGs need not import

        size = examine(encoded.tobytes())[1:3]
    refuse_bomb(*size, max_pixels)
    return decode(encoded)


def _source(view: Callable[[np.ndarray], tuple[np.ndarray, int]], value: np.ndarray, max_pixels: int) -> _Source:
    image, label = view(value)
    if image.ndim == 3:
        return _Source(*image.shape[:2], image, None, label)
    tiles = read_tiles(image)
    size = jpeg_size(image) if tiles is None else tiles[:2]
    if size is None:  # not a JPEG: only its decoder knows its size
        image = _decode(image, max_pixels)
        size = image.shape[:2]
    else:
        refuse_bomb(*size, max_pixels)
    return _Source(*size, image, tiles, label)


def _part(source: _Source, region: list[int], factor: int, fast: bool, memory: Memory
          ) -> tuple[np.ndarray, tuple[int, int]]:
    """(pixels, their place in the image), both reduced by `factor`: at least of the region, and no more than that of a
    tiled JPEG."""
    image, tiles = source.image, source.tiles
    if image.ndim == 3:
        return image, (0, 0)
    encoded, (y, x), most_pixels = image, (0, 0), source.height * source.width
    if tiles is not None:
        encoded, (y, x) = cut(image, tiles, *region)
        most_pixels = tiles.rows * tiles.mcu_height * tiles.columns * tiles.mcu_width
    if factor == 1:
        pixels = decode(encoded, memory, most_pixels, fast=fast)
    else:
        pixels = decode_reduced(encoded, factor, fast=fast)
    if tiles is None and pixels.shape[:2] != (-(-source.height // factor), -(-source.width // factor)):
        raise RecordError(f"its header states {source[:2]} pixels, and it has {pixels.shape[:2]}")
    return pixels, (y // factor, x // factor)
