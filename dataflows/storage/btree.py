"""The pages of an LMDB file: checks them before liblmdb follows them, and finds where values are.

liblmdb trusts a file: it follows numbers of pages and places in them without a look at the file's size, so a damaged or
hostile one ends the process by SIGBUS, or has it read what is not the file's. Here every number is compared with the
file first. Values are not looked at: only pages of the tree are read, some MB for a million records. So they also tell
where the values are, for which liblmdb would bring a page of each into memory.

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
import os
import struct
from typing import BinaryIO, Callable, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataflows.system import advise, naming

KEYS = b"__keys__"  # tensorpack's list of keys: the one entry that is not a record
_META = struct.Struct("<16xIIQQIHHQQQQQIHHQQQQQQQ")
_MAGIC, _VERSION, _EMPTY = 0xBEEFC0DE, 1, 2**64 - 1
_BRANCH, _LEAF, _ELSEWHERE, _FIXED_MAP = 1, 2, 1, 1
_HEADER = 16
_DEEPEST = 32  # liblmdb's limit
_LARGEST_PAGE = 512 << 7
LONGEST_HEADER = _LARGEST_PAGE + _META.size  # where the second meta page's is read to its end


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
    with naming(path), open(path, "rb") as file:
        def read(start: int, nbytes: int) -> bytes:
            file.seek(start)
            return file.read(nbytes)

        return parse_header(path, read, os.fstat(file.fileno()).st_size)


def parse_header(path: str, read: Callable[[int, int], bytes], actual: int) -> Tree:
    """The same of a file of `actual` bytes, whose first LONGEST_HEADER bytes can be read: read(start, nbytes)."""
    first = read(0, _META.size)
    page_bytes = _page_bytes(path, first, actual)
    second = read(page_bytes, _META.size)
    if _page_bytes(path, second, actual) != page_bytes:
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


def _page_bytes(path: str, meta: bytes, actual: int) -> int:
    if len(meta) < _META.size:
        raise ValueError(f"{path} cannot be read as an LMDB file: it has {actual:,} bytes, which is shorter than "
                         f"LMDB's header. Copy it again, write one with dump_imagenet.py, or check the path")
    magic, version, _, _, page_bytes, flags, *_ = _META.unpack(meta)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(f"{path} cannot be read as an LMDB file: it does not start like a file of LMDB 0.9. Write one "
                         f"with dump_imagenet.py, or check the path")
    if page_bytes not in (512 << i for i in range(8)) or flags & _FIXED_MAP:
        raise _damaged(path, f"its header states pages of {page_bytes} bytes, or a fixed address")
    return int(page_bytes)


def _damaged(path: str, what: str) -> ValueError:
    return ValueError(f"{path} is damaged: {what}. Copy it again, or write it again")


def check_tree(path: str) -> None:
    """Raises ValueError unless every page and value that the main tree of an LMDB file leads to is within the file."""
    _read_leaves(path)


def locate(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(nbytes, offset), int64, of each value whose key is its number in 8 digits, as dumps name records.

    Raises ValueError where the tree or its keys are not as a dump makes them.
    """
    leaves = _read_leaves(path)
    if not leaves:
        raise _damaged(path, "it holds nothing")
    keys = np.concatenate([leaf.keys for leaf in leaves])
    count = len(keys) - 1
    digits = np.arange(count)[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")
    wrong = np.flatnonzero((keys[:count] != digits).any(axis=1))
    if len(wrong):
        raise _damaged(path, f"key {wrong[0]:08d} is missing, and another is in its place")
    if keys[count].tobytes() != KEYS:
        raise _damaged(path, "it has no list of its keys")
    nbytes, offsets = (np.concatenate(column)[:count] for column in ([leaf.nbytes for leaf in leaves],
                                                                     [leaf.offsets for leaf in leaves]))
    return nbytes, offsets


class _Leaf(NamedTuple):
    """The entries of one page, in the order of their keys."""

    keys: np.ndarray  # uint8 (entries, 8): their first 8 bytes, or zeros where a key has another length
    nbytes: np.ndarray  # int64 (entries,), of each value
    offsets: np.ndarray  # int64 (entries,): where in the file it is


def _read_leaves(path: str) -> list[_Leaf]:
    """The leaves of the main tree, in the order of their keys, from the root down, each page once."""
    tree = read_header(path)
    if tree.root == _EMPTY:
        return []
    with naming(path), open(path, "rb", buffering=0) as file:
        advise(file.fileno(), 0, 0, "RANDOM")
        try:
            leaves = _descend(file, tree)
        except ValueError as error:
            raise _damaged(path, str(error)) from error
    entries = sum(len(leaf.nbytes) for leaf in leaves)
    if entries != tree.entries:
        raise _damaged(path, f"its header states {tree.entries:,} entries, and its tree has {entries:,}")
    return leaves


def _descend(file: BinaryIO, tree: Tree) -> list[_Leaf]:
    seen = np.zeros(tree.pages, bool)
    level = np.array([tree.root], np.uint64)
    for depth in range(1, tree.depth + 1):
        if (level >= tree.pages).any() or seen[level].any() or len(np.unique(level)) != len(level):
            raise ValueError("a page is outside of it, or has two places in its tree")
        seen[level] = True
        if depth < tree.depth:
            level = np.concatenate([_read_branch(_nodes(file, tree, number, _BRANCH)) for number in level.tolist()])
    return [_read_leaf(_nodes(file, tree, number, _LEAF), tree) for number in level.tolist()]


class _Nodes(NamedTuple):
    """A page of the tree. Each array has an entry for each of its nodes: int64, but for the numbers."""

    page: np.ndarray  # uint8
    number: int  # of the page
    numbers: NDArray[np.uint64]  # the first 4 bytes of the node
    flags: np.ndarray
    keys: np.ndarray  # where in the page the key starts
    ends: np.ndarray  # and where it ends


def _nodes(file: BinaryIO, tree: Tree, number: int, kind: int) -> _Nodes:
    file.seek(number * tree.page_bytes)
    page = file.read(tree.page_bytes)
    if len(page) != tree.page_bytes:
        raise ValueError("a page of its tree cannot be read")
    flags, lower, upper = struct.unpack_from("<HHH", page, 10)
    if flags != kind or not _HEADER < lower <= upper <= len(page) or lower % 2:
        raise ValueError("a page of its tree is none")
    words = np.frombuffer(page, "<u2")
    places = words[_HEADER // 2:lower // 2].astype(np.int64)
    if (places < upper).any() or (places % 2).any() or (places + 8 > len(page)).any():
        raise ValueError("a node is not within its page")
    low, high, node_flags, key_bytes = (words[places // 2 + i].astype(np.int64) for i in range(4))
    ends = places + 8 + key_bytes
    if (ends > len(page)).any():
        raise ValueError("a key is not within its page")
    return _Nodes(np.frombuffer(page, np.uint8), number, (low | high << 16).astype(np.uint64), node_flags, places + 8,
                  ends)


def _read_branch(nodes: _Nodes) -> NDArray[np.uint64]:
    """The numbers of the pages below it."""
    return nodes.numbers | nodes.flags.astype(np.uint64) << np.uint64(32)


def _read_leaf(nodes: _Nodes, tree: Tree) -> _Leaf:
    nbytes, key_bytes = nodes.numbers.astype(np.int64), nodes.ends - nodes.keys
    if (nodes.flags > _ELSEWHERE).any() or not key_bytes.all():
        raise ValueError("an entry has no key, or a value that is a tree of its own")
    elsewhere = nodes.flags == _ELSEWHERE
    if (nodes.ends + np.where(elsewhere, 8, nbytes) > tree.page_bytes).any():
        raise ValueError("an entry is not within its page")
    offsets = nodes.number * tree.page_bytes + nodes.ends
    starts = _eight_bytes(nodes.page, nodes.ends[elsewhere]).view("<u8")[:, 0]
    if (starts >= tree.pages).any():
        raise ValueError("a value is not within it")
    offsets[elsewhere] = starts.astype(np.int64) * tree.page_bytes + _HEADER
    if (offsets + nbytes > tree.nbytes).any():
        raise ValueError("a value is not within it")
    keys = np.zeros((len(nbytes), 8), np.uint8)
    usual = key_bytes == 8
    keys[usual] = _eight_bytes(nodes.page, nodes.keys[usual])
    return _Leaf(keys, nbytes, offsets)


def _eight_bytes(page: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The 8 bytes at each of these places of a page: uint8 (len(places), 8)."""
    return np.ascontiguousarray(page[places[:, None] + np.arange(8)])
