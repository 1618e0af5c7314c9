"""The meta object of an index: as it is written, as it is read, and what is said of its parts."""
import dataclasses
import os

import pytest

from dataflows.storage.index_meta import IndexMeta
from helpers.lmdb_files import change_meta
from uint_lmdb_loader import LMDBLoader

NEEDED = {"classes": ["n1", "n2"], "file_size": 8192, "rest_crc32": 7}
ALL = NEEDED | {
    "format": "jpeg", "split": "train", "seed": 0, "class_names": ["tench", "shark"], "layout": "folders",
    "left_out": {".gif": 1}, "options": {"tiles": True, "max_side": None}, "tools": {"numpy": "2.0"},
    "untiled": {"progressive": 1}, "skipped": [{"name": "a.jpg", "reason": "broken", "since": 3}],
    "findings": {"grayscale": [0, 4]}, "duplicates": [[1, 2]], "class_counts": ["few"]}


def test_all_parts_are_written_as_they_were_read():
    meta = IndexMeta.from_dict(ALL)
    assert meta.to_dict(2, 5) == ALL | {"version": 2, "count": 5} and meta.wrong_part(5) is None
    assert {field.name for field in dataclasses.fields(IndexMeta)} == {*ALL, "missing"}
    assert IndexMeta(**ALL) == meta and list(IndexMeta(**ALL).to_dict(2, 5)) == list(meta.to_dict(2, 5))


def test_parts_that_are_missing_have_defaults_and_are_not_written():
    meta = IndexMeta.from_dict(NEEDED | {"of a newer version": 1})
    assert meta.to_dict(2, 0) == NEEDED | {"version": 2, "count": 0} and meta.wrong_part(0) is None
    assert (meta.class_names, meta.seed, meta.findings, meta.options) == (["n1", "n2"], None, {}, {})


@pytest.mark.parametrize("name", NEEDED)
def test_what_readers_of_records_need(name):
    with pytest.raises(KeyError, match=name):
        IndexMeta.from_dict({other: value for other, value in ALL.items() if other != name})
    with pytest.raises(ValueError, match=name):
        IndexMeta.from_dict(ALL | {name: [7]})


@pytest.mark.parametrize("seed, shuffled", [({}, None), ({"seed": None}, False), ({"seed": 0}, True)])
def test_whether_records_are_permuted(seed, shuffled):
    assert IndexMeta.from_dict(NEEDED | seed).shuffled is shuffled


@pytest.mark.parametrize("part, value", [
    ("format", 5), ("seed", True), ("seed", 1.5), ("classes", {"n1": 1, "n2": 2}), ("class_names", ["tench"]),
    ("options", None), ("tools", {"numpy": 2}), ("findings", {"grayscale": [5]}), ("duplicates", [[1, -1]]),
    ("duplicates", [[1], 2]), ("skipped", [{"name": "a.jpg", "reason": None}]), ("left_out", {".gif": False})])
def test_a_part_that_is_wrong(part, value):
    assert IndexMeta.from_dict(ALL | {part: value}).wrong_part(5) == part


def test_classes_by_label():
    meta = IndexMeta(**ALL)
    assert meta.class_of(1) == ("n2", "shark") and meta.class_of(2) == ("label 2",) * 2
    assert meta.class_of(-1) == ("label -1",) * 2


def test_a_loader_asks_for_no_part_that_only_people_look_at(tiled_lmdb, tmp_path):
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        os.link(tiled_lmdb / name, tmp_path / name)
    change_meta(tmp_path / "val.lmdb", findings=[5], skipped=None, seed="x", options=3, tools=[], class_counts={})
    assert sum(len(labels) for _, labels in LMDBLoader(tmp_path / "val.lmdb", 4, transform=None, drop_last=False)) > 0
