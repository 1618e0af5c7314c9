"""Decodes a box of MCUs of a tiled JPEG to its planes: Y, Cb and Cr as they are stored, chroma not enlarged."""
from typing import NamedTuple

import numpy as np

from dataflows.jpeg.cut import TileMap
from dataflows.jpeg.decode import entropy, inverse_dct
from dataflows.jpeg.decode.tables import Tables

MOST_PIXELS = 1 << 22  # of a box: more would hold much memory in each thread


class Plane(NamedTuple):
    """Samples of one component, uint8, flat, in rows of `stride`; and its sampling factors over the largest ones."""

    samples: np.ndarray
    stride: int
    rows: int
    down: float
    across: float


class PlaneDecoder:
    """Memory for one box at a time, of one thread. What it gives is valid until it is used again."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._data = np.empty(0, np.uint8)
        self._chosen = np.empty((3, 0), np.int64)
        self._starts = self._stops = np.empty(0, np.int64)
        self._places = np.empty(0, np.uint32)
        self._coefficients = np.empty(0, np.int16)
        self._words = [np.empty(0, np.int32)] * 3

    def decode(self, data: np.ndarray, tiles: TileMap, row: int, row_end: int, column: int, column_end: int
               ) -> list[Plane] | None:
        """The planes of these rows and columns of MCUs; None for what is not decoded here, or is damaged.

        data: of the tiled JPEG, uint8. Thread-safe but for this object.
        """
        data = data.view()
        data.flags.writeable = False  # or another form of the kernel would be compiled for it
        rows, columns = row_end - row, column_end - column
        if rows * columns * tiles.mcu_height * tiles.mcu_width > MOST_PIXELS or not self._tables.read(tiles.header):
            return None
        count, *factors = self._tables.factors.tolist()
        down, across = ((1,), (1,)) if count == 1 else (factors[0:2 * count:2], factors[1:2 * count:2])
        blocks = np.array([(c, y, x) for c in range(count) for y in range(down[c]) for x in range(across[c])], np.int64)
        components = np.zeros((count, 4), np.int64)
        size = 0
        for c in range(count):
            components[c] = size, columns * across[c], down[c], across[c]
            size += -(-rows * columns * down[c] * across[c] // entropy.LANES) * inverse_dct.GROUP
        if not self._entropy(data, tiles, (row, row_end, column, column_end), blocks, components, size):
            return None
        planes = []
        for c in range(count):
            start, per_row = components[c, :2].tolist()
            number = rows * down[c] * per_row
            self._words[c] = grown(self._words[c], 16 * number)
            inverse_dct.inverse_dct(self._coefficients, start, number, per_row,
                                    self._tables.quantisers[64 * c:64 * c + 64], self._words[c])
            planes.append(Plane(self._words[c].view(np.uint8), 8 * per_row, 8 * rows * down[c],
                                down[c] / max(down), across[c] / max(across)))
        return planes

    def _entropy(self, data: np.ndarray, tiles: TileMap, box: tuple[int, int, int, int], blocks: np.ndarray,
                 components: np.ndarray, size: int) -> bool:
        """Fills the coefficients; whether the data are sound."""
        row, row_end, column, column_end = box
        rows, columns = row_end - row, column_end - column
        room = rows * (-(-columns // tiles.interval) + 1)
        if self._chosen.shape[1] < room:
            self._chosen, self._starts, self._stops = (np.empty(shape, np.int64) for shape in (
                (3, room), room + 1, room))
        count = entropy.choose(row, row_end, column, column_end, tiles.columns, tiles.interval, tiles.offsets,
                               tiles.scan_at, self._chosen)
        nbytes = int((self._chosen[2, :count] - self._chosen[1, :count]).sum())
        self._data = grown(self._data, nbytes + entropy.PAD + 8)
        if entropy.unstuff(data, self._chosen, count, self._data, self._starts) != entropy.OK:
            return False
        self._places = grown(self._places, count * tiles.interval * len(blocks))
        where = np.array([row, column, rows, columns], np.int64)
        entropy.place_blocks(self._chosen, count, tiles.interval, tiles.columns * tiles.rows, tiles.columns, where,
                             blocks, components, size, self._places, self._stops)
        self._coefficients = grown(self._coefficients, size + inverse_dct.GROUP)
        self._coefficients[:size] = 0
        return entropy.decode(self._data, self._starts, self._stops, count, self._places, self._tables.short,
                              self._tables.pairs, self._tables.greatest, self._tables.offsets, self._tables.symbols,
                              entropy.PLACES, self._coefficients) == entropy.OK


def run_all() -> None:
    """Calls every compiled function with arguments of the types that it gets, and nothing to do."""
    tables, none, numbers = Tables(), np.empty(0, np.int64), np.empty((3, 0), np.int64)
    tables.read(b"")
    data = np.empty(0, np.uint8)
    data.flags.writeable = False
    memory, one = np.empty(entropy.PAD + 8, np.uint8), np.zeros(1, np.int64)
    entropy.choose(0, 0, 0, 0, 1, 1, none, 0, numbers)
    entropy.unstuff(data, numbers, 0, memory, one)
    places = np.empty(0, np.uint32)
    entropy.place_blocks(numbers, 0, 1, 1, 1, np.zeros(4, np.int64), np.zeros((1, 3), np.int64),
                         np.zeros((1, 4), np.int64), 0, places, none)
    coefficients = np.zeros(inverse_dct.GROUP, np.int16)
    entropy.decode(memory, one, none, 0, places, tables.short, tables.pairs, tables.greatest, tables.offsets,
                   tables.symbols, entropy.PLACES, coefficients)
    inverse_dct.inverse_dct(coefficients, 0, 1, 1, tables.quantisers[:64], np.empty(16, np.int32))


def grown(array: np.ndarray, size: int) -> np.ndarray:
    """The array, or a new one of this size if it is smaller."""
    return array if len(array) >= size else np.empty(size, array.dtype)
