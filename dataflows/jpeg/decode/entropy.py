"""Decodes the intervals of a tiled JPEG to coefficients, two intervals at a time.

An interval can be decoded by itself, so two are decoded in turns, a step of each, and one's latency hides the other's:
3.8 ns a coefficient instead of 5.2, where libjpeg-turbo takes 6.
"""
import numpy as np

from dataflows.jpeg.compiled import Int, compiled, inlined
from dataflows.jpeg.decode.intrinsics import bits_at_ff, load_bits, load_u32, load_u64, lowest_bit, store_i16, store_u64
from dataflows.jpeg.decode.tables import END_OF_BLOCK, LOOKUP, ZIGZAG, Tables, entry

PAD = 64 * 31 // 8 + 24  # bytes behind the data: no block is longer, and a word more is loaded
OK, CORRUPT = 0, 1
LANES = 16  # blocks side by side: coefficient n of block j is at j // 16 * 1024 + n * 16 + j % 16
_U = np.uint64
# How many bytes behind its block's first coefficient each one goes, by its place in the stream. An end of block goes
# 64 places on, and its value of 0 to the last coefficient, which is 0 still.
PLACES = 2 * np.append(ZIGZAG * LANES, np.full(192, 63 * LANES)).astype(np.uint32)
_COMPONENT, _TABLE = 30, 28  # above these bits of a block's place are its component, and the number of its tables
_TOO_FAR = 255  # instead of a coefficient's place


@compiled
def unstuff(data: np.ndarray, chosen: np.ndarray, count: Int, out: np.ndarray, starts: np.ndarray) -> Int:
    """Copies intervals without the zeros after FF, of `count` that `choose` lists.

    Fills starts[i], int64, with where each starts in `out`, and starts[count] with where the last one ends; PAD zeros
    follow. Returns CORRUPT if one does not end with RSTn or EOI, has a marker within, or is not within the data.

    Bounds: eight bytes are read where so many are left of the data, else one; and written where fewer were read, so
    `out` needs as many bytes as all intervals have, and PAD.
    """
    source, target, eight = _U(data.ctypes.data), _U(out.ctypes.data), _U(8)
    size = _U(0)
    for i in range(count):
        starts[i] = np.int64(size)
        begin, stop = chosen[1, i], chosen[2, i] - 2
        if begin < 0 or begin > stop or stop + 2 > data.size or data[stop] != 0xFF:
            return CORRUPT
        marker = data[stop + 1]
        if marker & 0xF8 != 0xD0 and marker != 0xD9:
            return CORRUPT
        at, end = _U(begin), _U(stop)
        while at < end:
            if at + eight <= _U(data.size):
                word = load_u64(source + at)
                store_u64(target + size, word)
                found = bits_at_ff(word)
                copied = (lowest_bit(found) >> _U(3)) + _U(1) if found != _U(0) else eight
            else:
                out[size] = data[at]
                found = _U(data[at] == 0xFF)
                copied = _U(1)
            if at + copied > end:  # the rest is behind the interval
                size += end - at
                at = end
            elif found == _U(0):
                size += copied
                at += copied
            elif at + copied == end or data[at + copied] != 0:
                return CORRUPT
            else:
                size += copied
                at += copied + _U(1)
    starts[count] = np.int64(size)
    for i in range(PAD):
        out[size + _U(i)] = 0
    return OK


@compiled
def choose(row: Int, row_end: Int, column: Int, column_end: Int, columns: Int, interval: Int, offsets: np.ndarray,
           scan_at: Int, chosen: np.ndarray) -> Int:
    """Lists the intervals that have the MCUs of these rows and columns, in their order; returns how many.

    offsets: where each interval starts, from `scan_at` on. chosen: filled, int64 (3, n): the first MCU of each, where
    its data begin, and where they end.

    Bounds: `chosen` has room for as many as a row of the box has MCUs, and one more, in each row.
    """
    count, behind = 0, 0
    for y in range(row, row_end):
        first = max((y * columns + column) // interval, behind)  # intervals may go over the ends of rows
        behind = (y * columns + column_end + interval - 1) // interval
        for number in range(first, behind):
            chosen[0, count] = number * interval
            chosen[1, count] = scan_at + offsets[number]
            chosen[2, count] = scan_at + offsets[number + 1]
            count += 1
    return count


@compiled
def place_blocks(chosen: np.ndarray, count: Int, interval: Int, total: Int, columns: Int, box: np.ndarray,
                 blocks: np.ndarray, components: np.ndarray, beside: Int, places: np.ndarray, stops: np.ndarray
                 ) -> None:
    """Says where the coefficients of each block go that is in these intervals, in the order of the stream.

    chosen, count: as `choose` lists them. interval, total, columns: MCUs of an interval, of the image, of a row.
    box: (top, left, rows, columns), int64, in MCUs, of what is wanted. blocks: of an MCU, int64 (b, 3): component, and
    (y, x) within its blocks of the MCU. components: int64 (n, 5): where each one's coefficients start, how many blocks
    its rows in the box have, its sampling factors down and across, and the number of its tables.
    places: filled, uint32, with component << _COMPONENT | tables << _TABLE | place; `beside`, where nobody looks, of
    blocks outside of the box. stops: filled, int64, with how many blocks there are up to the end of each interval.

    Bounds: `places` has room for `interval` MCUs of each interval, and `stops` for a number of each.
    """
    placed = np.int64(0)
    for i in range(count):
        y = chosen[0, i] // columns
        x = chosen[0, i] - y * columns
        for _ in range(min(interval, total - chosen[0, i])):
            row, column = y - box[0], x - box[1]
            inside = 0 <= row < box[2] and 0 <= column < box[3]
            for b in range(blocks.shape[0]):
                c = blocks[b, 0]
                place = np.int64(beside)
                if inside:
                    block = (row * components[c, 2] + blocks[b, 1]) * components[c, 1] + column * components[c, 3]
                    block += blocks[b, 2]
                    place = components[c, 0] + ((block >> 4) << 10) + (block & 15)
                places[placed] = c << _COMPONENT | components[c, 4] << _TABLE | place
                placed += 1
            x += 1
            if x == columns:
                x, y = 0, y + 1
        stops[i] = placed


@inlined
def value_of(word: _U, found: _U) -> np.int64:
    """The value behind the code at the start of a word, given the code's entry, as T.81 extends it."""
    word = word << (found >> _U(8) & _U(63))
    spare = found >> _U(16) & _U(63)
    negative = ~(np.int64(word) >> np.int64(63)) & (np.int64(1) - np.int64((_U(1) << _U(63)) >> spare))
    return np.int64((word >> _U(1)) >> spare) + negative


@compiled
def long_entry(word: _U, table: Int, greatest: np.ndarray, offsets: np.ndarray, symbols: np.ndarray) -> _U:
    """The entry of a code that is longer than LOOKUP, in table number `table`; 0 if there is none."""
    for length in range(LOOKUP + 1, 17):
        code = np.int64(word >> _U(64 - length))
        if code <= greatest[table * 17 + length]:
            symbol = np.int64(symbols[table * 256 + ((code + offsets[table * 17 + length]) & 255)])
            return _U(entry(symbol, length, table & 1 == 0))
    return _U(0)


@inlined
def peek(data: _U, position: _U) -> _U:
    """64 bits from bit `position` on, of which the first 57 are valid."""
    return load_bits(data + (position >> _U(3))) << (position & _U(7))


@inlined
def _write_pair(pair: _U, k: _U, block: _U, places: _U) -> tuple[_U, _U]:
    """Writes the values of an entry of `pairs`: (the place of the first one, and of the last one)."""
    first = k + (pair >> _U(8) & _U(255))
    store_i16(block + load_u32(places + _U(4) * first), np.int64(pair >> _U(32)))
    last = first + (pair >> _U(16) & _U(255))
    store_i16(block + load_u32(places + _U(4) * last), np.int64(pair >> _U(48)))
    return first, last


@inlined
def _step(position: _U, k: _U, block: _U, table: _U, data: _U, pairs: _U, places: _U) -> tuple[_U, _U, _U]:
    """Up to four AC coefficients that the look-ups of pairs have: (position, place of the last one, the last entry).

    The entry is 0 where the next code is not in them; the place is END_OF_BLOCK or more behind the end of the block, 63
    where the last coefficient was written, and _TOO_FAR for data that go on behind it.
    """
    word = peek(data, position)
    pair = load_u64(pairs + _U(8) * (table + (word >> _U(64 - LOOKUP))))
    if pair == _U(0):
        return position, k, pair
    first, last = _write_pair(pair, k, block, places)
    if last < _U(63):
        position, k = position + (pair & _U(63)), last
        word <<= pair & _U(63)
        pair = load_u64(pairs + _U(8) * (table + (word >> _U(64 - LOOKUP))))
        if pair == _U(0):
            return position, k, pair
        first, last = _write_pair(pair, k, block, places)
        if last < _U(63):
            return position + (pair & _U(63)), last, pair
    if first == _U(63):  # the second symbol is of the next block
        store_i16(block + _U(2 * 63 * LANES), np.int64(pair >> _U(32)))
        return position + (pair >> _U(24) & _U(63)), first, pair
    ends = pair >> _U(8) & _U(255) == _U(END_OF_BLOCK) or pair >> _U(16) & _U(255) == _U(END_OF_BLOCK)
    if first > _U(63) and pair >> _U(8) & _U(255) != _U(END_OF_BLOCK) or last > _U(63) and not ends:
        last = _U(_TOO_FAR)
    return position + (pair & _U(63)), last, pair


@compiled
def decode(data: np.ndarray, starts: np.ndarray, stops: np.ndarray, count: Int, block_places: np.ndarray,
           tables: Tables, coefficients: np.ndarray, places: np.ndarray) -> Int:
    """Decodes `count` intervals into `coefficients`, int16, which are zeros before. Returns OK or CORRUPT.

    data, starts: as `unstuff` gives them. stops, block_places: as `place_blocks`. places: a copy of PLACES.

    Two streams, a and b, take a step each in turns. What is left of the last interval is decoded by itself.

    Bounds: each block starts within its interval, which is checked, and takes at most PAD bytes. Look-ups are indexed
    with a table's number and LOOKUP bits. PLACES has 256 entries, for at most 62 and twice 64. Blocks are where
    `place_blocks` says, and take 1024 coefficients from there.
    """
    short, pairs, greatest, offsets, symbols = tables[:5]
    bits, pairs_at, places_at = _U(data.ctypes.data), _U(pairs.ctypes.data), _U(places.ctypes.data)
    memory = _U(coefficients.ctypes.data)
    dc = np.zeros(8, np.int64)  # four of each stream
    state = np.zeros(8, np.int64)  # of each stream: its next block, its last one, the bit where its interval ends
    taken = 0
    position_a = position_b = block_a = block_b = table_a = table_b = _U(0)
    k_a = k_b = _U(END_OF_BLOCK)
    while True:
        if k_a >= _U(63):
            at = 0
            if k_a == _U(_TOO_FAR) or np.int64(position_a) > state[at + 2]:
                return CORRUPT
            if state[at] == state[at + 1]:
                if state[at + 2] - np.int64(position_a) > 7:
                    return CORRUPT
                if taken == count:
                    break
                state[at] = stops[taken - 1] if taken else 0
                state[at + 1], state[at + 2] = stops[taken], 8 * starts[taken + 1]
                position_a = _U(8 * starts[taken])
                dc[at:at + 4] = 0
                taken += 1
            where = _U(block_places[state[at]])
            state[at] += 1
            component = where >> _U(_COMPONENT)
            block_a = memory + _U(2) * (where & _U((1 << _TABLE) - 1))
            table_a = (where >> _U(_TABLE) & _U(3)) << _U(LOOKUP + 1)
            word = peek(bits, position_a)
            found = _U(short[table_a + (word >> _U(64 - LOOKUP))])
            if found == _U(0):
                found = _U(long_entry(word, int(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
                if found == _U(0):
                    return CORRUPT
            dc[_U(at) + component] += value_of(word, found)
            store_i16(block_a, dc[_U(at) + component])
            position_a, table_a, k_a = position_a + (found & _U(63)), table_a + _U(1 << LOOKUP), _U(0)
        position_a, k_a, pair = _step(position_a, k_a, block_a, table_a, bits, pairs_at, places_at)
        if pair == _U(0):
            word = peek(bits, position_a)
            found = _U(short[table_a + (word >> _U(64 - LOOKUP))])
            if found == _U(0):
                found = _U(long_entry(word, int(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
                if found == _U(0):
                    return CORRUPT
            k_a += found >> _U(24)
            store_i16(block_a + load_u32(places_at + _U(4) * k_a), value_of(word, found))
            position_a += found & _U(63)
            if k_a > _U(63) and found >> _U(24) != _U(END_OF_BLOCK):
                return CORRUPT
        if k_b >= _U(63):
            at = 4
            if k_b == _U(_TOO_FAR) or np.int64(position_b) > state[at + 2]:
                return CORRUPT
            if state[at] == state[at + 1]:
                if state[at + 2] - np.int64(position_b) > 7:
                    return CORRUPT
                if taken == count:
                    break
                state[at] = stops[taken - 1] if taken else 0
                state[at + 1], state[at + 2] = stops[taken], 8 * starts[taken + 1]
                position_b = _U(8 * starts[taken])
                dc[at:at + 4] = 0
                taken += 1
            where = _U(block_places[state[at]])
            state[at] += 1
            component = where >> _U(_COMPONENT)
            block_b = memory + _U(2) * (where & _U((1 << _TABLE) - 1))
            table_b = (where >> _U(_TABLE) & _U(3)) << _U(LOOKUP + 1)
            word = peek(bits, position_b)
            found = _U(short[table_b + (word >> _U(64 - LOOKUP))])
            if found == _U(0):
                found = _U(long_entry(word, int(table_b >> _U(LOOKUP)), greatest, offsets, symbols))
                if found == _U(0):
                    return CORRUPT
            dc[_U(at) + component] += value_of(word, found)
            store_i16(block_b, dc[_U(at) + component])
            position_b, table_b, k_b = position_b + (found & _U(63)), table_b + _U(1 << LOOKUP), _U(0)
        position_b, k_b, pair = _step(position_b, k_b, block_b, table_b, bits, pairs_at, places_at)
        if pair == _U(0):
            word = peek(bits, position_b)
            found = _U(short[table_b + (word >> _U(64 - LOOKUP))])
            if found == _U(0):
                found = _U(long_entry(word, int(table_b >> _U(LOOKUP)), greatest, offsets, symbols))
                if found == _U(0):
                    return CORRUPT
            k_b += found >> _U(24)
            store_i16(block_b + load_u32(places_at + _U(4) * k_b), value_of(word, found))
            position_b += found & _U(63)
            if k_b > _U(63) and found >> _U(24) != _U(END_OF_BLOCK):
                return CORRUPT
    if state[0] == state[1] and k_a >= _U(63):  # a is at its end, and not b
        position_a, block_a, table_a, k_a = position_b, block_b, table_b, k_b
        state[:4], dc[:4] = state[4:], dc[4:]
    while True:
        if k_a >= _U(63):
            at = 0
            if k_a == _U(_TOO_FAR) or np.int64(position_a) > state[at + 2]:
                return CORRUPT
            if state[at] == state[at + 1]:
                if state[at + 2] - np.int64(position_a) > 7:
                    return CORRUPT
                if taken == count:
                    return OK
                state[at] = stops[taken - 1] if taken else 0
                state[at + 1], state[at + 2] = stops[taken], 8 * starts[taken + 1]
                position_a = _U(8 * starts[taken])
                dc[at:at + 4] = 0
                taken += 1
            where = _U(block_places[state[at]])
            state[at] += 1
            component = where >> _U(_COMPONENT)
            block_a = memory + _U(2) * (where & _U((1 << _TABLE) - 1))
            table_a = (where >> _U(_TABLE) & _U(3)) << _U(LOOKUP + 1)
            word = peek(bits, position_a)
            found = _U(short[table_a + (word >> _U(64 - LOOKUP))])
            if found == _U(0):
                found = _U(long_entry(word, int(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
                if found == _U(0):
                    return CORRUPT
            dc[_U(at) + component] += value_of(word, found)
            store_i16(block_a, dc[_U(at) + component])
            position_a, table_a, k_a = position_a + (found & _U(63)), table_a + _U(1 << LOOKUP), _U(0)
        position_a, k_a, pair = _step(position_a, k_a, block_a, table_a, bits, pairs_at, places_at)
        if pair == _U(0):
            word = peek(bits, position_a)
            found = _U(short[table_a + (word >> _U(64 - LOOKUP))])
            if found == _U(0):
                found = _U(long_entry(word, int(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
                if found == _U(0):
                    return CORRUPT
            k_a += found >> _U(24)
            store_i16(block_a + load_u32(places_at + _U(4) * k_a), value_of(word, found))
            position_a += found & _U(63)
            if k_a > _U(63) and found >> _U(24) != _U(END_OF_BLOCK):
                return CORRUPT
