"""RandomResizedCrop and CenterCrop: which box of each image becomes a sample, for many images at once, from a seed.

Plans (see plan.py) depend on (seed, epoch, position of the sample in the epoch) and on the size of the image, on
nothing else: neither on threads nor on how samples are grouped.
"""
import dataclasses
import math
import operator
from typing import Any, TypeGuard

import numpy as np

from dataflows.images.plan import make_plan
from dataflows.images.uniforms import uniforms
from dataflows.options import integer, one_of, suggests_options

_MOST_SIDE = 2**31 - 1
_ATTEMPTS = 10  # as torchvision's RandomResizedCrop makes before it falls back to a center crop
_FLIP_COLUMN = 4 * _ATTEMPTS  # of the numbers that a position has, in uniforms.py
_INTERPOLATION_COLUMN = _FLIP_COLUMN + 1


@suggests_options
@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, resized to `size` and mirrored at random: the usual training transform.

    The box is drawn as torchvision's RandomResizedCrop draws it (up to ten attempts at an area and a ratio, then a
    center crop), though not from the same random numbers. Output: uint8, (3, height, width), RGB.

    size: output side in pixels, or (height, width).
    scale: least and greatest share of the image's area, 0 < least <= greatest.
    ratio: least and greatest width / height of the box, drawn log-uniformly.
    hflip: probability of mirroring left to right, 0 to 1; True stands for 0.5. The default is the 0.5 of the usual
        ImageNet recipe, so no separate flip is needed.
    antialias: True filters as PIL does: "bilinear" to within one level of torchvision's default, "bicubic" to within
        two of its BICUBIC (with Pillow 13, which has another order of passes: photos to within three). False takes
        OpenCV's INTER_LINEAR or INTER_CUBIC, which are faster and alias when they shrink.
    scaled_decode: decode JPEGs at 1/2, 1/4 or 1/8 of their size where the crop still is no smaller than the output:
        see `reduced` in plan.py, which says what changes. For images much larger than the output.
    fast_decode: resize the planes of a JPEG, each by itself, and convert colors last, so that color is never enlarged:
        a third less processor time for a tiled JPEG, with a decoder of our own; 51 dB PSNR to the default (median of
        random crops; 43 the worst). Where that cannot be had (untiled, bicubic, damaged, without numba), decode with
        libjpeg-turbo's less exact inverse DCT, and spread color without interpolating it: a tenth less, 45 dB.
    interpolation: "bilinear"; "bicubic"; or "random", as timm has it: each sample takes one of the two, with a
        probability of one half, a function of (seed, epoch, position).

    Raises ValueError for values out of range.

    >>> crop = RandomResizedCrop(224)
    >>> crop.plan(np.array([375]), np.array([500]), positions=np.array([0]), seed=0, epoch=0)
    array([[104, 228, 220, 170, 224, 224,   0,   0,   1]], dtype=int32)
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    antialias: bool = True
    scaled_decode: bool = False
    fast_decode: bool = False
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, ("bilinear", "bicubic", "random"))
        object.__setattr__(self, "size", _pair(self.size))
        for name in ("scale", "ratio"):
            object.__setattr__(self, name, _range(name, getattr(self, name)))
        hflip = 0.5 if self.hflip is True else self.hflip
        if not isinstance(hflip, (int, float, np.number)) or not 0 <= hflip <= 1:
            raise ValueError(f"hflip is a probability from 0 to 1, not {hflip!r}")
        object.__setattr__(self, "hflip", float(hflip))

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of the output, in pixels."""
        return _pair(self.size)

    def plan(self, heights: np.ndarray, widths: np.ndarray, positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """The plan for images of these sizes at these positions of an epoch; int32 of shape (B, 9)."""
        heights, widths = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
        boxes, fits = self._attempt(heights, widths, uniforms(range(4), seed, epoch, positions)[:, None])
        rest = np.flatnonzero(~fits)  # about one in six photos: drawing for all ten times would cost the most here
        if len(rest):
            draws = uniforms(range(4, _FLIP_COLUMN), seed, epoch, positions[rest]).reshape(-1, _ATTEMPTS - 1, 4)
            later, fits = self._attempt(heights[rest], widths[rest], draws)
            boxes[rest] = np.where(fits[:, None], later, self._fallback(heights[rest], widths[rest]))
        flips = uniforms(range(_FLIP_COLUMN, _FLIP_COLUMN + 1), seed, epoch, positions)[:, 0] < self.hflip
        return make_plan(boxes, *self.window, 0, 0, flips)

    def bicubic(self, positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Which of the samples at these positions of an epoch are resized bicubically; bool of shape (B,)."""
        if self.interpolation == "random":
            columns = range(_INTERPOLATION_COLUMN, _INTERPOLATION_COLUMN + 1)
            return uniforms(columns, seed, epoch, positions)[:, 0] < 0.5
        return np.full(len(positions), self.interpolation == "bicubic")

    def _attempt(self, heights: np.ndarray, widths: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each image the first of its attempts that fits, and whether one does; `draws` is (B, attempts, 4)."""
        area = (heights * widths)[:, None] * (self.scale[0] + draws[:, :, 0] * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = np.exp(low + draws[:, :, 1] * (high - low))
        w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (w > 0) & (w <= widths[:, None]) & (h > 0) & (h <= heights[:, None])
        rows = np.arange(len(w))
        first = fits.argmax(axis=1)
        w, h = w[rows, first], h[rows, first]
        top = (draws[rows, first, 2] * (heights - h + 1)).astype(np.int64)
        left = (draws[rows, first, 3] * (widths - w + 1)).astype(np.int64)
        return np.stack([top, left, h, w], axis=1), fits.any(axis=1)

    def _fallback(self, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """The largest centered box of a ratio within bounds."""
        w = np.minimum(widths, np.rint(heights * self.ratio[1]).astype(np.int64))
        h = np.minimum(heights, np.rint(widths / self.ratio[0]).astype(np.int64))
        return np.stack([(heights - h) // 2, (widths - w) // 2, np.maximum(h, 1), np.maximum(w, 1)], axis=1)


@suggests_options
@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The center of the image after its shorter side was resized: the usual transform for evaluation.

    Equal, to within two levels, to torchvision's Resize(resize) + CenterCrop(size) on PIL images. Output: uint8,
    (3, height, width), RGB.

    size: output side in pixels, or (height, width).
    resize: length of the image's shorter side before cropping, in pixels; at least the greater side of `size`.
    antialias: True is as above; False resizes the crop's own part of the image by OpenCV's INTER_LINEAR or
        INTER_CUBIC, which alias when they shrink, with the part's edges rounded to pixels of the image.
    scaled_decode, fast_decode: as those of RandomResizedCrop.
    interpolation: "bilinear" or "bicubic".

    Raises ValueError for values out of range.

    >>> crop = CenterCrop(224)      # of an image that is resized to 256 x 341
    >>> crop.plan(np.array([375]), np.array([500]), positions=np.array([0]), seed=0, epoch=0)
    array([[  0,   0, 375, 500, 256, 341,  16,  58,   0]], dtype=int32)
    """

    size: int | tuple[int, int]
    resize: int = 256
    antialias: bool = True
    scaled_decode: bool = False
    fast_decode: bool = False
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, ("bilinear", "bicubic"))
        object.__setattr__(self, "size", _pair(self.size))
        try:
            object.__setattr__(self, "resize", integer("resize", self.resize, max(self.window)))
        except ValueError as error:
            raise ValueError(f"{error}: the crop would reach beyond the image") from None

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of the output, in pixels."""
        return _pair(self.size)

    def plan(self, heights: np.ndarray, widths: np.ndarray, positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """The plan for images of these sizes; int32 of shape (B, 9). Nothing in it is random.

        Raises ValueError for an image that becomes longer than 2**31 - 1 pixels, of which the crop is the middle.
        """
        heights, widths = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
        shorter = np.minimum(heights, widths)
        # torchvision truncates the longer side, and rounds the crop's offset half to even as Python does.
        resized = np.stack([self.resize * heights // shorter, self.resize * widths // shorter], axis=1)
        if resized.max(initial=0) > _MOST_SIDE:
            height, width = np.stack([heights, widths], axis=1)[resized.max(axis=1).argmax()].tolist()
            raise ValueError(f"an image of {height:,} x {width:,} pixels, its shorter side resized to {self.resize:,}, "
                             f"becomes longer than {_MOST_SIDE:,}, the most that a plan holds: give a smaller resize, "
                             f"or leave it out by indices")
        offsets = np.rint((resized - self.window) / 2).astype(np.int64)
        sides = np.stack([heights, widths], axis=1)
        if not self.antialias:
            scale = sides / resized
            box = np.clip(np.rint(self.window * scale).astype(np.int64), 1, sides)
            first = np.minimum(np.rint(offsets * scale).astype(np.int64), sides - box)
            return make_plan(np.concatenate([first, box], axis=1), *self.window, 0, 0, 0)
        whole = np.concatenate([0 * sides, sides], axis=1)
        return make_plan(whole, resized[:, 0], resized[:, 1], offsets[:, 0], offsets[:, 1], 0)

    def bicubic(self, positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Whether the samples at these positions are resized bicubically, all or none; bool of shape (B,)."""
        return np.full(len(positions), self.interpolation == "bicubic")


def is_fused(transform: object) -> TypeGuard[RandomResizedCrop | CenterCrop]:
    """Whether a transform is carried out while decoding, by its plan: one of those above, or of a class derived from
    them that is not called for each image instead, as one with a `__call__` of its own is."""
    return isinstance(transform, (RandomResizedCrop, CenterCrop)) and not callable(transform)


def _pair(size: Any) -> tuple[int, int]:
    try:
        height, width = map(operator.index, size if isinstance(size, (tuple, list)) else (size, size))
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise ValueError(f"size must be a positive number of pixels or (height, width), not {size!r}")
    return height, width


def _range(name: str, value: Any) -> tuple[float, float]:
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low = high = 0.0
    if not 0 < low <= high:
        raise ValueError(f"{name} must be (least, greatest) with 0 < least <= greatest, not {value!r}")
    return low, high
