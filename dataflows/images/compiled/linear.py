"""OpenCV's INTER_LINEAR of planes in a kernel, bit for bit, so that JPEGs need no step in Python without antialias.

Its arithmetic, found by comparing some thousand sizes with OpenCV 5.0: weights of 11 bits, which are computed in
float32; the pass across is not rounded, but cut off by four bits; the pass down cuts off both of its products by
16 bits, and rounds their sum. Where both sides are halved, it is the mean of four pixels. Other versions of OpenCV may
differ: kernels.py compares before it is used.

As in resample.py, the pass across adds whole rows of what is transposed. Its result has 15 bits, and is transposed back
as two planes of bytes.
"""
from typing import Any

import numpy as np

from dataflows.images.compiled.resample import turn, up
from dataflows.jpeg.compiled import Int, compiled

_I32, _F32, _U64, _ONE = np.int32, np.float32, np.uint64, np.float32(2048)  # _ONE: a weight of 1


@compiled
def resize_linearly(source: np.ndarray, at: Int, stride: Int, apart: Int, number: Int, height: Int, width: Int, h: Int,
                    w: Int, flip: bool, out: np.ndarray) -> None:
    """Fills `out`, uint8, flat: `number` planes of h rows of w pixels, from (height, width) samples of each.

    source to number, flip: as resample.resize has them of planes. Raises ValueError if an array is too small. Bounds:
    as those of `turn`; places are among the samples.
    """
    if (not (0 < height and 0 < width and 0 < h and 0 < w and 0 <= at < source.size and width <= stride and 0 < apart
             and 1 <= number <= 3) or out.size < number * h * w
            or at + (number - 1) * apart + (height - 1) * stride + up(width) > source.size):
        raise ValueError("an array is too small for the resize")
    if height == 2 * h and width == 2 * w:
        for n in range(number):
            _halve(source[at + n * apart:], stride, h, w, flip, out[n * h * w:])
        return
    rows, wide = up(height), up(w)
    straight: Any = np.bool_(False)
    across, down = np.empty((w, 4), np.int32), np.empty((h, 4), np.int32)
    weigh_linearly(width, True, flip, across)
    weigh_linearly(height, False, straight, down)
    turned = np.empty(up(width) * rows, np.uint8)
    low, high = np.empty(rows * wide, np.uint8), np.empty(rows * wide, np.uint8)
    low_back, high_back = np.empty(rows * wide, np.uint8), np.empty(rows * wide, np.uint8)
    for n in range(number):
        turn(source, at + n * apart, stride, height, width, turned, rows)
        for x in range(w):
            a, b, to = _U64(across[x, 0] * rows), _U64(across[x, 1] * rows), _U64(x * rows)
            w0, w1 = across[x, 2], across[x, 3]
            for y in range(height):
                total = _I32(_I32(_I32(turned[a + _U64(y)] * w0) + _I32(turned[b + _U64(y)] * w1)) >> _I32(4))
                low[to + _U64(y)] = total & _I32(255)
                high[to + _U64(y)] = total >> _I32(8)
        turn(low, np.int64(0), rows, w, height, low_back, wide)
        turn(high, np.int64(0), rows, w, height, high_back, wide)
        for y in range(h):
            a, b, to = _U64(down[y, 0] * wide), _U64(down[y, 1] * wide), _U64((n * h + y) * w)
            w0, w1 = down[y, 2], down[y, 3]
            for x in range(w):
                i, j = a + _U64(x), b + _U64(x)
                first = _I32(_I32((_I32(low_back[i]) | _I32(high_back[i]) << _I32(8)) * w0) >> _I32(16))
                second = _I32(_I32((_I32(low_back[j]) | _I32(high_back[j]) << _I32(8)) * w1) >> _I32(16))
                out[to + _U64(x)] = _I32(_I32(first + second + _I32(2)) >> _I32(2))


@compiled
def weigh_linearly(side: Int, clamps: bool, flip: bool, lines: np.ndarray) -> None:
    """Fills int32 (n, 4), for each pixel of n that `side` samples become: its two samples, and their weights.

    flip: from last to first. clamps: at the edges the outermost sample counts alone, as OpenCV has it across; down it
    counts twice, which is rounded otherwise.
    """
    count = lines.shape[0]
    scale = 1.0 / (count / side)
    for i in range(count):
        center = _F32((i + 0.5) * scale - 0.5)
        first = int(np.floor(center))
        part = _F32(center - _F32(first))
        if clamps and (first < 0 or first >= side - 1):
            first, part = min(max(first, 0), side - 1), _F32(0)
        to = count - 1 - i if flip else i
        lines[to, 0], lines[to, 1] = min(max(first, 0), side - 1), min(max(first + 1, 0), side - 1)
        lines[to, 2] = _I32(np.rint(_F32(_F32(_F32(1) - part) * _ONE)))
        lines[to, 3] = _I32(np.rint(_F32(part * _ONE)))


@compiled
def _halve(source: np.ndarray, stride: Int, h: Int, w: Int, flip: bool, out: np.ndarray) -> None:
    for y in range(h):
        for x in range(w):
            at = 2 * y * stride + 2 * x
            total = (np.int64(source[at]) + np.int64(source[at + 1]) + np.int64(source[at + stride])
                     + np.int64(source[at + stride + 1]))
            out[y * w + (w - 1 - x if flip else x)] = total + 2 >> 2
