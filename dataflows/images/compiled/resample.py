"""An antialiased resize of our own: bit for bit that of torch, in less of its time.

torch resizes each line with integer weights, first across, then down, and rounds in between. The pass that adds whole
rows is the fast one: so both are made so, and planes are transposed before and after the one across.

Crops from planes take the same for each plane of a JPEG, with lines that begin between two samples.
"""
import math
from typing import NamedTuple

import numpy as np

from dataflows.jpeg.compiled import compiled
from dataflows.jpeg.decode.intrinsics import transpose_16x16
from dataflows.jpeg.decode.planes import SLACK, grown

BLOCK = 16  # samples: planes are read in blocks of 16 x 16
assert SLACK >= BLOCK - 1
BITS = 22  # of a weight of 1
_I32, _U64 = np.int32, np.uint64
_SHIFT, _HALF = np.int32(BITS), np.int32(1 << (BITS - 1))


class Line(NamedTuple):
    """How a line of samples becomes a line of pixels. Its types are those that kernels are compiled for.

    The center of pixel i is at start + scale * (i + 0.5), and it is made of the samples `support` around it.
    """

    start: float
    scale: float  # samples a pixel
    support: float  # in samples; at least 1.0
    limit: int  # how many samples there are
    pixels: int  # how many pixels there are: the rounding of weights depends on all of them
    first: int  # of those that are wanted
    wanted: int  # how many are wanted
    origin: int  # the first sample that is in memory
    samples: int  # how many are in memory

    @property
    def most(self) -> int:
        """How many samples a pixel has room for: as many as it can have, and 4."""
        return max(4, 2 * math.ceil(self.support) + 1)


class Resampler:
    """Memory for one image at a time."""

    def __init__(self) -> None:
        self._numbers, self._shares = np.empty(0, np.int32), np.empty(0, np.float64)
        self._bytes = np.empty(0, np.uint8)

    def resize(self, planes: tuple[np.ndarray, np.ndarray, np.ndarray], number: int, at: int, stride: int, down: Line,
               across: Line, flip: bool, out: np.ndarray) -> None:
        """Fills `out`, uint8 of shape (number, h, w), contiguous, from the first `number` of three planes.

        planes: uint8, flat, in rows of `stride` samples; what is in memory begins at index `at`, and SLACK bytes are
        behind it. down, across: the lines of h and w pixels. flip: from left to right.
        """
        rows, columns, wide = up(down.samples), up(across.samples), up(across.wanted)
        weights = max(down.most * down.wanted, across.most * across.wanted)
        self._numbers = grown(self._numbers, 2 * (2 * max(down.wanted, across.wanted) + weights) + max(rows, wide))
        self._shares = grown(self._shares, weights)
        self._bytes = grown(self._bytes, columns * rows + 2 * rows * wide)
        resize_planes(planes, number, at, stride, down, across, flip, down.most, across.most, self._numbers,
                      self._shares, self._bytes, out.reshape(-1))


@compiled
def up(size: int) -> int:
    """The size in whole blocks."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


@compiled
def resize_planes(planes: tuple[np.ndarray, np.ndarray, np.ndarray], number: int, at: int, stride: int, down: Line,
                  across: Line, flip: bool, most_down: int, most_across: int, numbers: np.ndarray, shares: np.ndarray,
                  memory: np.ndarray, out: np.ndarray) -> None:
    """What Resampler.resize does, in its memory.

    Raises ValueError if an array is too small. Bounds: as those of the three parts, of which each has its own memory.
    """
    height, width, h, w = down[8], across[8], down[6], across[6]
    rows, columns, wide = up(height), up(width), up(w)
    weights, line = max(most_down * h, most_across * w), max(h, w)
    if (not (0 < number <= 3 and 0 <= at < planes[0].size and 0 < width <= stride and 0 < height)
            or numbers.size < 2 * (2 * line + weights) + max(rows, wide) or shares.size < weights
            or memory.size < columns * rows + 2 * rows * wide or out.size < number * h * w
            or at + (height - 1) * stride + columns > min(planes[0].size, planes[1].size, planes[2].size)):
        raise ValueError("an array is too small for the resize")
    places_down, counts_down, numbers = numbers[:h], numbers[h:2 * h], numbers[2 * h:]
    places_across, counts_across, numbers = numbers[:w], numbers[w:2 * w], numbers[2 * w:]
    weights_down, weights_across, sums = numbers[:weights], numbers[weights:2 * weights], numbers[2 * weights:]
    turned, narrow, back = memory[:columns * rows], memory[columns * rows:][:rows * wide], memory[-rows * wide:]
    weigh(down, False, most_down, places_down, counts_down, weights_down, shares)
    weigh(across, flip, most_across, places_across, counts_across, weights_across, shares)
    for n in range(number):
        turn(planes[n], at, stride, height, width, turned, rows)
        add_rows(turned, rows, height, places_across, counts_across, weights_across, most_across, sums, narrow, rows)
        turn(narrow, 0, rows, w, height, back, wide)
        add_rows(back, wide, w, places_down, counts_down, weights_down, most_down, sums, out[n * h * w:], w)


@compiled
def weigh(line: Line, flip: bool, most: int, places: np.ndarray, counts: np.ndarray, weights: np.ndarray,
          shares: np.ndarray) -> None:
    """Fills, for each pixel that is wanted, places, int32, the first of its samples in memory; counts, int32, how many
    it has there; and weights, int32, in rows of `most`, what each is multiplied by, of 1 << BITS. flip: from last to
    first.

    The triangle filter of PIL's BILINEAR. It is computed in float64 in the order of torch's operator, and has the same
    weights: rounded to as many bits as let the largest one of all pixels stay below 2**15. So a sum has at most 31.

    Bounds: samples are among those in memory, at most `most` for a pixel; weights behind its last one, up to 4, are 0.
    `shares`, float64, is memory for as many as `weights`.
    """
    start, scale, support, limit, pixels, first, count, origin, samples = line
    inverse, largest, bits = 1.0 / support, 0.0, 0
    for i in range(pixels):
        center = start + scale * (i + 0.5)
        least = max(int(center - support + 0.5), 0)
        size = max(min(min(int(center + support + 0.5), limit) - least, most), 0)
        wanted, to = first <= i < first + count, i - first
        if flip:
            to = count - 1 - to
        total, peak = 0.0, 0.0
        for j in range(size):
            share = max(1.0 - abs((j + least - center + 0.5) * inverse), 0.0)
            total, peak = total + share, max(peak, share)
            if wanted:
                shares[to * most + j] = share
        if total > 0:
            largest = max(largest, peak / total)
        if wanted:
            places[to], counts[to] = least, size
            for j in range(size):
                shares[to * most + j] = shares[to * most + j] / total if total > 0 else 0.0
    while bits < BITS and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    for i in range(count):
        missing = max(origin - places[i], 0)
        there = max(min(places[i] + counts[i], origin + samples) - places[i] - missing, 0)
        for j in range(there):
            weights[i * most + j] = int(0.5 + shares[i * most + missing + j] * (1 << bits)) << (BITS - bits)
        for j in range(there, 4):
            weights[i * most + j] = 0
        places[i], counts[i] = min(max(places[i] - origin, 0), samples - 1), there


@compiled
def turn(plane: np.ndarray, at: int, stride: int, rows: int, columns: int, out: np.ndarray, out_stride: int) -> None:
    """out[x * out_stride + y] = plane[at + y * stride + x], both uint8, flat, for all of these rows and columns.

    Bounds: blocks are read and written whole, but a row that is not there is the last one again. So there are SLACK
    bytes behind the last sample of `plane`, and `out` has whole blocks of columns, each of whole blocks of rows.
    """
    source, target, step = _U64(plane.ctypes.data) + _U64(at), _U64(out.ctypes.data), _U64(stride)
    for y in range(0, rows, BLOCK):
        last = _U64(min(BLOCK, rows - y) - 1)
        for x in range(0, columns, BLOCK):
            transpose_16x16(source + _U64(y) * step + _U64(x), step, last,
                            target + _U64(x) * _U64(out_stride) + _U64(y), _U64(out_stride))


@compiled
def add_rows(plane: np.ndarray, stride: int, width: int, places: np.ndarray, counts: np.ndarray, weights: np.ndarray,
             most: int, sums: np.ndarray, out: np.ndarray, out_stride: int) -> None:
    """out[i * out_stride + x], uint8, is the weighted sum of the samples x of the plane's rows, for each pixel i.

    plane: uint8, flat, in rows of `stride`. places to most: as `weigh` makes them. sums: int32, for work. No sum is
    more than 255, rounded: weights that were rounded up add up to less than 1 + 1 / 512.

    Bounds: places and counts are within the rows of the plane, of which each has `width` samples, as `sums` has; `out`
    has rows for as many pixels as places.
    """
    for i in range(places.size):
        to, count, share = _U64(i * out_stride), counts[i], i * most
        a = _U64(np.int64(places[i]) * stride)
        if count <= 4:
            b = a + _U64(stride * (count > 1))  # of what is behind the last one, weights are 0
            c = b + _U64(stride * (count > 2))
            d = c + _U64(stride * (count > 3))
            w0, w1, w2, w3 = weights[share], weights[share + 1], weights[share + 2], weights[share + 3]
            if count <= 2:
                for x in range(width):
                    total = _I32(_I32(plane[a + _U64(x)] * w0) + _I32(plane[b + _U64(x)] * w1))
                    out[to + _U64(x)] = _I32(_I32(total + _HALF) >> _SHIFT)
            elif count == 3:
                for x in range(width):
                    total = _I32(_I32(plane[a + _U64(x)] * w0) + _I32(plane[b + _U64(x)] * w1))
                    total = _I32(total + _I32(plane[c + _U64(x)] * w2))
                    out[to + _U64(x)] = _I32(_I32(total + _HALF) >> _SHIFT)
            else:
                for x in range(width):
                    total = _I32(_I32(plane[a + _U64(x)] * w0) + _I32(plane[b + _U64(x)] * w1))
                    total = _I32(_I32(total + _I32(plane[c + _U64(x)] * w2)) + _I32(plane[d + _U64(x)] * w3))
                    out[to + _U64(x)] = _I32(_I32(total + _HALF) >> _SHIFT)
        else:
            for x in range(width):
                sums[_U64(x)] = _HALF
            for tap in range(count):
                w = weights[share + tap]
                for x in range(width):
                    sums[_U64(x)] += _I32(plane[a + _U64(x)] * w)
                a += _U64(stride)
            for x in range(width):
                out[to + _U64(x)] = _I32(sums[_U64(x)] >> _SHIFT)
