"""Tells whether a tiled JPEG has the coefficients of the JPEG that it was made of, without keeping any.

Of what makes tiled JPEGs nothing is used here, but what loaders decode them by: header, list, look-ups.
"""
import numpy as np

from dataflows.jpeg.compiled import Int, compiled, inlined
from dataflows.jpeg.decode.entropy import PAD, long_entry, peek, unstuff, value_of
from dataflows.jpeg.decode.intrinsics import bits_at_ff, load_u32, load_u64, lowest_bit
from dataflows.jpeg.decode.tables import LOOKUP, MOST_BLOCKS, OK, Tables, empty_tables, read_header
from dataflows.jpeg.decode.tiling import Tiling, read_offsets, read_tiling

_U = np.uint64


@compiled
def same_coefficients(jpeg: np.ndarray, header: Int, height: Int, width: Int, tiled: np.ndarray) -> bool:
    """Whether `tiled` is a tiled JPEG of the size, sampling factors, quantisers, kind of colors and coefficients of
    `jpeg`, whose header has so many bytes, up to the end of SOS, and states this size. Both uint8.

    False also for what is not decoded here: see `read_header`; and with restart markers in `jpeg`.

    Bounds: `read_header`, `read_tiling`, `read_offsets` and `unstuff` state theirs.
    """
    tiling = read_tiling(tiled)
    if height == 0 or tiling.height != height or tiling.width != width or header < 2 or header > jpeg.size:
        return False
    offsets = read_offsets(tiled, tiling)
    if offsets.size == 0:
        return False
    theirs, ours = empty_tables(), empty_tables()
    if (read_header(jpeg, np.int64(2), np.int64(2), header, theirs) != OK
            or read_header(tiled, tiling.front, tiling.core, tiling.scan, ours) != OK
            or (ours.factors != theirs.factors).any() or (ours.quantisers != theirs.quantisers).any()):
        return False
    for c in range(ours.factors[0]):
        for kind in range(2):
            if not _extends(2 * ours.table_of[c] + kind, ours, 2 * theirs.table_of[c] + kind, theirs):
                return False
    chosen = np.empty((3, tiling.intervals), np.int64)
    chosen[0, 0], chosen[1, 0], chosen[2, 0] = 0, header, _end_of_scan(jpeg, header)
    data, starts = np.empty(chosen[2, 0] - header + PAD, np.uint8), np.empty(tiling.intervals + 1, np.int64)
    if unstuff(jpeg, chosen, np.int64(1), data, starts) != OK:
        return False
    end = starts[1]
    for i in range(tiling.intervals):
        chosen[0, i] = i * tiling.interval
        chosen[1, i], chosen[2, i] = tiling.scan + offsets[i], tiling.scan + offsets[i + 1]
        if i < tiling.intervals - 1 and tiled[chosen[2, i] - 1] != 0xD0 + i % 8:
            return False
    copy = np.empty(offsets[tiling.intervals] + PAD, np.uint8)
    if unstuff(tiled, chosen, tiling.intervals, copy, starts) != OK:
        return False
    return _same_streams(data, end, theirs, copy, starts, ours, tiling, np.empty(6 << LOOKUP, np.uint32))


@compiled
def _end_of_scan(jpeg: np.ndarray, at: Int) -> Int:
    """Behind the first marker from `at` on, or the end of the data.

    Bounds: eight bytes are read where so many are left, else one.
    """
    data, size, place = _U(jpeg.ctypes.data), _U(jpeg.size), _U(at)
    while place + _U(1) < size:
        if place + _U(8) <= size:
            found = bits_at_ff(load_u64(data + place))
            if found == _U(0):
                place += _U(8)
                continue
            place += lowest_bit(found) >> _U(3)
        if jpeg[place] == 0xFF and place + _U(1) < size and jpeg[place + _U(1)] != 0:
            return np.int64(place) + 2
        place += _U(1)
    return np.int64(jpeg.size)


@compiled
def _extends(number: Int, ours: Tables, other: Int, theirs: Tables) -> bool:
    """Whether a Huffman table has each code of another one, for the same symbol, and further ones only behind these."""
    longest, codes = 0, 0
    for length in range(1, 17):
        greatest = theirs.greatest[other * 17 + length]
        if greatest >= 0:
            longest, codes = length, greatest + theirs.offsets[other * 17 + length] + 1
    for length in range(1, longest + 1):
        one, two = number * 17 + length, other * 17 + length
        more = ours.greatest[one] - theirs.greatest[two]
        if more < 0 or more > 0 and length < longest:
            return False
        if theirs.greatest[two] >= 0 and ours.offsets[one] != theirs.offsets[two]:
            return False
    for i in range(codes):
        if ours.symbols[number * 256 + i] != theirs.symbols[other * 256 + i]:
            return False
    return True


@inlined
def _short(word: _U, row: _U, short: _U) -> _U:
    """The entry of the next code, in a row of look-ups; 0 where it has none."""
    return load_u32(short + _U(4) * (row + (word >> _U(64 - LOOKUP))))


@compiled
def _fill_several(row: Int, short: np.ndarray, several: np.ndarray) -> None:
    """Fills the row of `several` of an AC table from that of `short`: for the next LOOKUP bits, of as many symbols as
    have their codes in these, bits << 8 | coefficients that they go on by, with 64 more for the end of a block; 0 where
    not even the first one has."""
    for index in range(1 << LOOKUP):
        bits, coefficients = np.int64(0), np.int64(0)
        while bits < LOOKUP and coefficients < 63:
            found = np.int64(short[row + (index << bits & ((1 << LOOKUP) - 1))])
            skip = found >> 24
            if found == 0 or bits + (found >> 8 & 255) > LOOKUP or coefficients + (skip & 63) > 63:
                break
            bits += found & 63
            coefficients += skip
        several[row + index] = bits << 8 | coefficients


@compiled
def _same_streams(data: np.ndarray, end: Int, theirs: Tables, copy: np.ndarray, starts: np.ndarray, ours: Tables,
                  tiling: Tiling, several: np.ndarray) -> bool:
    """Whether all blocks are the same: of `data`, by the tables `theirs`, up to byte `end`; and of `copy`, by `ours`,
    where intervals start at `starts`. Both have the same factors, and PAD bytes more than their data. Codes of `theirs`
    mean the same in `ours`: so of AC coefficients, which do not depend on others, it is the bits that are compared.

    Bounds: each block starts at or before the end of its interval, in both streams, which is checked, and takes at most
    PAD bytes. Look-ups are indexed with a table's number and LOOKUP bits.
    """
    short, _, greatest, offsets, symbols, _, factors, table_of = theirs
    short_b, _, greatest_b, offsets_b, symbols_b, _, _, table_of_b = ours
    components, count = np.empty(MOST_BLOCKS, np.int64), np.int64(0)  # of each block of an MCU
    for c in range(factors[0]):
        for _ in range(factors[1 + 2 * c] * factors[2 + 2 * c]):
            components[count] = c
            count += 1
    a, b = _U(data.ctypes.data), _U(copy.ctypes.data)
    short_at, short_b_at = _U(short.ctypes.data), _U(short_b.ctypes.data)
    for c in range(factors[0]):
        if c == 0 or table_of[c] != table_of[c - 1]:
            _fill_several((2 * table_of[c] + 1) << LOOKUP, short, several)
    several_at = _U(several.ctypes.data)
    dc_a, dc_b = np.zeros(3, np.int64), np.zeros(3, np.int64)
    at_a, at_b, end_a, end_b = _U(0), _U(0), _U(8 * end), _U(0)
    for mcu in range(tiling.columns * tiling.rows):
        if mcu % tiling.interval == 0:
            if end_b - at_b > _U(7):
                return False
            number = mcu // tiling.interval
            at_b, end_b = _U(8 * starts[number]), _U(8 * starts[number + 1])
            dc_b[:] = 0
        for block in range(count):
            c = components[block]
            table, table_b = 2 * table_of[c], 2 * table_of_b[c]
            row = _U(table) << _U(LOOKUP)
            word_a, word_b = peek(a, at_a), peek(b, at_b)
            found = _short(word_a, row, short_at)
            if found == _U(0):
                found = _U(long_entry(word_a, table, greatest, offsets, symbols))
            found_b = _short(word_b, _U(table_b) << _U(LOOKUP), short_b_at)
            if found_b == _U(0):
                found_b = _U(long_entry(word_b, table_b, greatest_b, offsets_b, symbols_b))
            if found == _U(0) or found_b == _U(0):
                return False
            dc_a[c] += value_of(word_a, found)
            dc_b[c] += value_of(word_b, found_b)
            if dc_a[c] != dc_b[c]:
                return False
            at_a, at_b = at_a + (found & _U(63)), at_b + (found_b & _U(63))
            row, k = row + _U(1 << LOOKUP), _U(0)
            while k < _U(63):
                word_a, word_b = peek(a, at_a), peek(b, at_b)
                found = load_u32(several_at + _U(4) * (row + (word_a >> _U(64 - LOOKUP))))
                bits, skip = found >> _U(8), found & _U(127)
                if found == _U(0) or k + (found & _U(63)) > _U(62):
                    found = _short(word_a, row, short_at)
                    if found == _U(0):
                        found = _U(long_entry(word_a, table + 1, greatest, offsets, symbols))
                    bits, skip = found & _U(63), found >> _U(24)
                    if found == _U(0) or k + (skip & _U(63)) > _U(63):
                        return False
                else:
                    k += skip
                    found = load_u32(several_at + _U(4) * (row + (word_a << bits >> _U(64 - LOOKUP))))
                    skip = _U(0)
                    if k < _U(63) and found != _U(0) and k + (found & _U(63)) < _U(63):
                        bits, skip = bits + (found >> _U(8)), found & _U(127)
                if (word_a ^ word_b) >> (_U(64) - bits) != _U(0):
                    return False
                k += skip
                at_a, at_b = at_a + bits, at_b + bits
            if at_a > end_a or at_b > end_b:
                return False
    return bool(end_a - at_a <= _U(7) and end_b - at_b <= _U(7))
