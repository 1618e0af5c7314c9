"""What decoding a tiled JPEG needs of its header: Huffman look-ups, quantisers, sampling factors.

Many JPEGs have Huffman tables of their own, so they are read and built by one kernel: 20 us an image, where the parser
of header.py and arrays of numpy take 250.

A Huffman table has two rows of look-ups for the next LOOKUP bits of the stream. An entry of `short`, uint32, is four
numbers of bits, each of which the decoder shifts by:

    bits 24-31   coefficients that the symbol goes on by; END_OF_BLOCK for the end of a block, 0 for DC
    bits 16-23   63 less the size of the value that follows the code
    bits 8-15    length of the code
    bits 0-7     length of code and value

and is 0 where the code is longer, or none. Longer codes are found by the greatest one of each length, as T.81 (F.16)
does it. An entry of `pairs`, uint64, for AC, is one symbol or two whose codes and values are all in these bits:

    bits 48-63   value of the second symbol; where there is none, that of the first again
    bits 32-47   value of the first
    bits 24-31   length of the first, code and value
    bits 16-23   coefficients that the second goes on by; 0 where there is none
    bits 8-15    coefficients that the first goes on by
    bits 0-7     length of all

and 0 where not even the first is in them.
"""
from typing import Any, NamedTuple

import numpy as np

from dataflows.jpeg.compiled import Int, compiled

LOOKUP = 10  # bits: 4 KB a table. With 11, tables and coefficients are in each other's way in the first-level cache
END_OF_BLOCK = 64  # coefficients
MOST_BLOCKS = 10  # of an MCU (T.81, B.2.3)
OK, UNSUPPORTED = 0, 1
_LARGEST_DC, _LARGEST_AC = 11, 10  # sizes of values in 8-bit JPEGs (T.81, F.1.2): so two symbols are at most 52 bits
ZIGZAG = np.array([  # the place in rows of 8 of each coefficient in the order of the stream
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63])


class Tables(NamedTuple):
    """Those of one JPEG, as `read_header` fills them. Huffman tables come in pairs: AC, number 2 * n + 1, behind DC.
    Components that have the same pair share its look-ups, so that these fit into the first-level cache.

    short: uint32 (6 * 2**LOOKUP,). pairs: uint64, the same, of AC only. greatest, offsets: int32 (6 * 17,): the
    greatest code of each length, -1 for none, and what to add to a code for its symbol's place. symbols: uint8
    (6 * 256,). quantisers: int32 (3 * 64,), in rows of 8. factors: int64 (7,): the number of components; then of each,
    down and across. table_of: int64 (3,): which pair each has.
    """

    short: np.ndarray
    pairs: np.ndarray
    greatest: np.ndarray
    offsets: np.ndarray
    symbols: np.ndarray
    quantisers: np.ndarray
    factors: np.ndarray
    table_of: np.ndarray


@compiled
def empty_tables() -> Tables:
    """Memory for the tables of one JPEG after the other."""
    return Tables(np.zeros(6 << LOOKUP, np.uint32), np.zeros(6 << LOOKUP, np.uint64), np.zeros(6 * 17, np.int32),
                  np.zeros(6 * 17, np.int32), np.zeros(6 * 256, np.uint8), np.zeros(3 * 64, np.int32),
                  np.zeros(7, np.int64), np.zeros(3, np.int64))


@compiled
def entry(symbol: Any, length: Int, is_dc: bool) -> Any:
    """The entry of a symbol whose code has this length."""
    size, run = symbol & 15, symbol >> 4
    skip = END_OF_BLOCK if size == 0 and run != 15 else run + 1
    return (0 if is_dc else skip) << 24 | (63 - size) << 16 | length << 8 | (length + size)


@compiled
def read_header(data: np.ndarray, front: Int, core: Int, end_of_header: Int, tables: Tables) -> Int:
    """Fills the tables from the segments in front of `front`, from the SOI on, and from those of core .. end_of_header,
    the last of which is SOS; returns OK, or UNSUPPORTED for what is no 8-bit JPEG of one or three components in one
    scan.

    Bounds: each segment is checked to be in front of `end_of_header` before it is read, and each table to be within its
    segment. 2 <= front <= core <= end_of_header <= data.size, which the caller has checked.
    """
    short, pairs, greatest, offsets, symbols, quantisers, factors, table_of = tables
    tables_at = np.full(8, -1, np.int64)  # of Huffman: where their 16 counts are, DC's four and AC's
    quantisers_at = np.full(4, -1, np.int64)
    single = np.empty(1 << LOOKUP, np.uint32)
    jfif = other_colors = False  # libjpeg takes colors for YCbCr by JFIF, else by Adobe's mark, else by their names
    frame: Any = np.int64(-1)
    at: Any = np.int64(2)
    while True:
        if at == front:
            at = np.int64(core)
        if at + 4 > end_of_header or data[at] != 0xFF:
            return UNSUPPORTED
        marker, end = data[at + 1], at + 2 + (np.int64(data[at + 2]) << 8 | data[at + 3])
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if end > end_of_header or end < at + 4 or marker == 0xCC:
            return UNSUPPORTED
        if marker == 0xDB:
            place = at + 4
            while place < end:
                if data[place] > 3 or place + 65 > end:
                    return UNSUPPORTED
                quantisers_at[data[place]] = place + 1
                place += 65
        elif marker == 0xC4:
            place = at + 4
            while place < end:
                if data[place] & 0xEC or place + 17 > end:
                    return UNSUPPORTED
                used = np.int64(0)
                for i in range(16):
                    used += np.int64(data[place + 1 + i])
                if used > 256 or place + 17 + used > end:
                    return UNSUPPORTED
                which = np.int64(data[place])
                tables_at[(which >> 4) * 4 + (which & 3)] = place + 1
                place += 17 + used
        elif marker == 0xC0 or marker == 0xC1:
            if frame >= 0 or end < at + 10 or data[at + 4] != 8 or end != at + 10 + 3 * np.int64(data[at + 9]):
                return UNSUPPORTED
            frame = at
        elif 0xC0 <= marker <= 0xCF:
            return UNSUPPORTED
        elif marker == 0xE0 and end >= at + 18:
            jfif = jfif or (data[at + 4] == 0x4A and data[at + 5] == 0x46 and data[at + 6] == 0x49
                            and data[at + 7] == 0x46 and data[at + 8] == 0)
        elif marker == 0xEE and end >= at + 16 and data[at + 4] == 0x41 and data[at + 5] == 0x64:  # "Ad"obe
            other_colors = data[at + 15] != 1
        elif marker == 0xDA:
            break
        at = end
    if frame < 0:
        return UNSUPPORTED
    count = np.int64(data[frame + 9])
    if (count != 1 and count != 3) or end != at + 8 + 2 * count or data[at + 4] != count:
        return UNSUPPORTED
    if data[end - 3] != 0 or data[end - 2] != 63 or data[end - 1] != 0:
        return UNSUPPORTED
    names_rgb = data[frame + 10] == 0x52 and count == 3 and data[frame + 13] == 0x47 and data[frame + 16] == 0x42
    if count == 3 and not jfif and (other_colors or names_rgb):
        return UNSUPPORTED
    factors[0] = count
    blocks: Any = np.int64(0)
    for c in range(count):
        place, uses = frame + 10 + 3 * c, np.int64(data[at + 6 + 2 * c])
        if data[place] != data[at + 5 + 2 * c] or data[place + 2] > 3 or uses & 0xCC:
            return UNSUPPORTED
        factors[1 + 2 * c], factors[2 + 2 * c] = data[place + 1] & 15, data[place + 1] >> 4
        if count == 1:  # its blocks come one by one, whatever these say (T.81, A.2.2)
            factors[1] = factors[2] = 1
        blocks += factors[1 + 2 * c] * factors[2 + 2 * c]
        if not (1 <= factors[1 + 2 * c] <= 4 and 1 <= factors[2 + 2 * c] <= 4 and blocks <= MOST_BLOCKS):
            return UNSUPPORTED
        quantiser = quantisers_at[data[place + 2]]
        if quantiser < 0:
            return UNSUPPORTED
        for i in range(64):
            quantisers[64 * c + ZIGZAG[i]] = data[quantiser + i]
        table_of[c] = c
        if c > 0 and uses == data[at + 4 + 2 * c]:
            table_of[c] = table_of[c - 1]
            continue
        for kind in range(2):
            table: Any = tables_at[(uses >> 4 if kind == 0 else uses & 15) + 4 * kind]
            if table < 0 or not _fill(data, table, 2 * c + kind, short, greatest, offsets, symbols):
                return UNSUPPORTED
        _fill_pairs(2 * c + 1, short, single, pairs)
    return OK


@compiled
def _fill_pairs(number: Int, short: np.ndarray, single: np.ndarray, pairs: np.ndarray) -> None:
    """Fills the row of `pairs` of an AC table from that of `short`. single: memory for 1 << LOOKUP entries."""
    row, mask = number << LOOKUP, (1 << LOOKUP) - 1
    for bits in range(1 << LOOKUP):
        found = np.int64(short[row + bits])
        length = found & 63
        size = length - (found >> 8 & 63)
        if found == 0 or length > LOOKUP:
            single[bits] = 0
            continue
        value = bits >> (LOOKUP - length) & ((1 << size) - 1)
        if size > 0 and value >> (size - 1) == 0:
            value -= (1 << size) - 1
        single[bits] = length | (found >> 24) << 8 | (value & 0xFFFF) << 16
    for bits in range(1 << LOOKUP):
        one = np.int64(single[bits])
        length, skip, value = one & 255, one >> 8 & 255, one >> 16
        two = np.int64(single[bits << length & mask])
        entry = length | skip << 8 | length << 24 | value << 32 | value << 48
        if two != 0 and skip != END_OF_BLOCK and (two & 255) + length <= LOOKUP:
            entry = (length + (two & 255) | skip << 8 | (two >> 8 & 255) << 16 | length << 24 | value << 32
                     | two >> 16 << 48)
        pairs[row + bits] = np.uint64(entry) if one != 0 else np.uint64(0)


@compiled
def _fill(data: np.ndarray, at: Any, number: Any, short: np.ndarray, greatest: np.ndarray, offsets: np.ndarray,
          symbols: np.ndarray) -> bool:
    """Fills table `number` from the 16 counts at data[at] and the symbols behind; whether it is one of 8-bit data.

    Bounds: the counts add up to 256 at most, which lie within the data; codes are checked to fit their lengths.
    """
    is_dc, largest = number & 1 == 0, _LARGEST_DC if number & 1 == 0 else _LARGEST_AC
    row, code, index = number << LOOKUP, 0, 0
    filled = row
    for length in range(1, 17):
        count = np.int64(data[at + length - 1])
        greatest[number * 17 + length] = code + count - 1 if count else -1
        offsets[number * 17 + length] = index - code
        if code + count > 1 << length:
            return False
        for _ in range(count):
            symbol = np.int64(data[at + 16 + index])
            if symbol & 15 > largest or (is_dc and symbol > 15):
                return False
            symbols[number * 256 + index] = symbol
            if length <= LOOKUP:
                what = entry(symbol, length, is_dc)
                stop = filled + (1 << (LOOKUP - length))
                for place in range(filled, stop):
                    short[place] = what
                filled = stop
            code += 1
            index += 1
        code <<= 1
    for place in range(filled, row + (1 << LOOKUP)):
        short[place] = 0
    return True
