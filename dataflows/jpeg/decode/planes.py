"""Decodes a box of MCUs of a tiled JPEG to its planes: Y, Cb and Cr as they are stored, chroma not enlarged."""
from typing import Any, NamedTuple

import numpy as np

from dataflows.jpeg.compiled import compiled
from dataflows.jpeg.cut import TileMap
from dataflows.jpeg.decode import entropy, inverse_dct
from dataflows.jpeg.decode.tables import MOST_BLOCKS, Tables

SLACK = 16  # bytes behind a plane, for those who read blocks of it
MOST_PIXELS = 1 << 22  # of a box: more would hold much memory in each thread
Lookups = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # short to symbols, of tables.Tables


class Plane(NamedTuple):
    """Samples of one component, uint8, flat, in rows of `stride`; and its sampling factors over the largest ones."""

    samples: np.ndarray
    stride: int
    rows: int
    down: float
    across: float


class Part(NamedTuple):
    """A part of an image: its planes, and (top, left) in the image of their first pixel."""

    planes: list[Plane]
    origin: tuple[int, int]


class PlaneDecoder:
    """Memory for one box at a time, of one thread. What it gives is valid until it is used again."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._intervals = np.empty((5, 0), np.int64)
        self._data, self._places = np.empty(0, np.uint8), np.empty(0, np.uint32)
        self._coefficients = np.empty(0, np.int16)
        self._words = [np.empty(0, np.int32)] * 3

    def decode(self, data: np.ndarray, tiles: TileMap, region: list[int], margin_y: int, margin_x: int) -> Part | None:
        """The planes of the MCUs that have a region (top, left, height, width) of the image, and as many pixels more on
        each side; None for what is not decoded here, or is damaged.

        data: of the tiled JPEG, uint8.
        """
        prepared = self.prepare(data, tiles, region, margin_y, margin_x)
        return None if prepared is None or decode_box(*prepared[0]) != entropy.OK else prepared[1]

    def prepare(self, data: np.ndarray, tiles: TileMap, region: list[int], margin_y: int, margin_x: int
                ) -> tuple[tuple[Any, ...], Part] | None:
        """The arguments of `decode_box` for that, and what it fills; None for what is not decoded here."""
        top, left, height, width = region
        mcu_height, mcu_width, interval = tiles.mcu_height, tiles.mcu_width, tiles.interval
        columns_of_all, offsets = tiles.columns, tiles.offsets
        row, column = max(top - margin_y, 0) // mcu_height, max(left - margin_x, 0) // mcu_width
        row_end = min(-(-(top + height + margin_y) // mcu_height), tiles.rows)
        column_end = min(-(-(left + width + margin_x) // mcu_width), columns_of_all)
        rows, columns, tables = row_end - row, column_end - column, self._tables
        if rows * columns * mcu_height * mcu_width > MOST_PIXELS or not tables.read(tiles.header):
            return None
        count, *factors = tables.factors.tolist()
        down, across = factors[0:2 * count:2], factors[1:2 * count:2]
        most_down, most_across = max(down), max(across)
        if (8 * most_down, 8 * most_across) != (mcu_height, mcu_width):
            return None  # the list speaks of another frame than the header
        blocks = [rows * columns * y * x for y, x in zip(down, across)]
        room = rows * (-(-columns // interval) + 1)
        if self._intervals.shape[1] < room + 1:
            self._intervals = np.empty((5, room + 1), np.int64)
        span = offsets.item(-(-row_end * columns_of_all // interval)) - offsets.item(row * columns_of_all // interval)
        self._data = grown(self._data, span + entropy.PAD + 8)
        self._places = grown(self._places, room * interval * (sum(blocks) // (rows * columns)))
        self._coefficients = grown(self._coefficients, sum(-(-number // entropy.LANES) for number in blocks)
                                   * inverse_dct.GROUP + inverse_dct.GROUP)
        self._words = [grown(words, 16 * number + SLACK // 4) for words, number in zip(self._words, (*blocks, 0, 0))]
        if data.flags.writeable:
            data = data.view()
            data.flags.writeable = False  # or another form of the kernel would be compiled for it
        planes = [Plane(words.view(np.uint8), 8 * columns * x, 8 * rows * y, y / most_down, x / most_across)
                  for words, y, x in zip(self._words, down, across)]
        return (data, (row, row_end, column, column_end, tiles.rows, columns_of_all, interval, tiles.scan_at), offsets,
                tables.lookups, tables.quantisers, tables.factors, tables.table_of, entropy.PLACES, self._intervals,
                self._data, self._places, self._coefficients, tuple(self._words)
                ), Part(planes, (row * mcu_height, column * mcu_width))


@compiled
def decode_box(data: np.ndarray, box: tuple[int, ...], offsets: np.ndarray, tables: Lookups, quantisers: np.ndarray,
               factors: np.ndarray, table_of: np.ndarray, zigzag: np.ndarray, intervals: np.ndarray,
               unstuffed: np.ndarray, places: np.ndarray, coefficients: np.ndarray, words: tuple[np.ndarray, ...]
               ) -> int:
    """All steps of a box, one after the other. Returns OK or CORRUPT.

    Bounds: the caller gives memory for as many intervals, bytes, blocks and samples as the box can have, which each
    step's docstring names.
    """
    row, row_end, column, column_end, all_rows, all_columns, interval, scan_at = box
    rows, columns = row_end - row, column_end - column
    count = entropy.choose(row, row_end, column, column_end, all_columns, interval, offsets, scan_at, intervals)
    starts, stops = intervals[3], intervals[4]
    if entropy.unstuff(data, intervals, count, unstuffed, starts) != entropy.OK:
        return entropy.CORRUPT
    size: Any = np.int64(0)
    number: Any = np.int64(0)
    components, blocks = np.zeros((3, 5), np.int64), np.zeros((MOST_BLOCKS, 3), np.int64)
    for c in range(factors[0]):
        down, across = factors[1 + 2 * c], factors[2 + 2 * c]
        components[c, 0], components[c, 1], components[c, 2], components[c, 3] = size, columns * across, down, across
        components[c, 4] = table_of[c]
        size += (rows * columns * down * across + entropy.LANES - 1) // entropy.LANES * inverse_dct.GROUP
        for y in range(down):
            for x in range(across):
                blocks[number, 0], blocks[number, 1], blocks[number, 2] = c, y, x
                number += 1
    where = np.array([row, column, rows, columns])
    entropy.place_blocks(intervals, count, interval, all_columns * all_rows, all_columns, where, blocks[:number],
                         components, size, places, stops)
    coefficients[:size] = 0
    if entropy.decode(unstuffed, starts, stops, count, places, *tables, zigzag, coefficients) != entropy.OK:
        return entropy.CORRUPT
    for c in range(factors[0]):
        inverse_dct.inverse_dct(coefficients, components[c, 0], rows * components[c, 2] * components[c, 1],
                                components[c, 1], quantisers[64 * c:64 * c + 64], words[c])
    return entropy.OK


def nothing() -> tuple[Any, ...]:
    """Arguments of `decode_box` of the types that it gets, with nothing to do."""
    tables, none, data = Tables(), np.empty(0, np.int32), np.empty(0, np.uint8)
    tables.read(b"")
    data.flags.writeable = False
    return (data, (0, 0, 0, 0, 1, 1, 1, 0), np.zeros(1, np.int64), tables.lookups, tables.quantisers, tables.factors,
            tables.table_of, entropy.PLACES, np.zeros((5, 1), np.int64), np.empty(entropy.PAD + 8, np.uint8),
            np.empty(0, np.uint32), np.zeros(inverse_dct.GROUP, np.int16), (none, none, none))


def grown(array: np.ndarray, size: int) -> np.ndarray:
    """The array, or a new one of this size if it is smaller."""
    return array if len(array) >= size else np.empty(size, array.dtype)
