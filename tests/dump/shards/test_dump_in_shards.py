"""A dump in shards: the records and the index of one file, whatever interrupts it; and what is refused."""
import dataclasses
import hashlib
import os

import numpy as np
import pytest
import torch

import dump_imagenet
from dataflows import RandomResizedCrop
from dataflows.dump.verify import verify
from dataflows.errors import Refused
from dataflows.storage.store import Store
from dataflows.tools.advise.sources import Records
from dataflows.tools.info.facts import describe
from dump_imagenet import dump_split
from helpers.samples import SAMPLES, Stream
from helpers.shards import arrays
from uint_lmdb_loader import LMDBLoader

pytestmark = pytest.mark.usefixtures("small_transactions")


def dump(source, target, split="train", **options):
    return dump_split(source, target, split, progress=False, **options)


def state(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("options", [{}, {"format": "uint8"}, {"tiles": False, "seed": 3}, {"shuffle": False}], ids=str)
@pytest.mark.parametrize("count", [1, 4, 23])
def test_shards_hold_the_records_and_the_index_of_one_file(photos, tmp_path, options, count):
    one, many = dump(photos, tmp_path / "one", **options), dump(photos, tmp_path / "many", shards=count, **options)
    assert many.path == os.fspath(tmp_path / "many" / "train.manifest.json")
    assert sorted(state(tmp_path / "many")) == sorted(
        [f"train-{k:05d}-of-{count:05d}.lmdb{suffix}" for k in range(count) for suffix in ("", ".index.npz")]
        + ["train.manifest.json"])
    other = {"path", "index_path", "stored_bytes", "seconds", "stages"}
    same = {field.name for field in dataclasses.fields(one)} - other
    assert {name: getattr(one, name) for name in same} == {name: getattr(many, name) for name in same}
    single, sharded = Store(one.path), Store(many.path)
    assert [value.tobytes() for value in sharded.values(range(23))] == [value.tobytes()
                                                                        for value in single.values(range(23))]
    for name, column in arrays(single.index).items():
        assert np.array_equal(column, getattr(sharded.index, name))
    assert sharded.fingerprint() == single.fingerprint()
    differing = {name for name in vars(single.index.meta)
                 if vars(single.index.meta)[name] != vars(sharded.index.meta)[name]}
    assert differing <= {"file_size", "rest_crc32"}
    for name in state(tmp_path / "many"):
        if name.endswith(".lmdb"):
            assert not verify(os.fspath(tmp_path / "many" / name), progress=False).bad


def test_a_loader_of_the_manifest_is_that_of_one_file(photos, tmp_path):
    one, many = dump(photos, tmp_path / "one"), dump(photos, tmp_path / "many", shards=3)
    for batch, other in zip(LMDBLoader(one.path, 4, transform=RandomResizedCrop(20)),
                            LMDBLoader(many.path, 4, transform=RandomResizedCrop(20)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other))


def test_what_exists_is_refused_or_replaced(photos, tmp_path):
    dump(photos, tmp_path, shards=2)
    before = state(tmp_path)
    for options, words in (({"shards": 2}, r"train\.manifest\.json exists already: nothing is left to do"),
                           ({"shards": 3, "overwrite": True}, "a shard of a dump into another number of files")):
        with pytest.raises(Refused, match=words):
            dump(photos, tmp_path, **options)
        assert state(tmp_path) == before
    dump(photos, tmp_path, shards=2, overwrite=True, seed=5)
    assert state(tmp_path).keys() == before.keys() and state(tmp_path) != before


@pytest.mark.parametrize("shards, words", [(0, "shards must be an integer of at least 1, not 0"),
                                           (24, "shards must be at most the number of images, 23, not 24")])
def test_numbers_of_shards_are_checked(photos, tmp_path, shards, words):
    with pytest.raises(Refused, match=words):
        dump(photos, tmp_path / "new", shards=shards)
    assert not (tmp_path / "new").exists()


def test_samples_need_a_length_and_names_of_classes(tmp_path):
    with pytest.raises(Refused, match="this source gives them one by one"):
        dump(Stream(SAMPLES), tmp_path, shards=2)
    with pytest.raises(Refused, match="shards need the names of all classes"):
        dump(SAMPLES, tmp_path, shards=2)
    assert dump(SAMPLES, tmp_path, shards=2, classes=["a", "b", "c"]).count == 40


def test_the_command(photos, tmp_path, capsys):
    command = ["--source", os.fspath(photos), "--target", os.fspath(tmp_path), "--split", "val", "--shards", "2",
               "--no-progress"]
    assert dump_imagenet.main(command) == 0
    assert "val.manifest.json: 10 images of 3 classes" in capsys.readouterr().out
    assert dump_imagenet.main(command) == 2
    assert "val.manifest.json exists already" in capsys.readouterr().err


def test_the_command_says_what_is_kept(photos, tmp_path, monkeypatch, capsys):
    command = ["--source", os.fspath(photos), "--target", os.fspath(tmp_path), "--split", "val", "--shards", "2",
               "--no-progress"]
    with monkeypatch.context() as patch:
        patch.setattr("dataflows.dump.shards.chain.merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert dump_imagenet.main(command) == 1
    assert "interrupted; what was written is kept: go on from there with --resume" in capsys.readouterr().err
    assert dump_imagenet.main([*command, "--resume"]) == 0


def test_tools_take_the_manifest(photos, tmp_path):
    one, many = dump(photos, tmp_path / "one"), dump(photos, tmp_path / "many", shards=3)
    single, facts = describe(one.path), describe(many.path)
    assert facts["records"] == 23 and facts["index"] == many.path
    assert facts["file_bytes"] == sum(path.stat().st_size for path in (tmp_path / "many").glob("*.lmdb"))
    assert {name for name in single if single[name] != facts[name]} <= {"path", "index", "file_bytes", "slack_bytes"}
    report = verify(many.path, progress=False)
    assert (report.records, report.bad, report.size) == (23, [], facts["file_bytes"])
    source = Records(many.path)
    pieces = source.pieces(np.random.default_rng(0), facts["file_bytes"], in_order=False)
    assert {piece.path for piece in pieces} == {os.fspath(path) for path in (tmp_path / "many").glob("*.lmdb")}
    assert all(0 <= piece.offset <= os.path.getsize(piece.path) - piece.nbytes for piece in pieces)
    source.close()


def test_damage_is_found_in_its_shard(photos, tmp_path):
    path = dump(photos, tmp_path, shards=3).path
    file = tmp_path / "train-00001-of-00003.lmdb"
    with open(file, "r+b") as handle:
        handle.seek(int(Store(file).index.offset[2]) + 50)
        handle.write(b"\xff" * 8)
    [bad] = verify(path, progress=False).bad
    assert bad.startswith(f"{file}, key 00000002 (")
