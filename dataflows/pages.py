"""The pages of an LMDB file, checked before liblmdb follows them.

liblmdb trusts a file: it follows numbers of pages and places in them without a look at the file's size, so a damaged or
hostile one ends the process by SIGBUS, or has it read what is not the file's. Here every number is compared with the
file first. Values are not looked at: only pages of the tree are read, some MB for a million records.

LMDB 0.9, on machines of 64 bits, little-endian. The file is a row of pages of one size:

    page      number 8; 2 unused; flags 2 (1 branch, 2 leaf, 8 meta); end of its table 2, start of its nodes 2; the
              table: where in the page each node is, 2 each
    meta      pages 0 and 1, of which the one with the higher transaction is valid: the page's first 16 bytes; magic 4;
              version 4; address 8; size of the map 8; free tree 48; main tree 48; last page 8; transaction 8
    tree      page size 4 (the free tree's is the file's); flags 2; depth 2; branch, leaf and overflow pages 8 each;
              entries 8; root 8, all ones if the tree is empty
    node      bytes of the value 4; flags 2 (1: the value is elsewhere); bytes of the key 2; key; value, or the number 8
              of the page behind whose first 16 bytes the value is. Of a branch: the first 6 bytes are a page's number
"""
import mmap
import os
import struct
from typing import NamedTuple

import numpy as np

_META = struct.Struct("<16xIIQQIHHQQQQQIHHQQQQQQQ")
_MAGIC, _VERSION, _EMPTY = 0xBEEFC0DE, 1, 2**64 - 1
_BRANCH, _LEAF, _ELSEWHERE, _FIXED_MAP = 1, 2, 1, 1
_HEADER = 16
_DEEPEST = 32  # liblmdb's limit


class Tree(NamedTuple):
    """The main tree of a file, as its valid meta page has it, and the file's pages."""

    page_bytes: int
    pages: int  # in use
    depth: int
    entries: int
    root: int

    @property
    def nbytes(self) -> int:
        """Bytes of the file that are in use."""
        return self.page_bytes * self.pages


def read_header(path: str) -> Tree:
    """The main tree of an LMDB file. Raises ValueError if its first two pages are not what liblmdb can rely on."""
    with open(path, "rb") as file:
        first = file.read(_META.size)
        page_bytes = _page_bytes(path, first)
        file.seek(page_bytes)
        second = file.read(_META.size)
        actual = os.fstat(file.fileno()).st_size
    if _page_bytes(path, second) != page_bytes:
        raise _damaged(path, "its two headers differ in the size of a page")
    *_, flags, depth, _, _, _, entries, root, last, _ = max(map(_META.unpack, (first, second)),
                                                            key=lambda meta: meta[-1])
    tree = Tree(page_bytes, last + 1, depth, entries, root)
    if actual < tree.nbytes:
        raise ValueError(f"{path} is truncated: it has {actual:,} bytes and LMDB's header states {tree.nbytes:,}. Copy "
                         f"it again, or dump it again")
    if flags:
        raise ValueError(f"{path} was written with options of LMDB (duplicate or integer keys) that no file of images "
                         f"has. Write it with dump_imagenet.py, or with tensorpack's LMDBSerializer.save")
    if last < 1 or depth > _DEEPEST or (root == _EMPTY) != (depth == 0) or root != _EMPTY and root > last:
        raise _damaged(path, "its header contradicts itself")
    return tree


def _page_bytes(path: str, meta: bytes) -> int:
    if len(meta) < _META.size:
        raise ValueError(f"{path} cannot be read as an LMDB file: it is shorter than LMDB's header. Write one with "
                         f"dump_imagenet.py, or check the path")
    magic, version, _, _, page_bytes, flags, *_ = _META.unpack(meta)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(f"{path} cannot be read as an LMDB file: it does not start as one of LMDB 0.9 does. Write one "
                         f"with dump_imagenet.py, or check the path")
    if page_bytes not in (512 << i for i in range(8)) or flags & _FIXED_MAP:
        raise _damaged(path, f"its header states pages of {page_bytes} bytes, or a fixed address")
    return int(page_bytes)


def _damaged(path: str, what: str) -> ValueError:
    return ValueError(f"{path} is damaged: {what}. Copy it again, or write it again")


def check_tree(path: str) -> None:
    """Raises ValueError unless every page and value that the main tree of an LMDB file leads to is within the file."""
    tree = read_header(path)
    if tree.root == _EMPTY:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), tree.nbytes, access=mmap.ACCESS_READ) as content:
        if hasattr(mmap, "MADV_RANDOM"):
            content.madvise(mmap.MADV_RANDOM)
        try:
            entries = _check_levels(tree, content)
        except ValueError as error:
            raise _damaged(path, str(error)) from error
    if entries != tree.entries:
        raise _damaged(path, f"its header states {tree.entries:,} entries, and its tree has {entries:,}")


def _check_levels(tree: Tree, content: mmap.mmap) -> int:
    """The number of entries, after going through the tree from the root to its leaves, each page once."""
    seen = np.zeros(tree.pages, bool)
    level, entries = np.array([tree.root], np.uint64), 0
    for depth in range(1, tree.depth + 1):
        if (level >= tree.pages).any() or seen[level].any() or len(np.unique(level)) != len(level):
            raise ValueError("a page is outside of it, or has two places in its tree")
        seen[level] = True
        leaf = depth == tree.depth
        below = [_check_page(content[number * tree.page_bytes:(number + 1) * tree.page_bytes], leaf, tree)
                 for number in level.tolist()]
        entries = sum(map(len, below))
        level = np.concatenate(below)
    return entries


def _check_page(page: bytes, leaf: bool, tree: Tree) -> np.ndarray:
    """Of a branch, the numbers of the pages below it; of a leaf, as many numbers as it has entries."""
    flags, lower, upper = struct.unpack_from("<HHH", page, 10)
    if flags != (_LEAF if leaf else _BRANCH) or not _HEADER < lower <= upper <= len(page) or lower % 2:
        raise ValueError("a page of its tree is none")
    words = np.frombuffer(page, "<u2")
    places = words[_HEADER // 2:lower // 2].astype(np.int64)
    if (places < upper).any() or (places % 2).any() or (places + 8 > len(page)).any():
        raise ValueError("a node is not within its page")
    low, high, node_flags, key_bytes = (words[places // 2 + i].astype(np.uint64) for i in range(4))
    ends = places.astype(np.uint64) + np.uint64(8) + key_bytes
    numbers = low | high << np.uint64(16)
    if not leaf:
        if (ends > len(page)).any():
            raise ValueError("a key is not within its page")
        return numbers | node_flags << np.uint64(32)
    if (node_flags > _ELSEWHERE).any() or not key_bytes.all():
        raise ValueError("an entry has no key, or a value that is a tree of its own")
    elsewhere = node_flags == _ELSEWHERE
    if (ends + np.where(elsewhere, np.uint64(8), numbers) > len(page)).any():
        raise ValueError("an entry is not within its page")
    _check_values(page, ends[elsewhere], numbers[elsewhere], tree)
    return numbers


def _check_values(page: bytes, places: np.ndarray, nbytes: np.ndarray, tree: Tree) -> None:
    octets = np.frombuffer(page, np.uint8)[places[:, None].astype(np.int64) + np.arange(8)]
    starts = np.ascontiguousarray(octets).view("<u8")[:, 0]
    if (starts >= tree.pages).any() or (starts * np.uint64(tree.page_bytes) + nbytes + np.uint64(_HEADER)
                                        > tree.nbytes).any():
        raise ValueError("a value is not within it")
