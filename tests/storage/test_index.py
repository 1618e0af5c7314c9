"""The sidecar index: its table, and the refusal of what is not one."""
import json
import mmap
import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from dataflows.mapped_arrays import seal as seal_archive
from dataflows.mapped_arrays import write_arrays
from dataflows.storage.index import VERSION, Index, index_path, load_index, write_index
from dataflows.storage.index_meta import IndexMeta

META = {"format": "jpeg", "split": "val", "classes": ["a", "b"], "file_size": 100, "rest_crc32": 7, "seed": None,
        "skipped": [], "options": {}}


def make_index(count=3, **meta):
    return Index(label=np.arange(count) % 2, height=np.arange(count) + 100, width=np.arange(count) + 200,
                 nbytes=np.arange(count) + 2**33, offset=np.arange(count) * 2**40, crc32=2**32 - 1 - np.arange(count),
                 name=np.array([f"a/{i}é.JPEG".encode() for i in range(count)], "S20"),
                 meta=IndexMeta.from_dict(META | meta))


def save_index(index, path):
    os.replace(write_index(index, path), index_path(path))


@pytest.fixture
def lmdb(tmp_path):
    path = tmp_path / "val.lmdb"
    path.write_bytes(bytes(100))
    return str(path)


@pytest.fixture
def saved(lmdb):
    save_index(make_index(), lmdb)
    return lmdb


def arrays_of(path):
    with np.load(index_path(path)) as archive:
        return dict(archive)


def rewrite(path, **changes):
    arrays = {name: array for name, array in (arrays_of(path) | changes).items() if array is not None}
    np.savez(index_path(path), **arrays)
    seal(path)


def seal(path):
    """Makes the checksum at the end that of the content, so that only the content is wrong."""
    with open(index_path(path), "rb+") as file:
        seal_archive(file)


def with_meta(path, **changes):
    meta = json.loads(arrays_of(path)["meta"].tobytes()) | changes
    rewrite(path, meta=as_bytes({name: value for name, value in meta.items() if value is not ...}))


def as_bytes(meta):
    return np.frombuffer(json.dumps(meta).encode(), np.uint8)


def test_it_lies_beside_the_lmdb():
    assert index_path("x/train.lmdb") == "x/train.lmdb.index.npz" == index_path("x/train.lmdb/")


def test_names_of_classes(lmdb):
    save_index(make_index(3, class_names=["tench, Tinca tinca", "weißer Hai"]), lmdb)
    assert load_index(lmdb, lmdb).class_names == ["tench, Tinca tinca", "weißer Hai"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_round_trip(lmdb, count):
    index = make_index(count)
    save_index(index, lmdb)
    found = load_index(lmdb, lmdb)
    assert found.count == count and found.classes == found.class_names == ["a", "b"]  # no names in META
    assert found.written_meta() == META | {"version": VERSION, "count": count}
    for name in ("label", "height", "width", "nbytes", "offset", "crc32", "name"):
        assert getattr(found, name).tolist() == getattr(index, name).tolist()


def test_its_table_is_fixed(saved):
    types = {name: array.dtype.str for name, array in arrays_of(saved).items()}
    assert types == {"label": "<i4", "height": "<i4", "width": "<i4", "nbytes": "<i8", "offset": "<i8", "crc32": "<u4",
                     "name": "|S20", "meta": "|u1"}
    with np.load(index_path(saved), allow_pickle=False) as archive:
        assert json.loads(archive["meta"].tobytes())["version"] == 2


def base(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return getattr(array, "obj", array)  # of a memoryview


def test_its_columns_are_views_of_the_file_that_processes_share(saved):
    shared = [load_index(saved, saved), load_index(saved, saved, copied=True)]
    for index, kind in zip(shared, (mmap.mmap, bytes)):
        for name in ("label", "height", "width", "nbytes", "offset", "crc32", "name"):
            column = getattr(index, name)
            assert isinstance(base(column), kind) and not column.flags.writeable
            assert kind is bytes or column.ctypes.data % 64 == 0
            assert column.tolist() == getattr(shared[0], name).tolist()


def test_without_a_map_it_is_read(saved, monkeypatch):
    def refused(*_, **__):
        raise OSError(19, "No such device")

    monkeypatch.setattr("mmap.mmap", refused)
    assert isinstance(base(load_index(saved, saved).label), bytes)


def test_deflated_arrays_are_read(saved):
    arrays = arrays_of(saved)
    np.savez_compressed(index_path(saved), **arrays)
    seal(saved)
    index = load_index(saved, saved)
    assert all(getattr(index, name).tolist() == array.tolist() for name, array in arrays.items() if name != "meta")


def test_no_index_is_none(lmdb):
    assert load_index(lmdb, lmdb) is None


def write(content):
    def damage(path):
        with open(index_path(path), "wb") as file:
            file.write(content)
    return damage


def cut(length):
    def damage(path):
        with open(index_path(path), "rb+") as file:
            file.truncate(length)
    return damage


def write_array(path):
    with open(index_path(path), "wb") as file:
        np.save(file, np.arange(3))


def write_archive(path):
    with zipfile.ZipFile(index_path(path), "w") as archive:
        archive.writestr("label.npy", b"not an array")
        archive.writestr("meta.npy", b"")


def claim(name, header):
    """An archive in which one array is a header without data."""
    def damage(path):
        arrays = arrays_of(path)
        with zipfile.ZipFile(index_path(path), "w") as archive:
            for other, array in arrays.items():
                with archive.open(f"{other}.npy", "w") as file:
                    if other == name:
                        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
                    else:
                        np.lib.format.write_array(file, array)
        seal(path)
    return damage


OBJECTS = np.array([{"a": 1}] * 3, object)

def meta(**changes):
    return lambda path: with_meta(path, **changes)


def arrays(**changes):
    return lambda path: rewrite(path, **changes)


DAMAGES = {
    "empty": write(b""), "text": write(b"hello"), "zeros": write(bytes(1000)), "a pickle": write(pickle.dumps([1, 2])),
    "half": cut(500), "a byte": cut(1), "an array": write_array, "a foreign archive": write_archive,
    "a huge array": claim("label", b"{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000000,), }\n"),
    "an array without data": claim("label", b"{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }\n"),
    "a header of code": claim("label", b"{'descr': '<i4', 'fortran_order': False, 'shape': (print(1),), }\n"),
    "another version": meta(version=VERSION + 1), "no version": meta(version=...),
    "no file size": meta(file_size=...), "no checksum of the rest": meta(rest_crc32=...),
    "file size as text": meta(file_size="100"), "null": meta(file_size=None),
    "no classes": meta(classes=...), "no count": meta(count=...), "another count": meta(count=4),
    "a list": arrays(meta=as_bytes([1, 2])), "a number": arrays(meta=as_bytes(5)),
    "no JSON": arrays(meta=np.frombuffer(b"{", np.uint8)),
    "no UTF-8": arrays(meta=np.frombuffer(b'{"a": "\xff"}', np.uint8)),
    "deep JSON": arrays(meta=np.frombuffer(b"[" * 100_000, np.uint8)),
    "no meta": arrays(meta=None), "no offsets": arrays(offset=None),
    "objects": arrays(name=OBJECTS), "an object as meta": arrays(meta=OBJECTS),
    "longer": arrays(label=np.zeros(4, "<i4")), "two dimensions": arrays(label=np.zeros((3, 1), "<i4")),
    "one label": arrays(label=np.array(3, "<i4")), "floats": arrays(label=np.zeros(3)),
    "wide labels": arrays(label=np.zeros(3, "<i8")), "text names": arrays(name=np.array(["a"] * 3)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_an_index_is_refused_with_file_and_remedy(saved, damage):
    damage(saved)
    with pytest.raises(ValueError, match=f"{re.escape(index_path(saved))} .*Remove it to read the LMDB"):
        load_index(saved, saved)


def test_a_flipped_bit_anywhere_is_refused(saved):
    with open(index_path(saved), "rb") as file:
        content = file.read()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        write(damaged)(saved)
        with pytest.raises(ValueError, match="Remove it"):
            load_index(saved, saved)


def test_a_folder_in_its_place(lmdb, tmp_path):
    (tmp_path / "val.lmdb.index.npz").mkdir()
    with pytest.raises(ValueError, match="Remove it"):
        load_index(lmdb, lmdb)


def test_the_index_of_a_file_of_another_size(saved):
    with open(saved, "ab") as file:
        file.write(b"x")
    os.utime(index_path(saved), (1, 1))  # by hand: a file system may count its times in steps
    with pytest.raises(ValueError, match=r"another file: it states 100 bytes and .*val.lmdb has 101; "
                                         r"the LMDB is the newer one.* Remove it"):
        load_index(saved, saved)
    os.utime(index_path(saved))
    with pytest.raises(ValueError, match=r"has 101; the index is the newer one.* Remove it"):
        load_index(saved, saved)


def test_an_error_while_saving_leaves_the_old_index_and_no_other_file(saved, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with pytest.raises(TypeError):
        save_index(make_index(seed=object()), saved)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_index(make_index(1), saved)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_saving_replaces_in_one_step(saved, tmp_path):
    with open(index_path(saved), "rb") as reader:
        save_index(make_index(1), saved)
        assert np.load(reader)["label"].tolist() == [0, 1, 0]
    assert load_index(saved, saved).count == 1
    assert {path.name for path in tmp_path.iterdir()} == {"val.lmdb", "val.lmdb.index.npz"}


def test_an_interrupt_while_a_member_is_opened_stays_one(tmp_path, monkeypatch):
    """zipfile refuses to close an archive with an open member, and would say that instead."""
    real, kept = zipfile.ZipFile.open, []

    def interrupted(self, *args, **options):
        kept.append(real(self, *args, **options))  # as the interrupt's traceback keeps it
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "open", interrupted)
    with open(tmp_path / "a.npz", "wb+") as file, pytest.raises(KeyboardInterrupt):
        write_arrays(file, {"a": np.arange(9)})
