"""What is done by our own kernels, as the rest of the package calls it. Importing this imports numba."""
import functools
from typing import Any, NamedTuple

import cv2
import numpy as np

from dataflows.images.compiled import crops
from dataflows.images.compiled.crops import LEFT, UNLABELLED
from dataflows.images.compiled.linear import resize_linearly
from dataflows.jpeg.decode.planes import SLACK


class Crops(NamedTuple):
    """Of n records: whether each one's crop was made, or left to others, who may say what is wrong with it; its label,
    None where that is to be read by others; and seconds, of all together."""

    done: list[bool]
    labels: list[int | None]
    decode_s: float
    resize_s: float


def crop(values: list[np.ndarray], plan: np.ndarray, regions: np.ndarray, sizes: np.ndarray, wanted: np.ndarray,
         transform: Any, pixels_too: bool, out: np.ndarray) -> Crops:
    """Fills those of `out`, uint8 (n, 3, h, w) in either memory order, that `wanted` names, by a plan's rows.

    values: n records as they are stored. regions, sizes: as crop_records has them; so are `wanted` and `pixels_too`.
    """
    channels_last = out.strides[1] == 1
    flat = _flat(out.transpose(0, 2, 3, 1) if channels_last else out)
    states, labels, spent = np.zeros(len(values), np.uint8), np.zeros(len(values), np.int64), np.zeros(2, np.int64)
    crops.crop_records(
        np.array([_place(value) for value in values], np.int64), plan.astype(np.int64), regions, sizes, wanted,
        bool(transform.fast_decode), bool(transform.antialias), pixels_too, channels_last, out.shape[2], out.shape[3],
        flat, labels, states, spent)
    decode_s, resize_s = (spent * 1e-9).tolist()
    known = [None if state == UNLABELLED else label for state, label in zip(states.tolist(), labels.tolist())]
    return Crops((states != LEFT).tolist(), known, decode_s, resize_s)


def decode_region(image: np.ndarray, region: list[int]) -> np.ndarray | None:
    """The pixels of a region (top, left, height, width) of a tiled JPEG, uint8 (height, width, 3), in fresh memory,
    equal to libjpeg's; None for what is not decoded here, and what is damaged."""
    samples, at, stride, apart, number = crops.region_of(*_place(image), np.array(region))
    if number == 0:
        return None
    shape, strides = (3, *region[2:]), (apart if number == 3 else 0, stride, 1)  # a gray plane counts thrice
    planes = np.lib.stride_tricks.as_strided(samples[at:], shape, strides)
    pixels: np.ndarray = cv2.merge(list(planes)).reshape(*region[2:], 3)
    return pixels


def resize(pixels: np.ndarray, row: list[int], region: list[int], out: np.ndarray) -> None:
    """Fills `out`, uint8 of shape (3, h, w) in either memory order, by one row of a plan (see plan.py), from the pixels
    of its region (top, left, height, width), uint8 (H, W, 3): antialiased, and as resize.resize_into does, bit for bit.
    """
    height, width = pixels.shape[:2]
    if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 3 * width:
        pixels = np.ascontiguousarray(pixels)
    channels_last = out.strides[0] == 1
    crops.crop_pixels(pixels.__array_interface__["data"][0], (height - 1) * pixels.strides[0] + 3 * width,
                      pixels.strides[0], np.array(row), np.array(region), channels_last, out.shape[1], out.shape[2],
                      _flat(out.transpose(1, 2, 0) if channels_last else out))


@functools.cache
def is_linear_of_opencv() -> bool:
    """Whether this version of OpenCV gives the pixels of our own INTER_LINEAR, as far as an image of noise tells."""
    noise = np.random.default_rng(0).integers(0, 256, (61, 83), np.uint8)
    padded = np.append(noise.ravel(), np.zeros(SLACK, np.uint8))
    for height, width in ((40, 50), (100, 130), (61, 30)):
        found = np.empty(height * width, np.uint8)
        resize_linearly(padded, 0, 83, noise.size, 1, noise.shape[0], noise.shape[1], height, width, False, found)
        if (cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR).ravel() != found).any():
            return False
    return True


def run_all() -> None:
    """Calls every function that is called from Python, with arguments of the types that it gets, and all that they
    call: of one record that is none."""
    nothing = np.zeros((1, 1, 1, 3), np.uint8).transpose(0, 3, 1, 2)
    transform = type("", (), {"fast_decode": False, "antialias": True})
    crop([nothing.reshape(-1)], np.zeros((1, 9), np.int32), np.zeros((1, 4), np.int64), np.zeros((1, 2), np.int64),
         np.ones(1, bool), transform, True, nothing)
    decode_region(nothing.reshape(-1), [0, 0, 1, 1])
    is_linear_of_opencv()
    resize(nothing[0].transpose(1, 2, 0), [0, 0, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1], nothing[0].copy())


def _flat(array: np.ndarray) -> np.ndarray:
    if not array.flags.c_contiguous:
        raise ValueError("crops must be contiguous, in either memory order")
    return array.reshape(-1)


def _place(array: np.ndarray) -> tuple[int, int]:
    """(address, bytes) of a contiguous array."""
    return array.__array_interface__["data"][0], array.nbytes
