"""One image to its crop: cut out and decoded, then resized. Tiled JPEGs are decoded by our own kernels where it works.

Those give the default the same pixels as libjpeg; and fast_decode=True, crops from planes.
"""
from typing import Any, NamedTuple

import numpy as np

from dataflows.errors import RecordError
from dataflows.images.codecs import ScratchBuffer, decode, decode_reduced
from dataflows.images.compiled.ready import own_kernels
from dataflows.images.resize import is_far, resize_into
from dataflows.jpeg.cut import TileMap, cut
from dataflows.label_vectors import Label


class Source(NamedTuple):
    """One image before its pixels are needed."""

    height: int
    width: int
    image: np.ndarray  # as record.view gives it, or decoded
    tiles: TileMap | None  # of a tiled JPEG
    label: Label


class Pixels(NamedTuple):
    """A part of an image, (H, W, 3), reduced or not, and (top, left) in the image, likewise reduced, of its first
    pixel."""

    pixels: np.ndarray
    origin: tuple[int, int]


class Crops:
    """Decodes and resizes one crop after another by a transform of transforms.py, in memory of its own."""

    def __init__(self, transform: Any) -> None:
        self._fast, self._antialias = transform.fast_decode, transform.antialias
        self._memory, self._frame = ScratchBuffer(), ScratchBuffer()

    def decode(self, source: Source, region: list[int], factor: int, bicubic: bool) -> Any:
        """At least a region (top, left, height, width) of the image, reduced by `factor`: what `resize` takes. It is
        valid until the next call. Raises RecordError."""
        if source.tiles is not None and factor == 1 and not (self._fast and bicubic):
            own = own_kernels(wait=self._fast)
            part: Any = None
            if own is not None:
                part = (own.fast if self._fast else own.exact).decode(source.image, source.tiles, region)
            if part is not None:
                return part
        return by_libjpeg(source, region, factor, self._fast, self._memory)

    def resize(self, part: Any, row: list[int], region: list[int], bicubic: bool, out: np.ndarray) -> None:
        """Fills `out`, uint8 of shape (3, h, w) in either memory order, by one row of a plan (see plan.py). region: of
        the row, reduced as the part is."""
        resizes = not bicubic and row[2:4] != row[4:6]
        ours = resizes and self._antialias and not is_far(row, row[6] + out.shape[1], row[7] + out.shape[2])
        own: Any = own_kernels(wait=False) if ours or not isinstance(part, Pixels) else None
        if isinstance(part, Pixels):
            pixels, (y, x) = part
            if ours:  # nothing of the result depends on what else was decoded
                top, left, height, width = region
                pixels, y, x = pixels[top - y:top - y + height, left - x:left - x + width], top, left
            if own is not None:
                own.resize(own.split(pixels), row, region, out)
            else:
                resize_into(pixels, row, self._antialias, out, bicubic=bicubic, origin=(y, x), memory=self._frame)
        elif self._fast:
            own.fast.resize(part, row, self._antialias, out)
        elif ours:
            own.resize(part, row, region, out)
        elif resizes and not self._antialias and out.flags.c_contiguous:
            own.resize_linearly(part, bool(row[8]), out)
        else:
            resize_into(part.interleaved(), row, self._antialias, out, bicubic=bicubic, origin=(region[0], region[1]),
                        memory=self._frame)


def decode_whole(image: np.ndarray, tiles: TileMap) -> np.ndarray | None:
    """All pixels of a tiled JPEG, in fresh memory; None where our own kernels do not decode it."""
    own = own_kernels(wait=False)
    part = None if own is None else own.exact.decode(image, tiles, [0, 0, tiles.height, tiles.width])
    return None if part is None else part.interleaved()


def by_libjpeg(source: Source, region: list[int], factor: int, fast: bool, memory: ScratchBuffer) -> Pixels:
    """At least the region, and no more than that of a tiled JPEG."""
    image, tiles = source.image, source.tiles
    if image.ndim == 3:
        return Pixels(image, (0, 0))
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
    return Pixels(pixels, (y // factor, x // factor))
