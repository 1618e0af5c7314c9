"""Moves the restart markers of entropy-coded JPEG data without decoding coefficients. numba compiles it on first use.

For a photo of 156 KB, on one core: `unstuff` 0.15 ms, `scan` 0.7 ms, `write` 0.25 ms; decoding it takes 2.4 ms.

Two passes, both without the GIL. `scan` walks the codes to find where every block starts: of an AC coefficient it needs
the length, not the value, and an 11-bit look-up steps over two of them on average. It writes a list of edits, which
`write` applies while it copies all bits in between, 48 at a time. An edit is (`stop`, `resume`, `kind`, `value`): copy
up to bit `stop`, then

    kind     do                                                            then go on at bit `resume`, which is
    0, 1, 2  write `value` as a DC difference of component `kind`          past the old DC difference
    JUMP     nothing: a restart marker of the input goes                   where its next interval starts
    RESTART  fill the byte with ones, write RSTn, note the length          where the next block starts

Bounds. `scan` reads the input only through `_peek`, at bits below `ends[-1]` + MAX_BLOCK_BITS: it looks at the position
after every block, and no block can be longer; PAD bytes follow the data. Tables are indexed with 16 or LOOKUP bits of a
word. `write` reads between positions that `scan` found, and checks the room left for the worst case (every byte
stuffed) before it copies.
"""

import numpy as np

from dataflows.jpeg.compiled import compiled

JUMP, RESTART = 8, 9
LOOKUP = 11
MAX_BLOCK_BITS = 64 * 31  # 63 AC and one DC coefficient, each a code of 16 bits and 15 more
PAD = MAX_BLOCK_BITS // 8 + 16
OK, CORRUPT, DC_RANGE, NO_ROOM = 0, 1, 2, 3
TRUNCATED, BAD_MARKER = 0, 1  # what `unstuff` returns instead of a marker
Tables = tuple[np.ndarray, ...]  # of each component
_U8, _U64 = np.uint64(8), np.uint64(64)
_BYTE, _ONES, _LOWS, _HIGHS = (np.uint64(word) for word in (0xFF, 0x010101010101, 0x7F7F7F7F7F7F, 0x808080808080))


@compiled
def fill(counts: np.ndarray, symbols: np.ndarray, single: np.ndarray, multi: np.ndarray) -> None:
    """Fill the look-up tables of a Huffman table; `huffman.lookups` says how they are laid out."""
    index = used = 0
    for i in range(16):
        for _ in range(counts[i]):
            step = 1 << (15 - i)
            single[used:used + step] = (i + 1) << 8 | symbols[index]
            index += 1
            used += step
    single[used:] = 0
    for index in range(multi.size):
        bits, coefficients, end = np.int64(0), np.int64(0), 0
        while bits < LOOKUP and not end:
            entry = np.int64(single[((index << bits) & ((1 << LOOKUP) - 1)) << (16 - LOOKUP)])
            length, run, size = entry >> 8, entry >> 4 & 15, entry & 15
            if length == 0 or bits + length > LOOKUP or coefficients + run + 1 > 63:
                break
            bits += length + size
            end = int(size == 0 and run != 15)
            coefficients += 0 if end else run + 1
        multi[index] = bits << 8 | coefficients << 1 | end


@compiled
def unstuff(jpeg: np.ndarray, at: int, out: np.ndarray, ends: np.ndarray) -> int:
    """Copy the scan that starts at jpeg[at] to `out` without stuffed zeros, fill bytes and markers,
    and PAD zeros after it.

    ends: filled with the bit where each interval ends. Returns the marker that ends the scan (its second byte), or
    TRUNCATED, or BAD_MARKER if the restart markers before are not those of ends.size intervals.
    """
    size, count = 0, 0
    while at < jpeg.size:
        byte = jpeg[at]
        at += 1
        if byte == 0xFF:
            while at < jpeg.size and jpeg[at] == 0xFF:  # fill bytes (T.81, B.1.1.2)
                at += 1
            if at == jpeg.size:
                return TRUNCATED
            marker = jpeg[at]
            at += 1
            if marker != 0:
                ends[count] = 8 * size
                count += 1
                if marker & 0xF8 != 0xD0 or count == ends.size or marker & 7 != (count - 1) & 7:
                    out[size:size + PAD] = 0
                    return marker if count == ends.size else BAD_MARKER
                continue
        out[size] = byte
        size += 1
    return TRUNCATED


@compiled
def _peek(src: np.ndarray, pos: np.uint64) -> np.uint64:
    """64 bits from bit `pos` on, of which the first 57 are valid."""
    i = pos >> np.uint64(3)
    word = np.uint64(0)
    for j in range(8):
        word = word << _U8 | np.uint64(src[i + np.uint64(j)])
    return word << (pos & np.uint64(7))


@compiled
def _skip_ac(src: np.ndarray, pos: np.uint64, single: np.ndarray, multi: np.ndarray) -> np.uint64:
    """The position after the AC coefficients that start at bit `pos`; 0 if they are corrupt."""
    k = np.int64(1)
    while k < 64:
        word = _peek(src, pos)
        for _ in range(2):  # 57 bits are two look-ups: none takes more than LOOKUP + 15
            entry = np.int64(multi[word >> np.uint64(64 - LOOKUP)])
            step = entry >> 1 & 127
            if entry == 0 or k + step > 63:
                break
            pos += np.uint64(entry >> 8)
            word <<= np.uint64(entry >> 8)
            k += step
            if entry & 1:
                return pos
        else:
            continue
        entry = np.int64(single[word >> np.uint64(48)])
        if entry == 0:
            return np.uint64(0)
        pos += np.uint64((entry >> 8) + (entry & 15))
        if entry & 15 == 0 and entry >> 4 & 15 != 15:
            return pos
        k += (entry >> 4 & 15) + 1
    return pos if k == 64 else np.uint64(0)


@compiled
def scan(src: np.ndarray, ends: np.ndarray, blocks: np.ndarray, mcus: int, in_interval: int, out_interval: int,
         dcs: Tables, singles: Tables, multis: Tables, stop: np.ndarray, resume: np.ndarray, kind: np.ndarray,
         value: np.ndarray, needs: np.ndarray) -> tuple[int, int, np.uint64]:
    """List the edits that turn restart intervals of `in_interval` MCUs into such of `out_interval`.

    src: the data, unstuffed, without markers, PAD at its end.
    ends[j]: the bit where input interval j ends, in whole bytes.
    blocks: the component of every block of an MCU. mcus: their number. dcs, singles, multis: look-ups per component.
    Fills stop, resume, kind, value, of mcus * (1 + components) entries, and the bit masks needs[component] of the DC
    categories that the edits use. Returns (status, number of edits, the bit where the data ends).
    """
    pos, last, edits, interval, status = np.uint64(0), np.uint64(0), 0, 0, OK
    end = ends[0]
    seen = np.zeros(3, np.int64)  # the DC predictions of the input
    sent = np.zeros(3, np.int64)  # those of the output
    for mcu in range(mcus):
        jump = mcu > 0 and mcu % in_interval == 0
        if jump:
            interval += 1
            pos, end = ends[interval - 1], ends[interval]
            seen[:] = 0
        if mcu > 0 and mcu % out_interval == 0:
            stop[edits], resume[edits], kind[edits] = last, pos, RESTART
            edits += 1
            sent[:] = 0
        elif jump:
            stop[edits], resume[edits], kind[edits] = last, pos, JUMP
            edits += 1
        for block in range(blocks.size):
            c = np.int64(blocks[block])
            word = _peek(src, pos)
            entry = np.int64(dcs[c][word >> np.uint64(48)])
            length, size = entry >> 8, entry & 15
            if length == 0:
                return CORRUPT, edits, pos
            old = np.int64(0)
            if size > 0:
                old = np.int64((word << np.uint64(length)) >> np.uint64(64 - size))
                if old >> (size - 1) == 0:
                    old -= (1 << size) - 1
            after = pos + np.uint64(length + size)
            seen[c] += old
            new = seen[c] - sent[c]
            sent[c] = seen[c]
            if new != old:
                category = 0
                while category < 12 and abs(new) >> category:
                    category += 1
                if category > 11:  # 8-bit data has no such difference (T.81, F.1.2.1)
                    status = DC_RANGE
                needs[c] |= 1 << category
                stop[edits], resume[edits], kind[edits], value[edits] = pos, after, c, new
                edits += 1
            pos = _skip_ac(src, after, singles[c], multis[c])
            if pos == 0 or pos > end:
                return CORRUPT, edits, pos
            last = pos
    return status, edits, last


@compiled
def _put(out: np.ndarray, at: int, acc: np.uint64, count: int) -> tuple[int, int]:
    """Write the whole bytes among the last `count` bits of `acc`, stuffing a zero after each FF."""
    while count >= 8:
        count -= 8
        byte = (acc >> np.uint64(count)) & _BYTE
        out[at] = byte
        at += 1
        if byte == _BYTE:
            out[at] = 0
            at += 1
    return at, count


@compiled
def write(src: np.ndarray, edits: int, end: np.uint64, stop: np.ndarray, resume: np.ndarray, kind: np.ndarray,
          value: np.ndarray, codes: np.ndarray, code_lengths: np.ndarray, out: np.ndarray, lengths: np.ndarray
          ) -> tuple[int, int, int]:
    """Apply the edits and end with EOI. lengths[i]: bytes of interval i with its marker. Returns (status, bytes, pad).

    codes, code_lengths: [component, category] of the DC tables. pad: ones (0 .. 7) that fill the last byte before EOI.
    """
    at, count, acc, cursor = 0, 0, np.uint64(0), np.uint64(0)
    interval, begin = 0, 0
    for edit in range(edits + 1):
        upto = stop[edit] if edit < edits else end
        if at + 2 * np.int64((upto - cursor) >> np.uint64(3)) + 64 > out.size:
            return NO_ROOM, at, 0
        while cursor < upto:
            take = min(upto - cursor, np.uint64(48))
            acc = acc << take | _peek(src, cursor) >> (_U64 - take)
            cursor += take
            six = acc >> np.uint64(count)
            if take == 48 and ((six & _LOWS) + _ONES) & six & _HIGHS == 0:  # none of the six bytes is FF
                for j in range(6):
                    out[at + j] = (six >> np.uint64(40 - 8 * j)) & _BYTE
                at += 6
            else:
                at, count = _put(out, at, acc, count + int(np.int64(take)))  # int() alone stays unsigned
        what = kind[edit] if edit < edits else RESTART
        if what < JUMP:
            new, category = value[edit], 0
            while category < 12 and abs(new) >> category:
                category += 1
            if new < 0:
                new += (1 << category) - 1
            acc = (acc << np.uint64(code_lengths[what, category]) | np.uint64(codes[what, category]))
            acc = acc << np.uint64(category) | np.uint64(new)
            at, count = _put(out, at, acc, count + code_lengths[what, category] + category)
        elif what == RESTART:
            pad = -count & 7
            acc = acc << np.uint64(pad) | np.uint64((1 << pad) - 1)
            at, count = _put(out, at, acc, count + pad)
            out[at] = 0xFF
            out[at + 1] = 0xD0 + interval % 8 if edit < edits else 0xD9
            at += 2
            lengths[interval] = at - begin
            interval += 1
            begin = at
        if edit < edits:
            cursor = resume[edit]
    return OK, at, pad
