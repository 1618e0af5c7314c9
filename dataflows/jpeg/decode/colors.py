"""Makes RGB of the planes of a JPEG, exactly as libjpeg-turbo does: chroma is interpolated, and then converted.

Where a chroma sample stands for two pixels, libjpeg's "fancy upsampling" takes 3/4 of the nearer sample and 1/4 of the
next one on the pixel's side: across, down, or first down and then across, rounded once. At the edges of the image, the
outermost sample also stands for the next one. (There libjpeg has other formulas, with the same results.)

libjpeg does so across only where the whole image has more than two columns of chroma. Others have at most 4 columns of
pixels: leave them to libjpeg.
"""
import numpy as np

from dataflows.jpeg.compiled import Int, compiled, inlined

_I16, _I32, _U64 = np.int16, np.int32, np.uint64
_ZERO, _WHITE = np.int32(0), np.int32(255)
# Rows, or pixels, that are converted in one loop: it takes some time before its first pixel, and behind its last.
_BAND, _PART = 8, 1024


@inlined
def _sum_rows(plane: np.ndarray, near: Int, far: Int, count: Int, down: Int, sums: np.ndarray, at: Int) -> None:
    """sums[at:at + count] = 3 * plane[near:near + count] + plane[far:far + count]; the first alone if `down` is 1."""
    a, b, to = _U64(near), _U64(far), _U64(at)
    if down == 2:
        for i in range(count):
            sums[to + _U64(i)] = plane[a + _U64(i)] * 3 + plane[b + _U64(i)]
    else:
        for i in range(count):
            sums[to + _U64(i)] = plane[a + _U64(i)]


@inlined
def _double(sums: np.ndarray, count: Int, left: Int, right: Int, shift: Int, out: np.ndarray, to: Int) -> None:
    """Two samples of each of sums[1:1 + count]. left, right: what rounds them."""
    for i in range(count):
        three = _I16(sums[_U64(i + 1)] * 3)
        out[_U64(to) + _U64(2 * i)] = _I16(_I16(three + sums[_U64(i)] + left) >> shift) - 128
        out[_U64(to) + _U64(2 * i + 1)] = _I16(_I16(three + sums[_U64(i + 2)] + right) >> shift) - 128


@inlined
def _chroma_row(plane: np.ndarray, near: Int, far: Int, lower: Int, first: Int, count: Int, columns: Int, across: Int,
                down: Int, sums: np.ndarray, out: np.ndarray, to: Int) -> None:
    """out[to:to + across * count] = the interpolated chroma, minus 128, of `count` samples from column `first` on.

    near, far: where the nearer row of the plane and the next one start. lower: 1 where the next is below.
    sums: as memory, of count + 2.
    """
    _sum_rows(plane, near + first, far + first, count, down, sums, 1)
    if across == 2:
        before, behind = max(first - 1, 0), min(first + count, columns - 1)
        _sum_rows(plane, near + before, far + before, 1, down, sums, 0)
        _sum_rows(plane, near + behind, far + behind, 1, down, sums, count + 1)
        if down == 2:
            _double(sums, count, 8, 7, 4, out, to)
        else:
            _double(sums, count, 1, 2, 2, out, to)
    elif down == 2:
        for i in range(count):
            out[_U64(to) + _U64(i)] = (_I16(sums[_U64(i + 1)] + 1 + lower) >> 2) - 128
    else:
        for i in range(count):
            out[_U64(to) + _U64(i)] = sums[_U64(i + 1)] - 128


@inlined
def _level(value: np.int32) -> np.int32:
    return min(max(value, _ZERO), _WHITE)


@inlined
def _convert(luma: np.ndarray, at: Int, blue: np.ndarray, red: np.ndarray, skip: Int, count: Int, r: np.ndarray,
             g: np.ndarray, b: np.ndarray, to: Int) -> None:
    """r[to:to + count] and so on = RGB of luma[at:at + count], and of Cb and Cr minus 128 from index `skip` on.

    libjpeg's factors, of 65536. Chroma is int32: where numba's compiler knows that a product fits, it takes 64 bits.
    """
    first, start, place = _U64(at), _U64(skip), _U64(to)
    for i in range(count):
        y, cb, cr = _I32(luma[first + _U64(i)]), blue[start + _U64(i)], red[start + _U64(i)]
        r[place + _U64(i)] = _level(_I32(y + (_I32(cr * 91881 + 32768) >> 16)))
        g[place + _U64(i)] = _level(_I32(y + (_I32(cb * -22554 - cr * 46802 + 32768) >> 16)))
        b[place + _U64(i)] = _level(_I32(y + (_I32(cb * 116130 + 32768) >> 16)))


@inlined
def _within(start: Int, count: Int, size: Int) -> bool:
    """Whether start .. start + count is a part of 0 .. size, for any numbers: no sum here can overflow."""
    return bool(0 <= start < size and 0 < count <= size - start)


@compiled
def to_rgb(luma: np.ndarray, luma_stride: Int, cb: np.ndarray, cr: np.ndarray, chroma_stride: Int, chroma_rows: Int,
           chroma_columns: Int, across: Int, down: Int, top: Int, left: Int, height: Int, width: Int, r: np.ndarray,
           g: np.ndarray, b: np.ndarray) -> None:
    """Converts a box of YCbCr planes. These may be a part of an image, from a whole MCU on.

    Where the box ends at the edge of the part without being at the edge of the image, the part must have one chroma
    sample more on that side. Every index is below one of the sizes that are tested first.

    Args:
        luma: uint8, 1-D: rows of luma_stride samples.
        luma_stride: in samples.
        cb: uint8, 1-D: rows of chroma_stride samples.
        cr: the same.
        chroma_stride: in samples.
        chroma_rows: how many rows of chroma belong to the image, and not to the filling of its last MCUs. The image
            has ceil(image's height / down).
        chroma_columns: the same of columns.
        across: how many pixels a chroma sample has from left to right: 1 or 2.
        down: how many from top to bottom: 1 or 2.
        top: the first row of the box, in pixels of the part.
        left: its first column.
        height: of the box, in pixels. Its last row must belong to the image.
        width: the same of columns.
        r: uint8, 1-D, which gets red: rows of luma_stride samples, of which the first `width` are the box's.
        g: the same of green.
        b: the same of blue.

    Raises:
        ValueError: the box is empty or outside of an array, or a factor is not 1 or 2.
    """
    if not (1 <= across <= 2 and 1 <= down <= 2 and 0 < chroma_columns <= chroma_stride
            and 0 < chroma_rows <= min(cb.size, cr.size) // chroma_stride
            and _within(top, height, down * chroma_rows) and _within(left, width, across * chroma_columns)
            and left + width <= luma_stride and top + height <= luma.size // luma_stride
            and (height - 1) * luma_stride + width <= min(r.size, g.size, b.size)):
        raise ValueError("the box is empty or outside of an array, or a factor of the sampling is not 1 or 2")
    first = left // across
    count = (left + width - 1) // across + 1 - first
    sums, band = np.empty(count + 2, np.int16), _BAND * luma_stride
    blue, red = np.empty(band + 2, np.int32), np.empty(band + 2, np.int32)
    for start in range(0, height, _BAND):
        rows = min(_BAND, height - start)
        for i in range(rows):
            row, lower = (top + start + i) // down, (top + start + i) % down
            near = row * chroma_stride
            far = min(max(row + 2 * lower - 1, 0), chroma_rows - 1) * chroma_stride
            to = i * luma_stride
            _chroma_row(cb, near, far, lower, first, count, chroma_columns, across, down, sums, blue, to)
            _chroma_row(cr, near, far, lower, first, count, chroma_columns, across, down, sums, red, to)
        _convert(luma, (top + start) * luma_stride + left, blue, red, left % across, (rows - 1) * luma_stride + width,
                 r, g, b, start * luma_stride)


@compiled
def planes_to_rgb(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray, r: np.ndarray, g: np.ndarray, b: np.ndarray
                  ) -> None:
    """Y, Cb and Cr to R, G and B, without any interpolation: uint8, 1-D, of one size."""
    blue, red = np.empty(_PART, np.int32), np.empty(_PART, np.int32)
    for start in range(0, luma.size, _PART):
        count = min(_PART, luma.size - start)
        for i in range(count):
            blue[_U64(i)] = cb[_U64(start) + _U64(i)] - _I32(128)
            red[_U64(i)] = cr[_U64(start) + _U64(i)] - _I32(128)
        _convert(luma, start, blue, red, 0, count, r, g, b, start)
