"""Resizes the planes of a JPEG, each by itself, and converts them to colors last: an antialiased resize of our own.

The vertical pass is the fast one: it adds whole rows. So both passes are vertical, and the plane is transposed before
and after the second one.
"""
import numpy as np

from dataflows.jpeg.compiled import compiled

_I32, _U64 = np.int32, np.uint64
BITS = 14  # of a weight of 1
ONE = 1 << BITS
_SHIFT, _HALF = np.int32(BITS), np.int32(ONE // 2)
_SIXTEEN, _ZERO, _WHITE = np.int32(16), np.int32(0), np.int32(255)


class Line:
    """The weights of one line of pixels, and memory for those of the next one.

    arrays: places int32 (n,), the first sample of each pixel; counts int32 (n,), how many; weights int32 (n, most).
    """

    def __init__(self) -> None:
        self.arrays = np.empty(0, np.int32), np.empty(0, np.int32), np.empty((0, 4), np.int32)

    def weigh(self, start: float, scale: float, size: int, first: int, end: int, antialias: bool, flip: bool) -> None:
        """Fills the arrays for `size` pixels, as the function says; `antialias` widens the filter where it shrinks."""
        support = max(scale, 1.0) if antialias else 1.0
        most = max(4, int(2 * support) + 2)
        if len(self.arrays[0]) != size or self.arrays[2].shape[1] < most:
            self.arrays = np.empty(size, np.int32), np.empty(size, np.int32), np.empty((size, most), np.int32)
        weigh(start, scale, support, first, end, flip, *self.arrays)


@compiled
def weigh(start: float, scale: float, support: float, first: int, end: int, flip: bool, places: np.ndarray,
          counts: np.ndarray, weights: np.ndarray) -> None:
    """The triangle filter of PIL's BILINEAR: for each pixel of a line of places.size, which samples it is made of.

    The center of pixel i is at start + (i + 0.5) * scale, and it looks `support` around it, at samples from `first` to
    before `end`, one at least. Fills places (the first of them), counts, and weights, which add up to ONE.
    flip: in reverse order.

    Bounds: a pixel has at most as many samples as a row of `weights`; the others are left out.
    """
    n = places.size
    for i in range(n):
        center = start + (i + 0.5) * scale
        least = min(max(int(center - support + 0.5), first), end - 1)
        most = min(max(min(int(center + support + 0.5), end), least + 1), least + weights.shape[1])
        to = n - 1 - i if flip else i
        total = 0.0
        for j in range(least, most):
            total += max(1 - abs((j - center + 0.5) / support), 0.0)
        left, largest = ONE, 0
        for j in range(most - least):
            share = max(1 - abs((least + j - center + 0.5) / support), 0.0)
            weight = int(share / total * ONE + 0.5) if total > 0 else 0
            weights[to, j] = weight
            left -= weight
            if weight > weights[to, largest]:
                largest = j
        weights[to, largest] += left
        for j in range(most - least, 4):
            weights[to, j] = 0
        places[to], counts[to] = least, most - least


@compiled
def add_rows(plane: np.ndarray, stride: int, rows: int, left: int, width: int, places: np.ndarray,
             counts: np.ndarray, weights: np.ndarray, sums: np.ndarray, out: np.ndarray) -> None:
    """out[i * width + x], uint8, is the weighted sum of the samples of column left + x, for each pixel i of places.

    plane: uint8, flat, `rows` rows of `stride`. sums: int32, `width` or more, for work.

    Bounds: places and counts are within the rows, as `weigh` makes them; the caller has left + width <= stride, and
    memory for places.size * width in `out`.
    """
    for i in range(places.size):
        to, place = _U64(i * width), np.int64(places[i])
        if counts[i] <= 4:
            a = _U64(place * stride + left)
            b = a + _U64(stride * (place + 1 < rows))  # beside the plane, weights are 0
            c = b + _U64(stride * (place + 2 < rows))
            d = c + _U64(stride * (place + 3 < rows))
            w0, w1, w2, w3 = weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3]
            if counts[i] <= 2:
                for x in range(width):
                    at = _U64(x)
                    total = _I32(_I32(plane[a + at] * w0) + _I32(plane[b + at] * w1))
                    out[to + at] = _I32(_I32(total + _HALF) >> _SHIFT)
            else:
                for x in range(width):
                    at = _U64(x)
                    total = _I32(_I32(plane[a + at] * w0) + _I32(plane[b + at] * w1))
                    total = _I32(_I32(total + _I32(plane[c + at] * w2)) + _I32(plane[d + at] * w3))
                    out[to + at] = _I32(_I32(total + _HALF) >> _SHIFT)
        else:
            for x in range(width):
                sums[_U64(x)] = _HALF
            for tap in range(counts[i]):
                a, w = _U64((place + tap) * stride + left), weights[i, tap]
                for x in range(width):
                    sums[_U64(x)] += _I32(plane[a + _U64(x)] * w)
            for x in range(width):
                out[to + _U64(x)] = _I32(sums[_U64(x)] >> _SHIFT)


@compiled
def to_rgb(luma: np.ndarray, blue: np.ndarray, red: np.ndarray, r: np.ndarray, g: np.ndarray, b: np.ndarray) -> None:
    """Y, Cb and Cr to R, G and B, uint8, flat, of one length, with libjpeg's factors. numba adds int32 as int64, which
    takes several times as long: so each sum is cut back."""
    for i in range(luma.size):
        x = _U64(i)
        y = _I32(_I32(luma[x] << _SIXTEEN) + _I32(32768))
        cb, cr = _I32(blue[x] - _I32(128)), _I32(red[x] - _I32(128))
        r[x] = min(max(_I32(_I32(y + _I32(cr * _I32(91881))) >> _SIXTEEN), _ZERO), _WHITE)
        green = _I32(_I32(cb * _I32(22554)) + _I32(cr * _I32(46802)))
        g[x] = min(max(_I32(_I32(y - green) >> _SIXTEEN), _ZERO), _WHITE)
        b[x] = min(max(_I32(_I32(y + _I32(cb * _I32(116130))) >> _SIXTEEN), _ZERO), _WHITE)
