"""Decodes and crops an image for every rival whose library leaves that open, so that they differ in loading alone.

A whole decode by libjpeg-turbo through simplejpeg, with its two options that trade accuracy for speed, then OpenCV's
INTER_LINEAR on the crop: the cheapest that packages offer. Both free the GIL.
"""
from typing import Any

import numpy as np
import simplejpeg
import torch

from benchmarks.opencv import center_crop, decode, random_crop


class Decoder:
    """JPEG bytes to a cropped image, uint8 of shape (224, 224, 3). Pickles, for libraries that start processes."""

    def __init__(self, training: bool) -> None:
        self.crop = random_crop if training else center_crop

    def __call__(self, jpeg: bytes, out: np.ndarray | None = None) -> np.ndarray:
        return self.crop(decode_fast(jpeg), out)


def decode_fast(jpeg: bytes) -> np.ndarray:
    """RGB pixels, uint8 of shape (H, W, 3), within a few levels of `opencv.decode`."""
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=True, fastupsample=True)
        return pixels
    except ValueError:  # not a JPEG, or one in CMYK: ImageNet has both
        return decode(jpeg)


def planar(images: np.ndarray | torch.Tensor, labels: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, W, 3) as a (B, 3, H, W) view, which costs nothing."""
    return torch.as_tensor(images).permute(0, 3, 1, 2), torch.as_tensor(labels, dtype=torch.int64)
