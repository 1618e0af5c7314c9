"""Decoding and cropping as users of OpenCV write them: INTER_LINEAR, which does not antialias."""
import math
import random

import cv2
import numpy as np

from benchmarks.contestants import RESIZE, SIZE


def random_box(height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels, drawn as torchvision's RandomResizedCrop draws it."""
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def decode(jpeg: bytes | np.ndarray) -> np.ndarray:
    """RGB pixels, uint8 of shape (H, W, 3), not turned by EXIF: as PIL decodes them."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def random_crop(pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A random box, resized and mirrored at random: uint8 (224, 224, 3), `out` itself where that is given."""
    top, left, height, width = random_box(*pixels.shape[:2])
    box = pixels[top:top + height, left:left + width]
    if random.random() < 0.5:
        return cv2.flip(_resize(box), 1, dst=out)
    return _resize(box, out)


def center_crop(pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The center after the shorter side was resized to 256 pixels: uint8 (224, 224, 3), `out` where that is given.

    Only the part that is kept is resized, which is faster than resizing all of it.
    """
    height, width = pixels.shape[:2]
    side = min(height, width) * SIZE / RESIZE
    h, w = min(height, round(side)), min(width, round(side))
    top, left = (height - h) // 2, (width - w) // 2
    return _resize(pixels[top:top + h, left:left + w], out)


def _resize(box: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return cv2.resize(box, (SIZE, SIZE), dst=out, interpolation=cv2.INTER_LINEAR)
