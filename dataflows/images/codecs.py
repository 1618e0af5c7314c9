"""Decodes images to pixels, and encodes JPEGs: besides pillow.py, the only module that knows the image codecs.

Pixels are uint8 RGB of shape (H, W, 3), as PIL would give them: no EXIF rotation, grayscale spread to three channels.
simplejpeg, OpenCV and Pillow all decode JPEGs with libjpeg-turbo and give identical pixels, also at 1/2, 1/4 and 1/8 of
their size. simplejpeg takes memory of ours, which has no page faults left and needs no GIL in between: 0.85 ms for a
crop's JPEG where OpenCV takes 0.95. It takes perfect JPEGs only, and few sampling factors; of all others, and other
formats, OpenCV is the judge.
"""
import math

import cv2
import numpy as np
import simplejpeg

from dataflows.errors import RecordError
from dataflows.jpeg.header import jpeg_size

_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED = {factor: flag & ~cv2.IMREAD_COLOR | _FLAGS for factor, flag in (  # these flags say BGR besides
    (2, cv2.IMREAD_REDUCED_COLOR_2), (4, cv2.IMREAD_REDUCED_COLOR_4), (8, cv2.IMREAD_REDUCED_COLOR_8))}
_NO_MEMORY = "Insufficient memory"  # libjpeg's words
MAX_PIXELS = 178_956_970  # where Pillow stops: twice its MAX_IMAGE_PIXELS


class ScratchBuffer:
    """Memory for one image at a time, for the decoder to write into: it grows, and is used again for the next image."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def take(self, count: int) -> np.ndarray:
        """At least `count` bytes, whose content is undefined; what was taken before must not be used any more."""
        if len(self._bytes) < count:
            self._bytes = np.empty(count, np.uint8)
        return self._bytes


def decode(encoded: np.ndarray | bytes, memory: ScratchBuffer | None = None, most_pixels: int | None = None, *,
           fast: bool = False) -> np.ndarray:
    """The pixels of an encoded image: uint8 RGB, (H, W, 3), in `memory` or fresh. Raises RecordError if that fails, and
    MemoryError where the machine is the reason.

    `most_pixels` is how many it may have, from who knows that; by default its header is asked. `fast` is the
    transforms' fast_decode.
    """
    pixels = decode_perfect(encoded, memory, most_pixels, fast=fast)
    return _by_opencv(encoded, _FLAGS) if pixels is None else pixels


def _by_opencv(encoded: np.ndarray | bytes, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError("OpenCV has no memory for the image") from error
        raise RecordError(f"OpenCV cannot decode the image: {error.err or error}") from error
    if pixels is None:
        raise RecordError("the image is damaged, or of a format that OpenCV does not decode")
    return pixels


def decode_perfect(encoded: np.ndarray | bytes, memory: ScratchBuffer | None = None, most_pixels: int | None = None, *,
                   fast: bool = False) -> np.ndarray | None:
    """What `decode` gives for a JPEG of one or three colors without any flaw; None for all else."""
    if most_pixels is None:
        most_pixels = math.prod(jpeg_size(encoded) or (0,))
    if most_pixels:
        try:
            into = None if memory is None else memory.take(3 * most_pixels)
            pixels: np.ndarray = simplejpeg.decode_jpeg(encoded, "RGB", fast, fast, buffer=into)
            return pixels
        except ValueError as error:  # it warns of something, or is of four colors
            if _NO_MEMORY in str(error):
                raise MemoryError("libjpeg has no memory for the image") from error
    return None


def refuse_bomb(height: int, width: int, max_pixels: int) -> None:
    """Raises RecordError for an image of more pixels than that, before memory is taken for them."""
    if height * width > max_pixels:
        raise RecordError(f"it states {height:,} x {width:,} pixels, and max_pixels is {max_pixels:,}: if it is not a "
                          f"bomb, max_pixels={height * width} takes it")


def decode_reduced(encoded: np.ndarray | bytes, factor: int, *, fast: bool = False) -> np.ndarray:
    """The pixels of a JPEG at 1/2, 1/4 or 1/8 of its size, rounded up, as `decode` gives them. Raises RecordError.

    They are libjpeg's, for any sampling factors: those of a cut are those of the whole, where `crop.unreduced` says.
    """
    height, width = (-(-side // factor) for side in jpeg_size(encoded) or (0, 0))
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(encoded, "RGB", fast, fast, height, width, factor)
        return pixels
    except ValueError:
        return _by_opencv(encoded, _REDUCED[factor])


def encode(pixels: np.ndarray, quality: int, *, full_color: bool = False) -> bytes:
    """RGB pixels as a JPEG of a quality from 1 to 100, in 4:2:0, or with `full_color` in 4:4:4."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if full_color:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1])
