"""Entropy-coded data and Huffman tables as arrays, which the compiled kernels work on. Importing it imports numba."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dataflows.errors import UnsupportedJPEG
from dataflows.jpeg import kernels
from dataflows.jpeg.header import DHT, DQT, DRI, EOI, SOS, Table


@lru_cache(maxsize=32)  # most encoders write the tables of T.81, annex K
def look_ups(counts: bytes, symbols: bytes) -> np.ndarray:
    """What `kernels.fill` makes of a Huffman table."""
    table = np.empty(kernels.TABLE_SIZE, np.uint16)
    kernels.fill(np.frombuffer(counts, np.uint8), np.frombuffer(symbols, np.uint8), table)
    table.flags.writeable = False
    return table


def code_words(counts: bytes, symbols: bytes) -> dict[int, tuple[int, int]]:
    """{symbol: (code, its length in bits)} of a Huffman table (T.81, annex C)."""
    words, code, symbol = {}, 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        code <<= 1
        for _ in range(count):
            words[next(symbol)] = code, length
            code += 1
    return words


def widen(table: Table, symbols: set[int]) -> Table:
    """`table` with codes for `symbols` too, which leaves all its own codes as they are.

    Optimised tables have codes for the DC categories that occur, not for what the first block of an interval needs. But
    T.81 (C.2) keeps the code of ones free in any table: the new codes, all of one length, go there.
    """
    missing = bytes(sorted(symbols.difference(table.symbols)))
    if not missing:
        return table
    longest = max((i for i, count in enumerate(table.counts) if count), default=0)
    for i in range(longest, 16):
        if len(missing) << (15 - i) < table.free() and table.counts[i] + len(missing) < 256:
            counts = table.counts[:i] + bytes([table.counts[i] + len(missing)]) + table.counts[i + 1:]
            return table._replace(counts=counts, symbols=table.symbols + missing)
    raise UnsupportedJPEG("full Huffman table")


def entropy_data(jpeg: bytes, at: int, intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """The scan that starts at `at` as `scan` wants it: (data, the bit where each of its restart intervals ends)."""
    data = np.empty(len(jpeg) - at + kernels.PAD, np.uint8)
    ends = np.zeros(intervals, np.uint64)
    marker = kernels.unstuff(np.frombuffer(jpeg, np.uint8), at, data, ends)
    if marker != EOI:
        reason = "truncated" if marker == kernels.TRUNCATED else "corrupt entropy data"
        raise UnsupportedJPEG("multi-scan" if marker in (SOS, DHT, DQT, DRI) else reason)
    return data, ends


class Edits(NamedTuple):
    """The edits that `scan` lists and `write` applies, by column; `kernels` says what they mean."""

    stop: np.ndarray  # uint64
    resume: np.ndarray  # uint64
    kind: np.ndarray  # uint8
    value: np.ndarray  # int64


def find_edits(data: np.ndarray, ends: np.ndarray, blocks: list[int], mcus: int, in_interval: int, out_interval: int,
               dc: tuple[Table, ...], ac: tuple[Table, ...]) -> tuple[Edits, np.uint64, list[set[int]]]:
    """Run `scan` with the tables (jpeg.Table) of every component.

    Returns (edits, for `apply_edits`; the bit where the data ends; per component the DC categories that the edits use).
    Raises UnsupportedJPEG if the data is not what the tables and sizes say.
    """
    room = mcus * (1 + len(dc))
    edits = Edits(np.empty(room, np.uint64), np.empty(room, np.uint64), np.empty(room, np.uint8),
                  np.empty(room, np.int64))
    needs = np.zeros(3, np.int64)
    dcs, acs = (tuple(look_ups(table.counts, table.symbols) for table in (tables * 3)[:3])  # three: compiled once
                for tables in (dc, ac))
    status, count, end = kernels.scan(data, ends, np.array(blocks, np.uint8), mcus, in_interval, out_interval, dcs, acs,
                                      *edits, needs)
    if status:
        raise UnsupportedJPEG("corrupt entropy data")
    return (Edits(*(column[:count] for column in edits)), end,
            [{category for category in range(12) if need >> category & 1} for need in needs.tolist()])


def apply_edits(data: np.ndarray, edits: Edits, end: np.uint64, dc: Sequence[Table],
                intervals: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Run `write` with the DC tables of every component:
    (data with markers, length of every interval, padding bits)."""
    codes = np.zeros((3, 16), np.int64)
    code_lengths = np.zeros((3, 16), np.int64)
    for c, table in enumerate(dc):
        for category, (code, length) in code_words(table.counts, table.symbols).items():
            codes[c, category], code_lengths[c, category] = code, length
    count = len(edits.stop)
    out = np.empty(2 * (len(data) + 4 * count) + 4 * intervals + 256, np.uint8)
    lengths = np.empty(intervals, np.int64)
    status, size, pad_bits = kernels.write(data, count, np.uint64(end), *edits, codes, code_lengths, out, lengths)
    assert status == kernels.OK, "`out` has room for the worst case"
    return out[:size], lengths, pad_bits


def blank_block(dc: Table, ac: Table) -> str:
    """The bits, as text, of a block without AC coefficients and with the DC coefficient of the block before."""
    words = [code_words(table.counts, table.symbols)[0] for table in (dc, ac)]
    return "".join(f"{code:0{length}b}" for code, length in words)
