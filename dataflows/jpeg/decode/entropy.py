"""Decodes the intervals of a tiled JPEG to coefficients, two intervals at a time.

An interval can be decoded by itself, so two are decoded in turns, a step of each, and one's latency hides the other's:
3.8 ns a coefficient instead of 5.2, where libjpeg-turbo takes 6.
"""
import numpy as np

from dataflows.jpeg.compiled import compiled, inlined
from dataflows.jpeg.decode.intrinsics import load, load_bits, lowest_bit, store
from dataflows.jpeg.decode.tables import END_OF_BLOCK, LOOKUP, ZIGZAG, entry

PAD = 64 * 31 // 8 + 24  # bytes behind the data: no block is longer, and a word more is loaded
OK, CORRUPT = 0, 1
LANES = 16  # blocks whose coefficients lie side by side: coefficient n of block j is at j // 16 * 1024 + n * 16 + j % 16
_U = np.uint64
# Where each coefficient goes, by its place in the stream. An end of block goes 64 places on, and its value of 0 to the
# last coefficient, which is 0 still.
PLACES = np.append(ZIGZAG * LANES, np.full(64, 63 * LANES)).astype(np.uint32)
_COMPONENT = 30  # a block's number of its component is above these bits of its place

@compiled
def unstuff(data: np.ndarray, begins: np.ndarray, ends: np.ndarray, out: np.ndarray, starts: np.ndarray) -> int:
    """Copies intervals without the zeros after FF. Interval i is data[begins[i]:ends[i]], and ends with a marker.

    Fills starts[i], int64, with where each starts in `out`, and starts[n] with where the last one ends; PAD zeros
    follow. Returns CORRUPT if one does not end with RSTn or EOI, or has a marker within, else OK.

    Bounds: reads eight bytes from places before ends[i] - 2, hence up to ends[i] + 5, which the caller checks to be in
    `data`; writes eight bytes from places that no more bytes were read for, so `out` needs as many bytes as all
    intervals have, and PAD.
    """
    low, high = _U(0x0101010101010101), _U(0x8080808080808080)
    size = _U(0)
    for i in range(begins.size):
        starts[i] = np.int64(size)
        at, end = _U(begins[i]), _U(ends[i] - 2)
        if begins[i] > ends[i] - 2 or data[ends[i] - 2] != 0xFF:
            return CORRUPT
        marker = data[ends[i] - 1]
        if marker & 0xF8 != 0xD0 and marker != 0xD9:
            return CORRUPT
        while at < end:
            word = load(data, at)
            store(out, size, word)
            other = ~word
            found = (other - low) & ~other & high  # its lowest bit is that of the first FF
            if found == _U(0):
                step = min(_U(8), end - at)
                at += step
                size += step
            else:
                copied = (lowest_bit(found) >> _U(3)) + _U(1)
                if at + copied > end:  # the FF is behind the interval
                    size += end - at
                    at = end
                else:
                    if at + copied == end or data[at + copied] != 0:
                        return CORRUPT
                    at += copied + _U(1)
                    size += copied
    starts[begins.size] = np.int64(size)
    for i in range(PAD):
        out[size + _U(i)] = 0
    return OK


@compiled
def choose(row: int, row_end: int, column: int, column_end: int, columns: int, interval: int, offsets: np.ndarray,
           scan_at: int, chosen: np.ndarray) -> int:
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
def place_blocks(firsts: np.ndarray, interval: int, total: int, columns: int, box: np.ndarray, blocks: np.ndarray,
                 components: np.ndarray, beside: int, places: np.ndarray, stops: np.ndarray) -> None:
    """Says where the coefficients of each block go that is in these intervals, in the order of the stream.

    firsts: the first MCU of each interval, int64, counted over the image. interval, total, columns: MCUs of an
    interval, of the image, of a row. box: (top, left, rows, columns), int64, in MCUs, of what is wanted. blocks: of an
    MCU, int64 (b, 3): component, and (y, x) within its blocks of the MCU. components: int64 (n, 4): where each one's
    coefficients start, how many blocks its rows in the box have, and its sampling factors down and across.
    places: filled, uint32, with component << _COMPONENT | place; `beside`, where nobody looks, of blocks outside of the
    box. stops: filled, int64, with how many blocks there are up to the end of each interval.

    Bounds: `places` has room for `interval` MCUs of each interval, and `stops` for a number of each.
    """
    count = np.int64(0)
    for i in range(firsts.size):
        y = firsts[i] // columns
        x = firsts[i] - y * columns
        for _ in range(min(interval, total - firsts[i])):
            row, column = y - box[0], x - box[1]
            inside = 0 <= row < box[2] and 0 <= column < box[3]
            for b in range(blocks.shape[0]):
                c = blocks[b, 0]
                place = np.int64(beside)
                if inside:
                    block = (row * components[c, 2] + blocks[b, 1]) * components[c, 1] + column * components[c, 3]
                    block += blocks[b, 2]
                    place = components[c, 0] + ((block >> 4) << 10) + (block & 15)
                places[count] = c << _COMPONENT | place
                count += 1
            x += 1
            if x == columns:
                x, y = 0, y + 1
        stops[i] = count


@inlined
def _value(word: int, found: int) -> int:
    """The value behind the code at the start of a word, given the code's entry, as T.81 extends it."""
    word = word << ((found >> _U(8)) & _U(63))
    spare = (found >> _U(16)) & _U(63)
    negative = ~(np.int64(word) >> np.int64(63)) & (np.int64(1) - np.int64((_U(1) << _U(63)) >> spare))
    return np.int64((word >> _U(1)) >> spare) + negative


@compiled
def _long_entry(word: int, table: int, greatest: np.ndarray, offsets: np.ndarray, symbols: np.ndarray) -> int:
    """The entry of a code that is longer than LOOKUP, in table number `table`; 0 if there is none."""
    for length in range(LOOKUP + 1, 17):
        code = np.int64(word >> _U(64 - length))
        if code <= greatest[table * 17 + length]:
            symbol = np.int64(symbols[table * 256 + ((code + offsets[table * 17 + length]) & 255)])
            return _U(entry(symbol, length, table & 1 == 0))
    return _U(0)


@compiled
def decode(data: np.ndarray, starts: np.ndarray, stops: np.ndarray, block_places: np.ndarray, short: np.ndarray,
           greatest: np.ndarray, offsets: np.ndarray, symbols: np.ndarray, places: np.ndarray, coefficients: np.ndarray
           ) -> int:
    """Decodes intervals into `coefficients`, int16, which are zeros before. Returns OK or CORRUPT.

    data, starts: as `unstuff` gives them. stops, block_places: as `place_blocks`. short, greatest, offsets, symbols: as
    tables.Lookups has them. places: PLACES.

    The two streams, a and b, are written out: what a function is given as an array costs a count of its references.

    Bounds: each block starts within its interval, which is checked, and is at most PAD bytes long. Look-ups are indexed
    with the table's number and LOOKUP bits; `places` with at most 63 + 64. Components are below 3.
    """
    shift, seven, three = _U(64 - LOOKUP), _U(7), _U(3)
    taken = _U(0)
    dc_a = dc_b = np.zeros(4, np.int64)
    dc_b = np.zeros(4, np.int64)
    position_a = position_b = base_a = base_b = table_a = table_b = _U(0)
    block_a = block_b = stop_a = stop_b = _U(0)
    end_a = end_b = _U(0)
    k_a = k_b = found_a = found_b = _U(0)
    k_a = k_b = _U(64)
    found_a = found_b = _U(END_OF_BLOCK) << _U(24)
    count = _U(starts.size - 1)
    while True:
        # --- a
        if k_a >= _U(63):
            if (k_a > _U(63) and found_a >> _U(24) != _U(END_OF_BLOCK)) or position_a > end_a:
                return CORRUPT
            if block_a == stop_a:
                if end_a - position_a > seven:
                    return CORRUPT
                if taken == count:
                    break
                position_a, end_a = _U(starts[taken]) << three, _U(starts[taken + _U(1)]) << three
                block_a, stop_a = (_U(stops[taken - _U(1)]) if taken else _U(0)), _U(stops[taken])
                dc_a[:] = 0
                taken += _U(1)
            place = _U(block_places[block_a])
            block_a += _U(1)
            component = place >> _U(_COMPONENT)
            base_a = place & _U((1 << _COMPONENT) - 1)
            table_a = (component << _U(1)) << _U(LOOKUP)
            word = load_bits(data, position_a >> three) << (position_a & seven)
            found_a = _U(short[table_a + (word >> shift)])
            if found_a == _U(0):
                found_a = _U(_long_entry(word, np.int64(component) * 2, greatest, offsets, symbols))
                if found_a == _U(0):
                    return CORRUPT
            dc_a[component] += _value(word, found_a)
            coefficients[base_a] = dc_a[component]
            position_a += found_a & _U(63)
            table_a += _U(1 << LOOKUP)
            k_a = _U(0)
        word = load_bits(data, position_a >> three) << (position_a & seven)
        found_a = _U(short[table_a + (word >> shift)])
        if found_a == _U(0):
            found_a = _U(_long_entry(word, np.int64(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
            if found_a == _U(0):
                return CORRUPT
        k_a += found_a >> _U(24)
        coefficients[base_a + _U(places[k_a])] = _value(word, found_a)
        position_a += found_a & _U(63)
        if k_a < _U(63):
            word <<= found_a & _U(63)
            found_a = _U(short[table_a + (word >> shift)])
            if found_a == _U(0):
                found_a = _U(_long_entry(word, np.int64(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
                if found_a == _U(0):
                    return CORRUPT
            k_a += found_a >> _U(24)
            coefficients[base_a + _U(places[k_a])] = _value(word, found_a)
            position_a += found_a & _U(63)
        # --- b
        if k_b >= _U(63):
            if (k_b > _U(63) and found_b >> _U(24) != _U(END_OF_BLOCK)) or position_b > end_b:
                return CORRUPT
            if block_b == stop_b:
                if end_b - position_b > seven:
                    return CORRUPT
                if taken == count:
                    break
                position_b, end_b = _U(starts[taken]) << three, _U(starts[taken + _U(1)]) << three
                block_b, stop_b = (_U(stops[taken - _U(1)]) if taken else _U(0)), _U(stops[taken])
                dc_b[:] = 0
                taken += _U(1)
            place = _U(block_places[block_b])
            block_b += _U(1)
            component = place >> _U(_COMPONENT)
            base_b = place & _U((1 << _COMPONENT) - 1)
            table_b = (component << _U(1)) << _U(LOOKUP)
            word = load_bits(data, position_b >> three) << (position_b & seven)
            found_b = _U(short[table_b + (word >> shift)])
            if found_b == _U(0):
                found_b = _U(_long_entry(word, np.int64(component) * 2, greatest, offsets, symbols))
                if found_b == _U(0):
                    return CORRUPT
            dc_b[component] += _value(word, found_b)
            coefficients[base_b] = dc_b[component]
            position_b += found_b & _U(63)
            table_b += _U(1 << LOOKUP)
            k_b = _U(0)
        word = load_bits(data, position_b >> three) << (position_b & seven)
        found_b = _U(short[table_b + (word >> shift)])
        if found_b == _U(0):
            found_b = _U(_long_entry(word, np.int64(table_b >> _U(LOOKUP)), greatest, offsets, symbols))
            if found_b == _U(0):
                return CORRUPT
        k_b += found_b >> _U(24)
        coefficients[base_b + _U(places[k_b])] = _value(word, found_b)
        position_b += found_b & _U(63)
        if k_b < _U(63):
            word <<= found_b & _U(63)
            found_b = _U(short[table_b + (word >> shift)])
            if found_b == _U(0):
                found_b = _U(_long_entry(word, np.int64(table_b >> _U(LOOKUP)), greatest, offsets, symbols))
                if found_b == _U(0):
                    return CORRUPT
            k_b += found_b >> _U(24)
            coefficients[base_b + _U(places[k_b])] = _value(word, found_b)
            position_b += found_b & _U(63)
    # --- what is left of the stream that is not at its end
    if block_a == stop_a:
        position_a, end_a, block_a, stop_a, base_a, table_a = position_b, end_b, block_b, stop_b, base_b, table_b
        k_a, found_a, dc_a = k_b, found_b, dc_b
    while True:
        if k_a >= _U(63):
            if (k_a > _U(63) and found_a >> _U(24) != _U(END_OF_BLOCK)) or position_a > end_a:
                return CORRUPT
            if block_a == stop_a:
                if end_a - position_a > seven:
                    return CORRUPT
                if taken == count:
                    return OK
                position_a, end_a = _U(starts[taken]) << three, _U(starts[taken + _U(1)]) << three
                block_a, stop_a = (_U(stops[taken - _U(1)]) if taken else _U(0)), _U(stops[taken])
                dc_a[:] = 0
                taken += _U(1)
            place = _U(block_places[block_a])
            block_a += _U(1)
            component = place >> _U(_COMPONENT)
            base_a = place & _U((1 << _COMPONENT) - 1)
            table_a = (component << _U(1)) << _U(LOOKUP)
            word = load_bits(data, position_a >> three) << (position_a & seven)
            found_a = _U(short[table_a + (word >> shift)])
            if found_a == _U(0):
                found_a = _U(_long_entry(word, np.int64(component) * 2, greatest, offsets, symbols))
                if found_a == _U(0):
                    return CORRUPT
            dc_a[component] += _value(word, found_a)
            coefficients[base_a] = dc_a[component]
            position_a += found_a & _U(63)
            table_a += _U(1 << LOOKUP)
            k_a = _U(0)
        word = load_bits(data, position_a >> three) << (position_a & seven)
        found_a = _U(short[table_a + (word >> shift)])
        if found_a == _U(0):
            found_a = _U(_long_entry(word, np.int64(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
            if found_a == _U(0):
                return CORRUPT
        k_a += found_a >> _U(24)
        coefficients[base_a + _U(places[k_a])] = _value(word, found_a)
        position_a += found_a & _U(63)
        if k_a < _U(63):
            word <<= found_a & _U(63)
            found_a = _U(short[table_a + (word >> shift)])
            if found_a == _U(0):
                found_a = _U(_long_entry(word, np.int64(table_a >> _U(LOOKUP)), greatest, offsets, symbols))
                if found_a == _U(0):
                    return CORRUPT
            k_a += found_a >> _U(24)
            coefficients[base_a + _U(places[k_a])] = _value(word, found_a)
            position_a += found_a & _U(63)
