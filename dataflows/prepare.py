"""From the content of an image file to what the dump stores of it."""
import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

from dataflows.decode import decode, resize
from dataflows.options import integer
from dataflows.record import RecordError
from dataflows.tiling import Untileable, tile


class Prepared(NamedTuple):
    """What is stored of one image, and what it was."""

    image: bytes | np.ndarray  # encoded, or uint8 RGB of shape (H, W, 3)
    height: int  # as stored, in pixels
    width: int
    untiled: str | None  # why a JPEG is stored without tiles; None when it has them, or none were asked for
    findings: tuple[str, ...] = ()  # what is remarkable about the file


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How images are stored: `format`, and the sizes that limit them; a callable on a file's content.

    format: "jpeg" keeps the file's coefficients, and encodes anew only what is resized; "uint8" stores pixels.
    max_side: greatest length of the longer side in pixels, or None.
    shorter_side: greatest length of the shorter side in pixels, or None. Images are never enlarged.
    quality: of JPEGs encoded anew, 1 to 100.
    tiles: turn JPEGs into tiled ones, losslessly (see tiling.py); False keeps the file's bytes.
    trust: leave out the decoding of each tiled JPEG that compares its pixels with the original's.

    Raises ValueError for values out of range.
    """

    format: str = "jpeg"
    max_side: int | None = None
    shorter_side: int | None = None
    quality: int = 90
    tiles: bool = True
    trust: bool = False

    def __post_init__(self) -> None:
        if self.format not in ("jpeg", "uint8"):
            raise ValueError(f"format must be 'jpeg' or 'uint8', not {self.format!r}")
        for name in ("max_side", "shorter_side"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), 1)
        if integer("quality", self.quality, 1) > 100:
            raise ValueError(f"quality is a JPEG quality from 1 to 100, not {self.quality}")

    def __call__(self, content: bytes) -> Prepared:
        """What is stored of a file with this content.

        Decodes every image, so that a damaged one is found now and not in training. Raises RecordError.
        """
        if not content:
            raise RecordError("the file is empty")
        pixels = decode(content)
        size = self.stored_size(*pixels.shape[:2])
        resized = size != pixels.shape[:2]
        if resized:
            pixels = resize(pixels, *size)
        if self.format == "uint8":
            return Prepared(pixels, *size, None)
        if resized:
            content = _encode(pixels, self.quality)
        if not self.tiles:
            return Prepared(content, *size, None)
        try:
            tiled = tile(content)
        except Untileable as error:
            return Prepared(content, *size, error.reason)
        if not self.trust and not np.array_equal(decode(tiled), decode(content) if resized else pixels):
            return Prepared(content, *size, "its tiled form has other pixels")
        return Prepared(tiled, *size, None)

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the limits; the longer side is truncated, as torchvision's Resize does it."""
        longer, shorter = max(height, width), min(height, width)
        if self.shorter_side is not None and shorter > self.shorter_side:
            longer, shorter = self.shorter_side * longer // shorter, self.shorter_side
        if self.max_side is not None and longer > self.max_side:
            longer, shorter = self.max_side, max(1, self.max_side * shorter // longer)
        return (longer, shorter) if height >= width else (shorter, longer)


def _encode(pixels: np.ndarray, quality: int) -> bytes:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return bytes(encoded)
