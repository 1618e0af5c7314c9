"""Decodes a box of MCUs of a tiled JPEG to its planes: Y, Cb and Cr as they are stored, chroma not enlarged."""
from typing import Any, NamedTuple

import numpy as np

from dataflows.jpeg.compiled import Int, compiled
from dataflows.jpeg.decode import entropy, inverse_dct
from dataflows.jpeg.decode.entropy import PLACES
from dataflows.jpeg.decode.tables import MOST_BLOCKS, Tables
from dataflows.jpeg.decode.tiling import Tiling

SLACK = 16  # bytes behind the last plane, for those who read blocks of it
MOST_PIXELS = 1 << 22  # of a box: more would hold much memory in each thread


class Planes(NamedTuple):
    """A part of an image. Its first pixel is at (top, left) of the image.

    samples: uint8, flat: the planes one after the other, and SLACK bytes. number: of planes, 1 or 3. geometry: int64
    (3, 5); of each plane: where it starts, its stride, its rows, and its sampling factors (down, across). most_down,
    most_across: the largest ones.
    """

    samples: np.ndarray
    number: Int
    geometry: np.ndarray
    most_down: Int
    most_across: Int
    top: Int
    left: Int


@compiled
def no_planes() -> Planes:
    return Planes(np.empty(0, np.uint8), np.int64(0), np.empty((0, 5), np.int64), np.int64(0), np.int64(0), np.int64(0),
                  np.int64(0))


@compiled
def decode_planes(data: np.ndarray, tiling: Tiling, offsets: np.ndarray, tables: Tables, region: np.ndarray,
                  margin_y: Int, margin_x: Int) -> Planes:
    """The planes of the MCUs that have a region of the image, and as many pixels more on each side. Without any planes
    (number 0) where the data are damaged, or the box is too large.

    region: int64, (top, left, height, width) of a box within the image. tiling to tables: of the same data.

    Bounds: memory is as large as the docstring of each step says, for a box whose rows and columns are within those of
    the image.
    """
    top, left, height, width = region[0], region[1], region[2], region[3]
    mcu_height, mcu_width, interval = tiling.mcu_height, tiling.mcu_width, tiling.interval
    row, column = max(top - margin_y, 0) // mcu_height, max(left - margin_x, 0) // mcu_width
    row_end = min((top + height + margin_y + mcu_height - 1) // mcu_height, tiling.rows)
    column_end = min((left + width + margin_x + mcu_width - 1) // mcu_width, tiling.columns)
    rows, columns, number = row_end - row, column_end - column, tables.factors[0]
    if rows <= 0 or columns <= 0 or rows * columns * mcu_height * mcu_width > MOST_PIXELS:
        return no_planes()
    geometry, components = np.zeros((3, 5), np.int64), np.zeros((3, 5), np.int64)
    blocks = np.zeros((MOST_BLOCKS, 3), np.int64)  # of an MCU
    most_down, most_across, in_mcu = np.int64(1), np.int64(1), 0
    size, room = np.int64(0), np.int64(0)  # of samples, and of coefficients
    for c in range(number):
        down, across = tables.factors[1 + 2 * c], tables.factors[2 + 2 * c]
        most_down, most_across = max(most_down, down), max(most_across, across)
        components[c, 0], components[c, 1], components[c, 2], components[c, 3] = room, columns * across, down, across
        components[c, 4] = tables.table_of[c]
        geometry[c, 0], geometry[c, 1], geometry[c, 2] = size, 8 * columns * across, 8 * rows * down
        geometry[c, 3], geometry[c, 4] = down, across
        of_it = rows * columns * down * across
        room += (of_it + entropy.LANES - 1) // entropy.LANES * inverse_dct.GROUP
        size += 64 * of_it
        for y in range(down):
            for x in range(across):
                blocks[in_mcu, 0], blocks[in_mcu, 1], blocks[in_mcu, 2] = c, y, x
                in_mcu += 1
    if 8 * most_down != mcu_height or 8 * most_across != mcu_width:  # the list speaks of another frame
        return no_planes()
    intervals = np.empty((5, rows * ((columns + interval - 1) // interval + 1) + 1), np.int64)
    count = entropy.choose(row, row_end, column, column_end, tiling.columns, interval, offsets, tiling.scan, intervals)
    starts, stops = intervals[3], intervals[4]
    span: Any = np.int64(0)
    for i in range(count):
        span += intervals[2, i] - intervals[1, i]
    unstuffed = np.empty(span + entropy.PAD + 8, np.uint8)
    if entropy.unstuff(data, intervals, count, unstuffed, starts) != entropy.OK:
        return no_planes()
    places = np.empty(count * interval * in_mcu, np.uint32)
    entropy.place_blocks(intervals, count, interval, tiling.columns * tiling.rows, tiling.columns,
                         np.array([row, column, rows, columns]), blocks[:in_mcu], components, room, places, stops)
    coefficients = np.empty(room + inverse_dct.GROUP, np.int16)  # behind `room`, those of which nobody wants to know
    coefficients[:room] = 0
    if entropy.decode(unstuffed, starts, stops, count, places, tables, coefficients, PLACES.copy()) != entropy.OK:
        return no_planes()
    words = np.empty(size // 4 + SLACK // 4, np.int32)
    for c in range(number):
        inverse_dct.inverse_dct(coefficients, components[c, 0], rows * components[c, 2] * components[c, 1],
                                components[c, 1], tables.quantisers[64 * c:64 * c + 64], words[geometry[c, 0] // 4:])
    return Planes(words.view(np.uint8), number, geometry, most_down, most_across, row * mcu_height, column * mcu_width)
