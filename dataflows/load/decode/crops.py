"""Records to crops: many at once by our own kernels, and one by one what these leave, by libjpeg, OpenCV and torch.

The kernels give the default the same pixels as libjpeg and torch do; and fast_decode=True, crops from planes.
"""
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from dataflows.errors import RecordError
from dataflows.images.codecs import ScratchBuffer, decode, decode_reduced
from dataflows.images.compiled.ready import own_kernels
from dataflows.images.plan import RESIZED, SIDES, reduced, reductions, regions, unreduced
from dataflows.images.resize import is_far, resize_into
from dataflows.jpeg.cut import MAGIC, TileMap, cut
from dataflows.label_vectors import Label

_FRONT = 64  # bytes of a record, in which a tiled JPEG has its mark


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


@dataclasses.dataclass(frozen=True, eq=False)
class Wanted:
    """What is to be made of n images, in rows.

    sizes: int64 (n, 2), height and width of each. plan: int32 (n, 9), see plan.py, of images that are reduced by
    `factors`, int64 (n,). seen: int64 (n, 4), the region of the reduced image that is needed; needed: that of the
    image. bicubic, far: bool (n,): the filter; whether the window is one of a far larger box.
    """

    sizes: np.ndarray
    plan: np.ndarray
    factors: np.ndarray
    seen: np.ndarray
    needed: np.ndarray
    bicubic: np.ndarray
    far: np.ndarray

    @classmethod
    def by(cls, transform: Any, sizes: np.ndarray, encoded: np.ndarray | bool, positions: np.ndarray, seed: int,
           epoch: int) -> "Wanted":
        """encoded: which images are no pixels, and may be reduced while decoding. Raises ValueError."""
        heights, widths = sizes.T
        plan = transform.plan(heights, widths, positions, seed, epoch)
        factors = np.ones(len(plan), np.int64)
        if transform.scaled_decode:
            factors = np.where(encoded, reductions(plan), factors)
            plan = reduced(plan, factors)
        bicubic = np.broadcast_to(transform.bicubic(positions, seed, epoch), len(plan))
        seen = regions(plan, transform.window, bicubic)
        return cls(sizes, plan, factors, seen, unreduced(seen, factors, heights, widths), bicubic,
                   is_far(plan.T.astype(np.float64), *transform.window))

    def __getitem__(self, window: slice) -> "Wanted":
        return Wanted(**{field.name: getattr(self, field.name)[window] for field in dataclasses.fields(self)})

    def rows(self) -> list[tuple[Any, ...]]:
        """(size, row of the plan, factor, seen, needed, bicubic) of each, as lists and numbers of Python."""
        return list(zip(*(column.tolist() for column in (self.sizes, self.plan, self.factors, self.seen, self.needed,
                                                         self.bicubic))))


class Crops:
    """Makes crops by a transform of transforms.py, one by one, in memory of its own."""

    def __init__(self, transform: Any) -> None:
        self._transform, self._fast, self._antialias = transform, transform.fast_decode, transform.antialias
        self._memory, self._frame = ScratchBuffer(), ScratchBuffer()

    def many(self, values: list[np.ndarray], wanted: Wanted, most_pixels: int, pixels_too: bool, out: np.ndarray
             ) -> Any:
        """Makes those crops of records that our own kernels make, with what they say of it (see kernels.Crops); None
        where these do not work here, or make none.

        out: uint8 (n, 3, h, w). most_pixels: of an image. pixels_too: whether arrays of pixels are as we write them.
        """
        if not (self._fast or self._antialias or MAGIC in values[0][:_FRONT].tobytes()):
            return None
        own = own_kernels(wait=self._fast)
        if own is None or not (self._fast or self._antialias or own.is_linear_of_opencv()):
            return None
        ours = (wanted.factors == 1) & ~wanted.bicubic & (self._fast | ~wanted.far)
        ours &= wanted.sizes[:, 0] * wanted.sizes[:, 1] <= most_pixels
        if not (self._fast or self._antialias):
            ours &= (wanted.plan[:, RESIZED] == out.shape[2:]).all(axis=1)
        return own.crop(values, wanted.plan, wanted.seen, wanted.sizes, ours, self._transform,
                        pixels_too and self._antialias, out)

    def decode(self, source: Source, region: list[int], factor: int) -> Pixels:
        """At least a region (top, left, height, width) of the image, reduced by `factor`: what `resize` takes. It is
        valid until the next call. Raises RecordError."""
        if source.tiles is not None and factor == 1 and not self._fast:
            own = own_kernels(wait=False)
            pixels = None if own is None else own.decode_region(source.image, region)
            if pixels is not None:
                return Pixels(pixels, (region[0], region[1]))
        return by_libjpeg(source, region, factor, self._fast, self._memory)

    def resize(self, part: Pixels, row: list[int], region: list[int], bicubic: bool, out: np.ndarray) -> None:
        """Fills `out`, uint8 of shape (3, h, w) in either memory order, by one row of a plan (see plan.py). region: of
        the row, reduced as the part is."""
        resizes = not bicubic and row[SIDES] != row[RESIZED]
        top, left, height, width = region
        pixels, (y, x) = part
        if resizes and self._antialias and not is_far(row, *out.shape[1:]):
            # nothing of the result depends on what else was decoded
            pixels, y, x = pixels[top - y:top - y + height, left - x:left - x + width], top, left
            own = own_kernels(wait=False)
            if own is not None:
                own.resize(pixels, row, region, out)
                return
        resize_into(pixels, row, self._antialias, out, bicubic=bicubic, origin=(y, x), memory=self._frame)


def decode_whole(image: np.ndarray, tiles: TileMap) -> np.ndarray | None:
    """All pixels of a tiled JPEG, in fresh memory; None where our own kernels do not decode it."""
    own = own_kernels(wait=False)
    return None if own is None else own.decode_region(image, [0, 0, tiles.height, tiles.width])


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
