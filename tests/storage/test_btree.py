"""LMDB's own pages: what liblmdb would follow without a look is refused here, with words."""
import pathlib
import struct

import lmdb
import numpy as np
import pytest

from dataflows.storage.btree import check_tree, locate, read_header
from dataflows.storage.store import Store

PAGE = 4096


@pytest.fixture
def path(tmp_path):
    """An LMDB file of a root, leaves, small values and values on pages of their own."""
    path = str(tmp_path / "a.lmdb")
    with lmdb.open(path, subdir=False, lock=False, map_size=2**24) as env, env.begin(write=True) as txn:
        for number in range(400):
            txn.put(b"%08d" % number, bytes([number % 251]) * (9000 if number % 50 == 0 else 40))
        txn.put(b"__keys__", b"\xdc\x01\x90" + b"".join(b"\xc4\x08%08d" % number for number in range(400)))
    return path


def root_of(path):
    return read_header(path).root


def patch(path, offset, form, *values):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(form, *values))


def patch_headers(path, offset, form, *values):
    for page in (0, 1):
        patch(path, page * PAGE + offset, form, *values)


def test_values_are_where_liblmdb_finds_them(path):
    check_tree(path)
    nbytes, offsets = locate(path)
    content = pathlib.Path(path).read_bytes()
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as env, env.begin() as txn:
        for number, (size, at) in enumerate(zip(nbytes.tolist(), offsets.tolist())):
            assert content[at:at + size] == txn.get(b"%08d" % number)
    assert nbytes.dtype == offsets.dtype == np.int64 and len(nbytes) == 400


@pytest.mark.parametrize(("offset", "form", "value", "words"), [
    (16, "<I", 0xBEEFC0DF, "does not start like a file of LMDB 0.9"),
    (20, "<I", 3, "does not start like a file of LMDB 0.9"),  # LMDB 1.0
    (40, "<I", 0, "pages of 0 bytes"),
    (40, "<I", 4095, "pages of 4095 bytes"),
    (44, "<H", 1, "fixed address"),
    (92, "<H", 4, "options of LMDB"),  # MDB_DUPSORT
    (94, "<H", 33, "contradicts itself"),  # deeper than liblmdb's stack
    (94, "<H", 0, "contradicts itself"),
    (128, "<Q", 2**40, "contradicts itself"),  # the root
    (136, "<Q", 2**40, "truncated")])  # the last page
def test_headers(path, offset, form, value, words):
    patch_headers(path, offset, form, value)
    with pytest.raises(ValueError, match=words):
        Store(path)


def test_headers_that_differ_in_the_size_of_a_page(path):
    patch(path, PAGE + 40, "<I", 8192)
    with pytest.raises(ValueError, match="differ in the size of a page"):
        Store(path)


@pytest.mark.parametrize("child", [2**47, 0, None], ids=["outside", "a header", "the root itself"])
def test_pages_that_a_branch_leads_to(path, child):
    root = root_of(path)
    with open(path, "rb") as file:
        file.seek(root * PAGE + 16)
        place, = struct.unpack("<H", file.read(2))
    number = root if child is None else child
    patch(path, root * PAGE + place, "<HHH", number & 0xFFFF, number >> 16 & 0xFFFF, number >> 32)
    with pytest.raises(ValueError, match="is damaged"):
        Store(path)


def test_nodes_beyond_their_page(path):
    patch(path, root_of(path) * PAGE + 16, "<H", PAGE - 2)
    with pytest.raises(ValueError, match="a node is not within its page"):
        Store(path)


def test_a_number_of_entries_that_is_another(path):
    patch_headers(path, 120, "<Q", 500)
    with pytest.raises(ValueError, match="states 500 entries, and its tree has 401"):
        Store(path)


def test_keys_that_are_no_numbers_are_for_reading_only(tmp_path):
    path = str(tmp_path / "b.lmdb")
    with lmdb.open(path, subdir=False, lock=False, map_size=2**20) as env, env.begin(write=True) as txn:
        txn.put(b"name", b"value")
        txn.put(b"__keys__", b"\x91\xc4\x04name")
    check_tree(path)
    with pytest.raises(ValueError, match="key 00000000 is missing"):
        locate(path)


def test_an_empty_file_of_lmdb(tmp_path):
    path = str(tmp_path / "c.lmdb")
    with lmdb.open(path, subdir=False, lock=False, map_size=2**20) as env, env.begin(write=True) as txn:
        txn.put(b"a", b"b")
        txn.delete(b"a")
    check_tree(path)
    with pytest.raises(ValueError, match="holds nothing"):
        locate(path)
