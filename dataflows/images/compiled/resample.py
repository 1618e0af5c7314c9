"""An antialiased resize of our own: bit for bit that of torch, in less of its time.

torch resizes each line with integer weights, first across, then down, and rounds in between. The pass that adds whole
rows is the fast one: so both are made so, and samples are transposed before and after the one across. Where colors lie
beside each other, in (H, W, 3), each color of a column is a row after that: nothing needs to take them apart.

Crops from planes take the same for each plane of a JPEG, with lines that begin between two samples.
"""
from typing import Any, NamedTuple

import numpy as np

from dataflows.jpeg.compiled import Int, compiled
from dataflows.jpeg.decode.intrinsics import transpose_16x16
from dataflows.jpeg.decode.planes import SLACK

BLOCK = 16  # samples: read and written in blocks of 16 x 16
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
    limit: Int  # how many samples there are
    pixels: Int  # how many pixels there are: the rounding of weights depends on all of them
    first: Int  # of those that are wanted
    wanted: Int  # how many are wanted
    origin: Int  # the first sample that is in memory
    samples: Int  # how many are in memory


@compiled
def up(size: Int) -> Int:
    """The size in whole blocks."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


@compiled
def most_samples(line: Line) -> Int:
    """How many samples a pixel has room for: as many as it can have, and 4."""
    return max(4, 2 * int(np.ceil(line.support)) + 1)


@compiled
def resize(source: np.ndarray, at: Int, stride: Int, apart: Int, number: Int, down: Line, across: Line, flip: bool,
           out: np.ndarray) -> None:
    """Fills `out`, uint8, flat: `number` planes of h rows of w pixels.

    source: uint8, flat, in rows of `stride` bytes; what is in memory begins at index `at`. Planes begin `apart` bytes
    from each other, with SLACK bytes behind the last one; 0 is for three colors beside each other, with any bytes
    behind. down, across: the lines of h and w pixels. flip: from left to right.

    Raises ValueError if an array is too small. Bounds: as those of the three parts, of which each has its own memory.
    """
    height, width, h, w = down.samples, across.samples, down.wanted, across.wanted
    beside = 3 if apart == 0 else 1
    last = at + (height - 1) * stride + (number - 1) * apart  # row
    if (not (0 < height and 0 < width and 0 < h and 0 < w and 0 <= at < source.size and beside * width <= stride
             and 0 <= apart and 1 <= number <= 3) or last + beside * width > source.size or out.size < number * h * w):
        raise ValueError("an array is too small for the resize")
    if last + up(beside * width) > source.size:
        if beside == 1:
            raise ValueError("an array is too small for the resize")
        source = _with_slack(source, at, stride, height, 3 * width)
        at, stride = np.int64(0), 3 * width
    rows, columns, wide = up(height), up(beside * width), up(w)
    most_down, most_across = most_samples(down), most_samples(across)
    places_down, counts_down = np.empty(h, np.int32), np.empty(h, np.int32)
    places_across, counts_across = np.empty(w, np.int32), np.empty(w, np.int32)
    weights_down, weights_across = np.empty(h * most_down, np.int32), np.empty(w * most_across, np.int32)
    straight: Any = np.bool_(False)
    weigh(down, straight, most_down, places_down, counts_down, weights_down)
    weigh(across, flip, most_across, places_across, counts_across, weights_across)
    sums, turned = np.empty(max(rows, wide), np.int32), np.empty(columns * rows, np.uint8)
    narrow, back = np.empty(rows * wide, np.uint8), np.empty(rows * wide, np.uint8)
    for n in range(number):
        if beside == 1 or n == 0:
            turn(source, at + n * apart, stride, height, beside * width, turned, rows)
        color = n * rows if beside == 3 else np.int64(0)
        add_rows(turned[color:], beside * rows, height, places_across, counts_across, weights_across, most_across, sums,
                 narrow, rows)
        turn(narrow, np.int64(0), rows, w, height, back, wide)
        add_rows(back, wide, w, places_down, counts_down, weights_down, most_down, sums, out[n * h * w:], w)


@compiled
def _with_slack(source: np.ndarray, at: Int, stride: Int, rows: Int, count: Int) -> np.ndarray:
    """A copy of `count` bytes of each row, with SLACK bytes behind."""
    copy = np.empty(rows * count + SLACK, np.uint8)
    for y in range(rows):
        copy[y * count:(y + 1) * count] = source[at + y * stride:at + y * stride + count]
    return copy


@compiled
def weigh(line: Line, flip: bool, most: Int, places: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> None:
    """Fills, for each pixel that is wanted, places, int32, the first of its samples in memory; counts, int32, how many
    it has there; and weights, int32, in rows of `most`, what each is multiplied by, of 1 << BITS. flip: from last to
    first.

    The triangle filter of PIL's BILINEAR. It is computed in float64 in the order of torch's operator, and has the same
    weights: rounded to as many bits as let the largest one of all pixels stay below 2**15. So a sum has at most 31.

    Bounds: samples are among those in memory, at most `most` for a pixel; weights behind its last one, up to 4, are 0.
    """
    shares = np.empty(weights.size, np.float64)
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
def turn(plane: np.ndarray, at: Int, stride: Int, rows: Int, columns: Int, out: np.ndarray, out_stride: Int) -> None:
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
def add_rows(plane: np.ndarray, stride: Int, width: Int, places: np.ndarray, counts: np.ndarray, weights: np.ndarray,
             most: Int, sums: np.ndarray, out: np.ndarray, out_stride: Int) -> None:
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
