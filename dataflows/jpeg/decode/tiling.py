"""Reads where the intervals of a tiled JPEG are: what jpeg/cut.py's read_tiles does, in a kernel, for the usual files.

Whatever is odd here, damaged among it, is left to read_tiles, which says what is wrong with it. So are lists of several
segments, which images of some 16 million pixels have.
"""
from typing import Any, NamedTuple

import numpy as np

from dataflows.jpeg.compiled import Int, compiled
from dataflows.jpeg.cut import LIST_HEAD, MAGIC, MAX_BLANK_BITS

_MAGIC = np.frombuffer(MAGIC, np.uint8)
_HEAD = LIST_HEAD.size
_BEFORE_LIST = 4 + len(MAGIC)  # bytes of a segment


class Tiling(NamedTuple):
    """All int64. height to rows: as in cut.TileMap. front: where the list's segment starts; core: where what decoding
    needs starts, and scan: where the first interval does. lengths: where the first of them is in the list, the one that
    is 0; each has `length_bytes`, and there are `intervals` besides it."""

    height: Int
    width: Int
    mcu_height: Int
    mcu_width: Int
    margin_y: Int
    margin_x: Int
    interval: Int
    columns: Int
    rows: Int
    front: Int
    core: Int
    scan: Int
    lengths: Int
    length_bytes: Int
    intervals: Int


NO_TILING = Tiling(*[0] * len(Tiling._fields))  # no image has its height


@compiled
def _u16(data: np.ndarray, at: Int) -> Int:
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@compiled
def _little(data: np.ndarray, at: Int, size: Int) -> Any:
    number = np.int64(0)
    for i in range(size):
        number |= np.int64(data[at + i]) << (8 * i)
    return number


@compiled
def read_tiling(data: np.ndarray) -> Tiling:
    """The Tiling of a tiled JPEG, uint8, whose list fits its frame; NO_TILING for anything else.

    Bounds: each place is compared with the size of the data before it is read. All lengths are within the data.
    """
    size, front = data.size, np.int64(2)
    if size < 64 or data[0] != 0xFF or data[1] != 0xD8:
        return NO_TILING
    if data[2] == 0xFF and data[3] == 0xE0:
        front = 4 + _u16(data, 4)
    listing = front + _BEFORE_LIST
    if listing + _HEAD > size or data[front] != 0xFF or data[front + 1] != 0xE9:
        return NO_TILING
    for i in range(_MAGIC.size):
        if data[front + 4 + i] != _MAGIC[i]:
            return NO_TILING
    core, size_at, scan = _little(data, listing, 4), _little(data, listing + 4, 4), _little(data, listing + 8, 4)
    length_bytes, pad_bits = np.int64(data[listing + 12]), np.int64(data[listing + 13])
    blank_bits, end = _little(data, listing + 14, 2), front + 2 + _u16(data, front + 2)
    if not (end <= core <= size_at - 11 and size_at - 11 < scan - 25 and scan < size) or end < listing + _HEAD:
        return NO_TILING
    if data[core] != 0xFF or data[core + 1] != 0xDD or data[core + 2] != 0 or data[core + 3] != 4:
        return NO_TILING
    components = np.int64(data[size_at + 4])
    if (data[size_at - 5] != 0xFF or data[size_at - 4] & 0xFE != 0xC0 or components != 1 and components != 3
            or _u16(data, size_at - 3) != 8 + 3 * components):
        return NO_TILING
    height, width = _u16(data, size_at), _u16(data, size_at + 2)
    down, across, least_down, least_across = np.int64(0), np.int64(0), np.int64(5), np.int64(5)
    for c in range(components):
        factors = np.int64(data[size_at + 6 + 3 * c])
        down, least_down = max(down, factors & 15), min(least_down, factors & 15)
        across, least_across = max(across, factors >> 4), min(least_across, factors >> 4)
    if height == 0 or width == 0 or least_down < 1 or least_across < 1 or down > 4 or across > 4:
        return NO_TILING
    if components == 1:  # its blocks come one by one, whatever these say (T.81, A.2.2)
        down, across, least_down, least_across = np.int64(1), np.int64(1), np.int64(1), np.int64(1)
    interval = _u16(data, core + 4)
    rows, columns = (height + 8 * down - 1) // (8 * down), (width + 8 * across - 1) // (8 * across)
    lengths = listing + _HEAD + (blank_bits + 7 >> 3)
    if (pad_bits > 7 or not 0 < interval <= columns or blank_bits > MAX_BLANK_BITS
            or (columns % interval > 0) != (blank_bits > 0)
            or length_bytes != 1 and length_bytes != 2 and length_bytes != 4):
        return NO_TILING
    intervals = (columns * rows + interval - 1) // interval
    if end - lengths != (intervals + 1) * length_bytes:
        return NO_TILING
    return Tiling(height, width, 8 * down, 8 * across, np.int64(least_down < down), np.int64(least_across < across),
                  interval, columns, rows, front, core, scan, lengths, length_bytes, intervals)


@compiled
def read_offsets(data: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Where each interval starts, from `scan` on, and where the last one ends: int64 (intervals + 1,). Empty if that is
    not where the data end.

    Bounds: `read_tiling` has seen that the lengths are within the data. No offset is outside of the data.
    """
    offsets, step = np.empty(tiling.intervals + 1, np.int64), tiling.length_bytes
    total = np.int64(0)
    for i in range(tiling.intervals + 1):
        at = tiling.lengths + i * step
        if step == 2:
            total += np.int64(data[at]) | np.int64(data[at + 1]) << 8
        else:
            total += _little(data, at, step)
        offsets[i] = total
    end = tiling.scan + total
    if offsets[0] != 0 or total < 2 or end > data.size or data[end - 2] != 0xFF or data[end - 1] != 0xD9:
        return offsets[:0]
    return offsets
