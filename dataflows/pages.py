"""Where the values of an LMDB file are, read from its pages: LMDB's map would bring all of them into memory to tell.

The format of LMDB 0.9 on a 64-bit little-endian machine, as far as it matters here (offsets in bytes):

    page        0 u64 number    10 u16 kind: 1 branch, 2 leaf, 4 overflow, 8 meta    12 u16 end of the list of nodes
               16 u16[]         where each node starts, in the order of the keys
    node        0 u16[3] low, high, flags    6 u16 bytes of the key    8 the key, then the value
                branch: low, high and flags are the number of a page; leaf: low and high are the bytes of the value,
                and with flag 1 the value is on overflow pages, whose first number (u64) is in its place
    meta        pages 0 and 1, of which the one with the greater transaction holds:
               16 u32 magic     20 u32 version, 1    40 u32 bytes of a page    120 u64 entries    128 u64 root page
              136 u64 last page used                144 u64 transaction
"""
import os
import struct
from typing import BinaryIO, Iterator, NamedTuple

import numpy as np

from dataflows.store import KEYS

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = 16
_BRANCH, _LEAF = 1, 2
_NO_PAGE = 2**64 - 1


class Meta(NamedTuple):
    """The state of an LMDB file after its last transaction."""

    transaction: int
    page_bytes: int
    entries: int  # the list of keys included
    root: int  # page number
    size: int  # of the used part, in bytes


def read_meta(path: str) -> Meta:
    """The last complete state of an LMDB file. Raises ValueError if it is no such file, or shorter than it states."""
    with open(path, "rb") as file:
        head = file.read(_HEADER + 136)
        metas = [_parse_meta(head)]
        if metas[0] is not None:
            file.seek(metas[0].page_bytes)
            metas.append(_parse_meta(file.read(_HEADER + 136)))
    known = [meta for meta in metas if meta is not None]
    if len(known) != 2:
        raise ValueError(f"{path} is not an LMDB file of format 0.9. Dump it again")
    meta = max(known)
    if os.path.getsize(path) < meta.size:
        raise ValueError(f"{path} is truncated: it has {os.path.getsize(path):,} bytes and LMDB's header states "
                         f"{meta.size:,}. Copy it again, or dump it again")
    return meta


def _parse_meta(page: bytes) -> Meta | None:
    if len(page) < 152:
        return None
    magic, version = struct.unpack_from("<II", page, 16)
    page_bytes, = struct.unpack_from("<I", page, 40)
    entries, root, last, transaction = struct.unpack_from("<4Q", page, 120)
    if (magic, version) != (_MAGIC, _VERSION) or page_bytes < 512:
        return None
    return Meta(transaction, page_bytes, entries, root, (last + 1) * page_bytes)


def locate(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(nbytes, offset), int64, of each value whose key is its number in 8 digits or more, as dumps name records.

    Reads the pages between the values only. Raises ValueError where the tree or its keys are not as a dump makes them.
    """
    meta = read_meta(path)
    count = max(0, meta.entries - 1)
    nbytes, offsets = np.zeros(count, np.int64), np.zeros(count, np.int64)
    with open(path, "rb") as file:
        found = 0
        for number, (key, size, offset) in enumerate(_values(file, meta, meta.root)):
            expected = KEYS if number == count else b"%08d" % number
            if key != expected or not 0 <= offset <= meta.size - size:
                raise ValueError(f"{path}: in place of key {expected.decode()} there is {key!r}, of {size:,} bytes at "
                                 f"{offset:,}")
            if number < count:
                nbytes[number], offsets[number] = size, offset
            found += 1
    if found != meta.entries:
        raise ValueError(f"{path}: its header states {meta.entries:,} entries and its pages hold {found:,}")
    return nbytes, offsets


def _values(file: BinaryIO, meta: Meta, number: int) -> Iterator[tuple[bytes, int, int]]:
    """(key, bytes, offset) of each value below a page, in the order of the keys."""
    if number == _NO_PAGE:
        return
    start = number * meta.page_bytes
    file.seek(start)
    page = file.read(meta.page_bytes)
    own, kind, end = struct.unpack_from("<QxxHH", page)
    if own != number or kind & 3 not in (_BRANCH, _LEAF) or not _HEADER <= end <= meta.page_bytes:
        raise ValueError(f"{file.name}: page {number} is damaged")
    for at in struct.unpack_from(f"<{(end - _HEADER) // 2}H", page, _HEADER):
        low, high, flags, key_bytes = struct.unpack_from("<4H", page, at)
        data = at + 8 + key_bytes
        if kind & _BRANCH:
            yield from _values(file, meta, low | high << 16 | flags << 32)
        elif flags & 1:
            first, = struct.unpack_from("<Q", page, data)
            yield page[at + 8:data], low | high << 16, first * meta.page_bytes + _HEADER
        else:
            yield page[at + 8:data], low | high << 16, start + data
