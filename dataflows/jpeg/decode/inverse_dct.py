"""Turns the coefficients of a JPEG component into samples, exactly as libjpeg's accurate integer transform does.

Each block of 8 x 8 coefficients has its eight columns transformed, and then its eight rows. With the factors and the
roundings of libjpeg, samples are equal to the last bit. Where no encoder needs more, libjpeg-turbo's SIMD code holds
sums in 16 bits: for coefficients that no encoder makes, its samples may differ from these. Here 32 bits wrap.

The coefficients of 16 blocks lie side by side, so that one instruction works on several blocks. Three things keep this
fast. numba adds int32 as int64, which takes three times as long: so each sum is cut back to int32 when it gets a name.
Indices are unsigned, so that none is tested for being negative. And loops are long or have few arrays in them, for
numba tests before each whether arrays overlap.

A short way for groups without high frequencies saves a fifth of their time. That is a hundredth of a photo's, for half
of its chroma has such groups and its luma has none: so there is none.
"""
import numpy as np

from dataflows.jpeg.compiled import Int, compiled, inlined

LANES = 16  # blocks side by side
GROUP = 64 * LANES  # their coefficients
CONSTANT_BITS, COLUMN_BITS = 13, 2  # of libjpeg's factors, and of what the columns give
_COLUMN_SHIFT = np.int32(CONSTANT_BITS - COLUMN_BITS)
_ROW_SHIFT = np.int32(CONSTANT_BITS + COLUMN_BITS + 3)  # 3: both transforms together multiply by 8
_COLUMN_BIAS = np.int32(1 << _COLUMN_SHIFT - 1)  # rounds
_ROW_BIAS = np.int32((1 << _ROW_SHIFT - 1) + (128 << _ROW_SHIFT))  # rounds; samples are unsigned
_ZERO, _WHITE = np.int32(0), np.int32(255)
_I32, _U64 = np.int32, np.uint64
_Eight = tuple[np.int32, np.int32, np.int32, np.int32, np.int32, np.int32, np.int32, np.int32]


@inlined
def _transform(c0: np.int32, c1: np.int32, c2: np.int32, c3: np.int32, c4: np.int32, c5: np.int32, c6: np.int32,
               c7: np.int32, bias: np.int32) -> _Eight:
    """The inverse DCT of eight coefficients, times sqrt(8) * 2 ** CONSTANT_BITS, plus `bias`."""
    z = _I32((c2 + c6) * 4433)
    even2, even3 = _I32(z - c6 * 15137), _I32(z + c2 * 6270)
    first = _I32((c0 << CONSTANT_BITS) + bias)
    even0, even1 = _I32(first + (c4 << CONSTANT_BITS)), _I32(first - (c4 << CONSTANT_BITS))
    s0, s3, s1, s2 = _I32(even0 + even3), _I32(even0 - even3), _I32(even1 + even2), _I32(even1 - even2)
    z1, z2, z3, z4 = _I32((c7 + c1) * -7373), _I32((c5 + c3) * -20995), _I32(c7 + c3), _I32(c5 + c1)
    z5 = _I32((z3 + z4) * 9633)
    z6, z7 = _I32(z3 * -16069 + z5), _I32(z4 * -3196 + z5)
    t0, t1 = _I32(c1 * 12299 + z1 + z7), _I32(c3 * 25172 + z2 + z6)
    t2, t3 = _I32(c5 * 16819 + z2 + z7), _I32(c7 * 2446 + z1 + z6)
    return (_I32(s0 + t0), _I32(s1 + t1), _I32(s2 + t2), _I32(s3 + t3),
            _I32(s3 - t3), _I32(s2 - t2), _I32(s1 - t1), _I32(s0 - t0))


@inlined
def _sample(total: np.int32) -> np.int32:
    return _I32(min(max(_I32(total >> _ROW_SHIFT), _ZERO), _WHITE))


@inlined
def _columns(coefficients: np.ndarray, group: np.uint64, factors: np.ndarray, work: np.ndarray) -> None:
    """Transforms the columns of the 16 blocks at index `group`. work[n * 16 + lane] gets value n of a block."""
    for column in range(8 * LANES):
        i0 = _U64(column)
        i1, i2, i3, i4 = i0 + _U64(128), i0 + _U64(256), i0 + _U64(384), i0 + _U64(512)
        i5, i6, i7 = i0 + _U64(640), i0 + _U64(768), i0 + _U64(896)
        s0, s1, s2, s3, s4, s5, s6, s7 = _transform(
            _I32(coefficients[group + i0] * factors[i0]), _I32(coefficients[group + i1] * factors[i1]),
            _I32(coefficients[group + i2] * factors[i2]), _I32(coefficients[group + i3] * factors[i3]),
            _I32(coefficients[group + i4] * factors[i4]), _I32(coefficients[group + i5] * factors[i5]),
            _I32(coefficients[group + i6] * factors[i6]), _I32(coefficients[group + i7] * factors[i7]), _COLUMN_BIAS)
        work[i0], work[i1], work[i2] = s0 >> _COLUMN_SHIFT, s1 >> _COLUMN_SHIFT, s2 >> _COLUMN_SHIFT
        work[i3], work[i4], work[i5] = s3 >> _COLUMN_SHIFT, s4 >> _COLUMN_SHIFT, s5 >> _COLUMN_SHIFT
        work[i6], work[i7] = s6 >> _COLUMN_SHIFT, s7 >> _COLUMN_SHIFT


@inlined
def _rows(work: np.ndarray, words: np.ndarray, at: Int, stride: Int) -> None:
    """Transforms the rows of 16 blocks. Row y of all of them, 32 words, goes to words[at + y * stride]."""
    for row in range(8):
        start, to = _U64(row * 8 * LANES), _U64(at + row * stride)
        for lane in range(LANES):
            i = start + _U64(lane)
            s0, s1, s2, s3, s4, s5, s6, s7 = _transform(
                work[i], work[i + _U64(16)], work[i + _U64(32)], work[i + _U64(48)], work[i + _U64(64)],
                work[i + _U64(80)], work[i + _U64(96)], work[i + _U64(112)], _ROW_BIAS)
            word = to + _U64(2 * lane)
            words[word] = _sample(s0) | _sample(s1) << 8 | _sample(s2) << 16 | _sample(s3) << 24
            words[word + _U64(1)] = _sample(s4) | _sample(s5) << 8 | _sample(s6) << 16 | _sample(s7) << 24


@compiled
def inverse_dct(coefficients: np.ndarray, start: Int, blocks: Int, blocks_per_row: Int, quantisers: np.ndarray,
                words: np.ndarray) -> None:
    """Dequantises and transforms the blocks of one component. Nothing but their samples is written.

    Every index is below one of the three sizes that are tested first: groups are read whole, up to `groups * GROUP`
    after `start`; 16 blocks are written at once where so many are left in the row and in all, and else one by one.

    Args:
        coefficients: int16, 1-D. The one of natural (row by row) order n of block j is at index
            start + j // 16 * 1024 + n * 16 + j % 16; the last group is there with all of its 1024.
        start: where in `coefficients` the component begins.
        blocks: how many blocks there are, row by row.
        blocks_per_row: of how many of them a row consists.
        quantisers: int32, (64,), in natural order.
        words: the plane, uint8 in rows of 8 * blocks_per_row samples, as a view of int32 on a little-endian machine,
            1-D. It may be larger.

    Raises:
        ValueError: an array is too small for so many blocks.
    """
    if (not 0 <= start <= coefficients.size or not 0 <= blocks <= coefficients.size  # so that no sum can overflow
            or not 0 < blocks_per_row <= words.size or quantisers.size < 64
            or start + (blocks + LANES - 1) // LANES * GROUP > coefficients.size
            or (blocks + blocks_per_row - 1) // blocks_per_row * 16 * blocks_per_row > words.size):
        raise ValueError("an array is too small for so many blocks")
    groups, stride = (blocks + LANES - 1) // LANES, 2 * blocks_per_row
    factors, work, side = np.empty(GROUP, np.int32), np.empty(GROUP, np.int32), np.empty(16 * LANES, np.int32)
    for i in range(64):
        factors[i * LANES:(i + 1) * LANES] = quantisers[i]
    at, column = 0, 0  # of the next block: its first word, and its place in the row
    for group in range(groups):
        count = min(LANES, blocks - group * LANES)
        _columns(coefficients, _U64(start + group * GROUP), factors, work)
        if count == LANES and column + LANES <= blocks_per_row:
            _rows(work, words, at, stride)
            at, column = at + 2 * LANES, column + LANES
        else:
            _rows(work, side, 0, 2 * LANES)
            for lane in range(count):
                if column == blocks_per_row:
                    at, column = at + 7 * stride, 0
                for row in range(8):
                    words[_U64(at + row * stride)] = side[_U64(row * 2 * LANES + 2 * lane)]
                    words[_U64(at + row * stride + 1)] = side[_U64(row * 2 * LANES + 2 * lane + 1)]
                at, column = at + 2, column + 1
        if column == blocks_per_row:
            at, column = at + 7 * stride, 0
