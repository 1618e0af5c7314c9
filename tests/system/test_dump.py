"""The dump from end to end: what it writes, in which order, and that an error or Ctrl-C leaves what was there."""
import errno
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from zlib import crc32

import cv2
import numpy as np
import pytest

import dump_imagenet
from dataflows.dump.summary import stages
from dataflows.dump.write import PackedLMDBSerializer
from dataflows.errors import Refused
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.storage import record
from dataflows.storage.btree import locate
from dataflows.storage.index import load_index
from dataflows.storage.store import Store
from dump_imagenet import check_split, dump_split, main
from helpers.odd_files import CMYK_JPEG
from helpers.paths import ROOT
from helpers.photos import CLASSES, encode_jpeg, make_photo

FILES = {"train": {"train.lmdb", "train.lmdb.index.npz"}, "val": {"val.lmdb", "val.lmdb.index.npz"}}


def dump(source, target, split="val", **options):
    return dump_split(source, target, split, progress=False, **options)


def records(path):
    store = Store(path)
    return [record.view(store.value(i)) for i in range(len(store))]


def values(path):
    store = Store(path)
    return [store.value(i).tobytes() for i in range(len(store))]


def names(path):
    return [name.decode() for name in load_index(str(path), str(path)).name.tolist()]


def state(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def run(*argv, code=None, **environment):
    """The command line in a process of its own; `code` runs before it, in the same process."""
    command = [str(ROOT / "dump_imagenet.py")] if code is None else ["-c", f"{code}\nsys.exit(dump_imagenet.main())"]
    return subprocess.run([sys.executable, *command, *map(str, argv)], cwd=ROOT, env=os.environ | environment,
                          capture_output=True, text=True, timeout=90)


def arguments(source, target, split="val", *more):
    return ["--source", str(source), "--target", str(target), "--split", split, "--no-progress", *more]


@pytest.fixture
def damaged(photos, tmp_path):
    """A copy of the photos with files in val that cannot be decoded: one empty, one of text, one cut in half."""
    source = tmp_path / "damaged"
    shutil.copytree(photos, source)
    folder = source / "val" / CLASSES[1]
    (folder / "empty.jpg").touch()
    (folder / "text.JPEG").write_text("not an image")
    (folder / "half.jpg").write_bytes(encode_jpeg(make_photo(90, 90, 1))[:2000])
    return source


BAD = [f"{CLASSES[1]}/{name}" for name in ("empty.jpg", "half.jpg", "text.JPEG")]


# What is written.

@pytest.mark.parametrize("split", ["train", "val"])
def test_jpeg_records_are_the_files_and_their_classes(photos, jpeg_lmdb, split):
    files = ImageNetFiles(photos, split)
    assert files.classes == sorted(CLASSES)
    expected = dict(files.pointers)
    path = jpeg_lmdb / f"{split}.lmdb"
    assert sorted(names(path)) == sorted(expected)
    for name, (image, label) in zip(names(path), records(path)):
        assert image.tobytes() == files.read(name) and label == expected[name]


@pytest.mark.parametrize("split", ["train", "val"])
def test_uint8_records_are_the_pixels_of_pil(photos, uint8_lmdb, split):
    from PIL import Image
    files = ImageNetFiles(photos, split)
    path = uint8_lmdb / f"{split}.lmdb"
    for name, (image, label) in zip(names(path), records(path)):
        with Image.open(io.BytesIO(files.read(name))) as expected:
            assert (image == np.asarray(expected.convert("RGB"))).all()
        assert files.classes[label] == name.split("/")[0]


STOCK = """
import hashlib, json, sys
from tensorpack.dataflow import LMDBSerializer
ds = LMDBSerializer.load(sys.argv[1], shuffle=False)
ds.reset_state()
rows = [[hashlib.sha1(image).hexdigest(), list(getattr(image, "shape", [])), label] for image, label in ds]
json.dump([len(ds), rows], open(sys.argv[2], "w"))
"""


@pytest.mark.parametrize("folder", ["jpeg_lmdb", "uint8_lmdb"])
def test_stock_tensorpack_reads_it(folder, tmp_path, request):
    import hashlib
    path = request.getfixturevalue(folder) / "val.lmdb"
    subprocess.run([sys.executable, "-c", STOCK, str(path), str(tmp_path / "rows")], check=True, timeout=60,
                   env=os.environ | {"TENSORPACK_SERIALIZE": "msgpack"}, capture_output=True)
    count, rows = json.loads((tmp_path / "rows").read_text())
    assert count == 10
    assert rows == [[hashlib.sha1(image.tobytes()).hexdigest(), list(image.shape) if image.ndim == 3 else [], label]
                    for image, label in records(path)]


@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
@pytest.mark.parametrize("options", [{}, dict(max_side=80), dict(shorter_side=50, quality=70)])
def test_the_records_do_not_depend_on_the_workers(photos, tmp_path, image_format, options):
    for workers in (1, 2, 5):
        dump(photos, tmp_path / str(workers), "train", format=image_format, num_workers=workers, **options)
    one, two, five = (tmp_path / str(workers) / "train.lmdb" for workers in (1, 2, 5))
    assert values(one) == values(two) == values(five)
    assert names(one) == names(two) == names(five)


def test_train_is_shuffled_by_its_seed_and_val_is_in_order(photos, tmp_path):
    files = [name for name, _ in ImageNetFiles(photos, "train")]

    def order(**options):
        dump(photos, tmp_path, "train", overwrite=True, **options)
        return names(tmp_path / "train.lmdb")

    assert order() == order(seed=0) == [files[i] for i in np.random.default_rng(0).permutation(23)]
    assert order(seed=7) == [files[i] for i in np.random.default_rng(7).permutation(23)]
    assert order(shuffle=False) == order(shuffle=False, seed=7) == files
    dump(photos, tmp_path)
    assert names(tmp_path / "val.lmdb") == [name for name, _ in ImageNetFiles(photos, "val")]
    dump(photos, tmp_path, shuffle=True, overwrite=True)
    assert sorted(names(tmp_path / "val.lmdb")) != names(tmp_path / "val.lmdb")


@pytest.mark.parametrize("folder", ["jpeg_lmdb", "uint8_lmdb"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_index_says_what_is_in_the_file(folder, split, photos, request):
    path = request.getfixturevalue(folder) / f"{split}.lmdb"
    index, content = load_index(str(path), str(path)), path.read_bytes()
    images = records(path)
    for i, value in enumerate(values(path)):
        assert content[index.offset[i]:index.offset[i] + index.nbytes[i]] == value
        assert index.crc32[i] == crc32(value)
        pixels = images[i][0] if folder == "uint8_lmdb" else cv2.imdecode(images[i][0], cv2.IMREAD_COLOR)
        assert (index.height[i], index.width[i], index.label[i]) == (*pixels.shape[:2], images[i][1])
    meta = index.meta
    assert index.classes == sorted(CLASSES) and index.count == len(images) and meta.file_size == len(content)
    assert (meta.format, meta.split, meta.skipped) == (folder.split("_")[0], split, [])
    assert meta.seed == (0 if split == "train" else None)
    assert meta.options == {"max_side": None, "shorter_side": None, "quality": 90, "tiles": False}
    assert {"lmdb", "msgpack", "numpy", "tensorpack"} <= set(meta.tools)


def test_offsets_of_a_file_of_tiny_and_large_images(tmp_path):
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    for i, side in enumerate((8, 150, 8)):
        (folder / f"{i}.jpg").write_bytes(encode_jpeg(make_photo(side, side, i)))
    dump(tmp_path / "source", tmp_path)
    path = tmp_path / "val.lmdb"
    index, content = load_index(str(path), str(path)), path.read_bytes()
    assert [content[at:at + size] for at, size in zip(index.offset.tolist(), index.nbytes.tolist())] == values(path)


def test_limits_reach_the_records_and_the_index(photos, tmp_path):
    summary = dump(photos, tmp_path, format="uint8", max_side=64)
    index = Store(summary.path).index
    assert max(max(image.shape[:2]) for image, _ in records(summary.path)) == 64
    assert [image.shape[:2] for image, _ in records(summary.path)] == [
        *zip(index.height.tolist(), index.width.tolist())]
    assert index.meta.options["max_side"] == 64


def test_the_summary(photos, tmp_path):
    summary = dump(photos, tmp_path, "train")
    files = [path for path in (photos / "train").rglob("*") if path.is_file()]
    assert (summary.path, summary.index_path) == (str(tmp_path / "train.lmdb"), str(tmp_path / "train.lmdb.index.npz"))
    assert (summary.format, summary.count, summary.num_classes, summary.skipped) == ("jpeg", 23, 3, [])
    assert summary.source_bytes == sum(path.stat().st_size for path in files)
    assert summary.stored_bytes == (tmp_path / "train.lmdb").stat().st_size
    assert summary.pixel_bytes == sum(cv2.imread(str(path)).size for path in files)
    assert "23 images of 3 classes as jpeg" in str(summary) and "read back" in str(summary)
    assert set(state(tmp_path)) == FILES["train"]


def test_the_summary_compares_the_dump_with_its_slower_stage():
    found = stages(2, 100, 50.0, preparing=40.0, writing=10.0, together=25.0)
    assert (found.workers, found.prepare_per_second, found.write_per_second) == (2, 5.0, 10.0)
    assert (found.reached, found.reached_in_all) == (0.8, 0.4)
    assert str(found) == (
        "4 images/s while it was written: 2 workers can read and prepare 5 images/s, and the disk can take 10, so "
        "reading and preparing set the pace. The dump kept 80 % of that pace, and 40 % with listing the source and "
        "reading the file back")
    slow = stages(1, 100, 50.0, preparing=5.0, writing=20.0, together=25.0)
    assert "1 worker can read and prepare 20 images/s, and the disk can take 5, so writing set the pace" in str(slow)
    assert stages(2, 0, 1.0, preparing=0.0, writing=0.0, together=0.0) is None


def test_names_that_are_not_utf_8(tmp_path):
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(encode_jpeg(make_photo(50, 60, 1)))
    summary = dump(tmp_path / "source", tmp_path)
    assert summary.count == 1 and Store(summary.path).index.name[0] == b"class/caf\xe9.jpg"


# Bad images.

def test_an_image_that_cannot_be_decoded_stops_the_dump(damaged, tmp_path, capsys):
    with pytest.raises(ValueError, match="empty.jpg: the file is empty.*on_error='skip'") as info:
        dump(damaged, tmp_path / "out")
    assert not isinstance(info.value, Refused) and state(tmp_path / "out") == {}
    assert main(arguments(damaged, tmp_path / "out")) == 1
    assert capsys.readouterr().err.startswith(f"dump-imagenet: {damaged / 'val' / BAD[0]}")


@pytest.mark.parametrize("workers", [1, 4])
def test_or_it_is_left_out_and_listed(damaged, photos, tmp_path, workers, capsys):
    summary = dump(damaged, tmp_path / "out", on_error="skip", num_workers=workers)
    dump(photos, tmp_path / "clean")
    assert values(tmp_path / "out" / "val.lmdb") == values(tmp_path / "clean" / "val.lmdb")
    assert summary.count == 10 and [entry["name"] for entry in summary.skipped] == BAD
    assert all(entry["reason"] for entry in summary.skipped)
    assert Store(summary.path).index.meta.skipped == summary.skipped
    assert "3 files skipped" in str(summary) and BAD[0] in str(summary)
    assert main(arguments(damaged, tmp_path / "cli", "val", "--on-error", "skip")) == 0
    assert "3 files skipped" in capsys.readouterr().out


def test_nothing_but_bad_images(tmp_path):
    (tmp_path / "source" / "val" / "class").mkdir(parents=True)
    (tmp_path / "source" / "val" / "class" / "a.jpg").touch()
    with pytest.raises(ValueError, match="none of the 1 files in .*val could be read"):
        dump(tmp_path / "source", tmp_path / "out", on_error="skip")
    assert state(tmp_path / "out") == {}


def test_a_file_that_vanishes_is_a_bad_image(photos, tmp_path, monkeypatch):
    read = ImageNetFiles.read

    def vanished(self, name):
        if name.endswith("_1.JPEG"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return read(self, name)

    monkeypatch.setattr(ImageNetFiles, "read", vanished)
    assert len(dump(photos, tmp_path, on_error="skip").skipped) == 3
    with pytest.raises(ValueError, match="_1.JPEG: .*No such file"):
        dump(photos, tmp_path, overwrite=True)


# What is left out before anything is read.

@pytest.fixture
def sparse(photos, tmp_path):
    """A copy of the photos with files in val that are no images, and links to what is not there."""
    source = tmp_path / "sparse"
    shutil.copytree(photos, source)
    for name in ("a.gif", "b.GIF", "c.avif", "README", "._x.jpg"):
        (source / "val" / CLASSES[1] / name).write_bytes(b"\0\x05\x16\x07")
    os.symlink("/nowhere/n00000001", source / "val" / "n00000001")
    os.symlink("../gone", source / "val" / CLASSES[0] / "more")
    return source


UNREADABLE = ["n00000001", f"{CLASSES[0]}/more"]


def test_what_may_hold_more_images_stops_a_dump_or_is_listed(sparse, tmp_path, capsys):
    for on_error in ("raise", "fix"):
        with pytest.raises(Refused, match="2 folders or links may hold more.*on_error='skip'") as info:
            dump(sparse, tmp_path / "out", on_error=on_error)
        assert all(f"{sparse}/val/{name}: it is a link to " in str(info.value) for name in UNREADABLE)
    assert not (tmp_path / "out").exists()
    (sparse / "val" / CLASSES[0] / "0.jpg").touch()
    assert main(arguments(sparse, tmp_path / "out", "val", "--on-error", "skip")) == 0
    told = capsys.readouterr().out
    skipped = Store(tmp_path / "out" / "val.lmdb").index.meta.skipped
    assert [entry["name"] for entry in skipped] == [*UNREADABLE, f"{CLASSES[0]}/0.jpg"]  # and not sorted in
    assert all(f"  {entry['name']}: {entry['reason']}\n" in told for entry in skipped)


def test_files_that_are_no_images_by_their_names_are_counted(sparse, tmp_path):
    summary = dump(sparse, tmp_path / "out", on_error="skip")
    assert summary.left_out == {".gif": 2, ".avif": 1, "macOS companion": 1, "without an extension": 1}
    assert Store(summary.path).index.meta.left_out == summary.left_out
    assert ("left out by name or place: 2 .gif, 1 .avif, 1 macOS companion, 1 without an extension\n"
            in f"{summary}\n")
    assert "left out by" not in str(dump(sparse, tmp_path / "out", "train"))


def test_a_pipe_that_is_called_like_an_image_is_not_waited_for(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "source")
    os.mkfifo(tmp_path / "source" / "val" / CLASSES[0] / "0.jpg")
    with pytest.raises(ValueError, match="0.jpg: .*it is a named pipe, not a file"):
        dump(tmp_path / "source", tmp_path / "out")
    assert [entry["name"] for entry in dump(tmp_path / "source", tmp_path / "out", on_error="skip").skipped] == [
        f"{CLASSES[0]}/0.jpg"]


# A dump that is checked before.

def test_a_check_finds_what_the_dump_would(damaged, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    fix = check_split(damaged, "val", progress=False)
    skip = check_split(damaged, "val", target=tmp_path / "out", on_error="skip", num_workers=3, progress=False)
    assert sorted(tmp_path.rglob("*")) == before
    assert (fix.ok, fix.stops, skip.ok, skip.stops) == (False, True, True, False)
    summary = dump(damaged, tmp_path / "out", on_error="skip")
    index = Store(summary.path).index
    names = [os.fsdecode(name) for name in index.name.tolist()]
    for found in (fix, skip):
        assert found.failures == summary.skipped and [entry["name"] for entry in found.failures] == BAD
        assert found.findings == {finding: [names[number] for number in numbers]
                                  for finding, numbers in index.meta.findings.items()}
        assert (found.count, found.num_classes, found.source_bytes) == (10, 3, summary.source_bytes)
        assert (found.untiled, found.class_counts, found.layout) == (summary.untiled, [], summary.layout)
        assert found.refusals == [] and 0 < found.stored_bytes < summary.stored_bytes < 2 * found.stored_bytes


def test_a_check_lists_all_that_would_stop_a_dump(sparse, tmp_path, capsys):
    (sparse / "val" / "empty").mkdir()
    (sparse / "val" / "texts").mkdir()
    (sparse / "val" / "texts" / "a.txt").touch()
    for number in range(15):
        (sparse / "val" / CLASSES[0] / f"{number:02d}.jpg").touch()
    shutil.copy(sparse / "val" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG", sparse / "val" / CLASSES[1] / "same.jpg")
    argv = ["--source", str(sparse), "--split", "val", "--check", "--no-progress"]
    assert main(argv) == 1
    told = capsys.readouterr().out
    assert f"classes {sparse}/val/empty, {sparse}/val/texts hold no image" in told
    assert "17 would stop it:" in told and "left out by name or place: 2 .gif, " in told
    for name in [*UNREADABLE, *(f"{CLASSES[0]}/{number:02d}.jpg: the file is empty" for number in range(15))]:
        assert f"\n  {name}" in told
    assert f"2 same content as a file of another class: {CLASSES[0]}/{CLASSES[0]}_0.JPEG, {CLASSES[1]}/same.jpg" in told
    shutil.rmtree(sparse / "val" / "empty")
    shutil.rmtree(sparse / "val" / "texts")
    assert main(argv) == 1 and main([*argv, "--on-error", "skip"]) == 0
    assert "17 would be left out:" in capsys.readouterr().out


def test_a_check_looks_at_the_target(photos, tmp_path, monkeypatch, capsys):
    argv = ["--source", str(photos), "--split", "val", "--check", "--no-progress", "--target",
            str(tmp_path / "a" / "b")]
    assert main(argv) == 0 and state(tmp_path) == {}
    assert "a dump with these options would succeed: 10 images of 3 classes as jpeg" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 5000, 5000))
        assert main(argv) == 1
        assert "and " f"{tmp_path} has 0.00 GB free" in capsys.readouterr().out
    (tmp_path / "a").write_text("a file")
    assert main(argv) == 1 and f"{tmp_path}/a is not a folder" in capsys.readouterr().out
    (tmp_path / "a").unlink()
    dump(photos, tmp_path / "a" / "b")
    assert main(argv) == 1 and "exists already" in capsys.readouterr().out
    assert main([*argv, "--overwrite"]) == 0


def test_a_check_refuses_what_cannot_be_examined(photos, tmp_path, capsys):
    for more in (["--split", "test"], ["--split", "val", "--quality", "0"]):
        assert main(["--source", str(photos), "--check", "--no-progress", *more]) == 2
    with pytest.raises(Refused, match="on_error"):
        check_split(photos, "val", on_error="ignore")
    empty = tmp_path / "source" / "val" / "class"
    empty.mkdir(parents=True)
    found = check_split(tmp_path / "source", "val", on_error="skip", progress=False)
    assert not found.ok and found.count == 0 and len(found.refusals) == 2


def test_raise_stops_at_what_fix_converts(tmp_path):
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encode_jpeg(make_photo(50, 60, 1)))
    (folder / "cmyk.jpg").write_bytes(CMYK_JPEG)
    for on_error, ok in (("raise", False), ("fix", True), ("skip", True)):
        assert check_split(tmp_path / "source", "val", on_error=on_error, progress=False).ok == ok
    with pytest.raises(ValueError, match="cmyk.jpg: CMYK"):
        dump(tmp_path / "source", tmp_path / "out", on_error="raise")
    for options in ({}, dict(on_error="fix"), dict(on_error="skip")):
        summary = dump(tmp_path / "source", tmp_path / "out", overwrite=True, **options)
        assert (summary.count, summary.skipped, summary.findings["converted to RGB"]) == (2, [], 1)


# Refusals: nothing is read or written for long.

@pytest.mark.parametrize("options, words", [
    (dict(format="png"), "format must be"), (dict(max_side=0), "max_side"), (dict(shorter_side=-5), "shorter_side"),
    (dict(quality=0), "quality"), (dict(quality=101), "quality"), (dict(on_error="ignore"), "on_error"),
    (dict(num_workers=0), "num_workers"), (dict(max_pixels=0), "max_pixels"),
    (dict(seed=-1, shuffle=True), "non-negative"),
    (dict(split="test"), "there is no folder"),
])
def test_wrong_arguments(photos, tmp_path, options, words):
    with pytest.raises(Refused, match=words):
        dump(photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["val.lmdb", "val.lmdb.index.npz"])
def test_an_existing_file_is_refused(photos, tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(Refused, match=f"{re.escape(str(tmp_path / name))} exists already.*overwrite=True"):
        dump(photos, tmp_path)
    assert state(tmp_path) == {name: b"precious"}
    assert dump(photos, tmp_path, overwrite=True).count == 10
    assert set(state(tmp_path)) == FILES["val"]


def test_a_full_disk_is_refused_before_the_first_byte(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 5000, 5000))
    with pytest.raises(Refused, match="needs about .* GB and .* has 0.00 GB free.*max_side=N"):
        dump(photos, tmp_path, format="uint8")
    assert state(tmp_path) == {}


# Failures: what was there stays, and nothing is added.

@pytest.fixture
def target(photos, tmp_path):
    """A folder with a finished dump, for another to replace."""
    dump(photos, tmp_path / "target", max_side=50)
    return tmp_path / "target"


def interrupted_read(error, after):
    read, count = ImageNetFiles.read, [0]

    def failing(self, name):
        count[0] += 1
        if count[0] > after:
            raise error
        return read(self, name)
    return failing


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("of the source"),
                                   OSError(errno.EIO, "Input/output error"),
                                   MemoryError()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("after", [3, 15])  # while sizes are estimated from 10 files, and while they are written
@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_while_reading(photos, target, monkeypatch, error, after, workers):
    before = state(target)
    with monkeypatch.context() as patch:
        patch.setattr(ImageNetFiles, "read", interrupted_read(error, after))
        with pytest.raises((type(error), ValueError)) as info:
            dump(photos, target, overwrite=True, num_workers=workers)
    assert state(target) == before
    assert dump(photos, target, overwrite=True).count == 10  # also while the error and its frames are still held
    assert info.value


def test_an_interrupt_through_the_command_line(photos, target, monkeypatch, capsys):
    before = state(target)
    monkeypatch.setattr(ImageNetFiles, "read", interrupted_read(KeyboardInterrupt(), 15))
    assert main(arguments(photos, target, "val", "--overwrite")) == 1
    assert "interrupted" in capsys.readouterr().err and state(target) == before


def corrupting(damage):
    save = PackedLMDBSerializer.save

    def save_and_damage(ds, path, **options):
        seconds = save(ds, path, **options)
        damage(path)
        return seconds
    return save_and_damage


def flip_a_bit(path):
    content, (nbytes, offsets) = bytearray(pathlib.Path(path).read_bytes()), locate(path)
    content[offsets[3] + nbytes[3] - 9] ^= 1
    pathlib.Path(path).write_bytes(content)


def lose_a_record(path):
    import lmdb
    with lmdb.open(path, subdir=False, lock=False, map_size=2**30) as environment:
        with environment.begin(write=True) as transaction:
            transaction.delete(b"00000005")


@pytest.mark.parametrize("damage, words", [(flip_a_bit, "what was read back is not what was written"),
                                           (lose_a_record, "key 00000005 is missing"),
                                           (lambda path: os.truncate(path, 20_000), "truncated")])
def test_a_record_that_does_not_come_back(photos, target, monkeypatch, capsys, damage, words):
    before = state(target)
    monkeypatch.setattr(PackedLMDBSerializer, "save", corrupting(damage))
    assert main(arguments(photos, target, "val", "--overwrite")) == 1
    assert words in capsys.readouterr().err and state(target) == before


@pytest.mark.parametrize("name", ["write_array", "replace", "fsync"])
def test_a_failure_at_the_very_end(photos, target, tmp_path, name):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = state(target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.lib.format if name == "write_array" else os, name, full)
        with pytest.raises(OSError, match="No space left"):
            dump(photos, target, overwrite=True)
    assert before.items() <= state(target).items()
    assert (set(state(target)) - set(before) == set()) == (name == "fsync")  # it failed before the first record
    dump(photos, target, overwrite=True, resume=True)
    dump(photos, tmp_path / "clean")
    assert state(target) == state(tmp_path / "clean")


def test_what_a_killed_dump_left_behind_is_no_obstacle(photos, tmp_path):
    for name in ("val.lmdb.partial", "val.lmdb.index.npz.partial"):
        (tmp_path / name).write_bytes(os.urandom(9000))
    assert dump(photos, tmp_path).count == 10
    assert set(state(tmp_path)) == FILES["val"]


def test_open_readers_keep_the_file_they_opened(photos, target):
    store = Store(target / "val.lmdb")
    before, view = values(target / "val.lmdb"), store.value(0)
    dump(photos, target, overwrite=True)
    assert [store.value(i).tobytes() for i in range(10)] == before and view.tobytes() == before[0]
    assert values(target / "val.lmdb") != before


# The command line.

def test_help(capsys):
    with pytest.raises(SystemExit) as info:
        main(["--help"])
    text = capsys.readouterr().out
    assert info.value.code == 0
    for flag in ("--source", "--target", "--split", "--format", "--max-side", "--shorter-side", "--quality",
                 "--no-shuffle", "--seed", "--num-workers", "--on-error", "--max-pixels", "--check", "--overwrite",
                 "--resume", "--no-progress"):
        assert flag in text


@pytest.mark.parametrize("argv", [[], ["--source", "a"], ["--bogus"], ["--source", "a", "--split", "c"],
                                  ["--check", "--source", "a"], ["--source", "a", "--target", "b", "--split", "c",
                                                                       "--format", "gif"],
                                  ["--source", "a", "--target", "b", "--split", "c", "--max-side", "x"]])
def test_a_wrong_command_line(argv, capsys):
    with pytest.raises(SystemExit) as info:
        main(argv)
    assert info.value.code == 2 and "usage: dump-imagenet" in capsys.readouterr().err


class Ok:
    """What a check gives that has found nothing."""

    ok = True


def test_each_flag_reaches_its_keyword(monkeypatch, capsys):
    calls, checks = [], []
    monkeypatch.setattr(dump_imagenet, "dump_split", lambda **options: calls.append(options))
    defaults = dict(source="s", target="t", split="x", labels=None, format="jpeg", max_side=None, shorter_side=None,
                    quality=90, tiles=True, trust=False, shuffle=None, seed=0, num_workers=None, on_error="fix",
                    max_pixels=178_956_970, shards=None, shard_bytes=None, plan=False, part=None, engine=None,
                    scratch=None, overwrite=False, resume=False, progress=True)
    monkeypatch.setattr(dump_imagenet, "check_split", lambda **options: checks.append(options) or Ok)
    assert main("--source s --target t --split x".split()) == 0
    assert main("--source s --split x --check --seed 2 --resume --no-shuffle --overwrite --on-error raise".split()) == 0
    assert main("--source s --target t --split x --check".split()) == 0
    assert main("--source s --target t --split x --format uint8 --max-side 5 --shorter-side 4 --quality 3 "
                "--no-tiles --trust --no-shuffle --labels l.csv --shards 7 "
                "--scratch d --seed 2 --num-workers 1 --on-error skip --max-pixels 9 --overwrite --resume "
                "--no-progress".split()) == 0
    assert main("--source s --target t --split x --shard-bytes 1GB --plan --part 0/2 --engine ray".split()) == 0
    monkeypatch.setattr(dump_imagenet, "merge_shards", lambda *arguments, **options: calls.append((arguments, options)))
    assert main("--target t --split x --merge".split()) == 0
    assert main("--target t --split x --merge --scratch d".split()) == 0
    assert [calls.pop(), calls.pop()] == [(("t", "x"), {"scratch": "d"}), (("t", "x"), {"scratch": None})]
    assert calls.pop() == defaults | dict(shard_bytes="1GB", plan=True, part="0/2", engine="ray")
    assert calls == [defaults, defaults | dict(labels="l.csv", shards=7, format="uint8", max_side=5,
                                               shorter_side=4, quality=3, tiles=False, trust=True,
                                               shuffle=False, seed=2, resume=True, num_workers=1,
                                               on_error="skip", max_pixels=9, overwrite=True, progress=False,
                                               scratch="d")]
    writing = {"shuffle", "seed", "resume", "shards", "shard_bytes", "plan", "part", "engine", "scratch"}
    checked = {name: value for name, value in defaults.items() if name not in writing}
    assert checks == [checked | dict(target=None, overwrite=True, on_error="raise"), checked]


def test_refused_is_2_and_success_is_0(photos, tmp_path, capsys):
    assert main(arguments(photos, tmp_path)) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'val.lmdb'}: 10 images") and err == ""
    assert main(arguments(photos, tmp_path)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "exists already" in err and "Traceback" not in err


def said_in_python_and_on_the_command_line(source, target, capsys, **options):
    """The error of dump_split, and that of main with the same options as flags."""
    with pytest.raises(ValueError) as info:
        dump(source, target, **options)
    flags = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
    assert main(arguments(source, target, "val", *flags)) > 0
    return str(info.value), capsys.readouterr().err


def test_errors_name_options_as_the_caller_gives_them(damaged, photos, tmp_path, monkeypatch, capsys):
    target = tmp_path / "out"
    python, shell = said_in_python_and_on_the_command_line(damaged, target, capsys)
    assert "Repair or remove the file; on_error='skip' leaves out" in python
    assert "--on-error skip leaves out" in shell and "on_error" not in shell
    dump(photos, target)
    python, shell = said_in_python_and_on_the_command_line(photos, target, capsys)
    assert python.endswith("or overwrite=True to replace it") and shell.endswith("or --overwrite to replace it\n")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 5000, 5000))
    python, shell = said_in_python_and_on_the_command_line(photos, tmp_path / "full", capsys, format="uint8")
    assert python.endswith("format='jpeg', max_side=N or shorter_side=N")
    assert shell.endswith("--format jpeg, --max-side N or --shorter-side N\n")
    assert not re.search(r"--\w", python)


def test_a_check_and_a_summary_name_options_as_flags(tmp_path, capsys):
    cmyk = tmp_path / "source" / "val" / "class" / "cmyk.jpg"
    cmyk.parent.mkdir(parents=True)
    cmyk.write_bytes(CMYK_JPEG)
    argv = ["--source", str(tmp_path / "source"), "--split", "val", "--check", "--no-progress", "--on-error", "raise"]
    assert main(argv) == 1 and "--on-error fix stores PIL's" in capsys.readouterr().out
    [failure] = check_split(tmp_path / "source", "val", on_error="raise", progress=False).failures
    assert "on_error='fix' stores PIL's" in failure["reason"]


def test_a_process_prints_its_summary_and_nothing_of_tensorpack(photos, tiled_lmdb, tmp_path):
    done = run(*arguments(photos, tmp_path), TENSORPACK_SERIALIZE="pickle")
    assert (done.returncode, done.stderr) == (0, "")
    line, rates, found, gray = done.stdout.splitlines()
    assert re.match(r"\S+ images/s while it was written: \d+ workers? can read and prepare \S+ images/s, and the disk ",
                    rates)
    assert line.startswith(f"{tmp_path / 'val.lmdb'}: 10 images")
    assert found.startswith("found, ") and gray == f"  1 grayscale: {CLASSES[0]}/{CLASSES[0]}_1.JPEG"
    assert values(tmp_path / "val.lmdb") == values(tiled_lmdb / "val.lmdb")
    assert set(state(tmp_path)) == FILES["val"]


def test_progress_is_shown_on_stderr(photos, tmp_path, capfd):
    assert main([flag for flag in arguments(photos, tmp_path) if flag != "--no-progress"]) == 0
    out, err = capfd.readouterr()
    for part in ("writing val.lmdb", "reading val.lmdb back", "images/s", "MB/s", "10/10"):
        assert part in err
    for noise in ("tensorflow", "LMDB", "Flushing", "arning"):
        assert noise not in err + out


def test_a_process_refuses_with_2_in_one_line(photos, tmp_path):
    refused = run(*arguments(photos / "missing", tmp_path / "out"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("dump-imagenet: there is no folder")
    assert len(refused.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


INTERRUPT = """
import os, signal, sys, threading
import dump_imagenet
from dataflows.sources.imagenet import ImageNetFiles
read, count = ImageNetFiles.read, [0]
def interrupted(self, name):
    count[0] += 1
    if count[0] == 15:
        os.kill(os.getpid(), signal.SIGINT)
    return read(self, name)
ImageNetFiles.read = interrupted
"""


def test_ctrl_c_ends_the_process_with_1(photos, target):
    before = state(target)
    done = run(*arguments(photos, target, "val", "--overwrite"), code=INTERRUPT)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "dump-imagenet: interrupted; nothing was kept\n")
    assert state(target) == before


def test_ctrl_c_ends_a_check_with_1(photos):
    done = run("--source", photos, "--split", "train", "--check", "--no-progress", code=INTERRUPT)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "dump-imagenet: interrupted; nothing was written\n")


def test_a_check_shows_its_progress(photos, capfd):
    assert main(["--source", str(photos), "--split", "val", "--check"]) == 0
    assert "checking val" in (err := capfd.readouterr().err) and "10/10" in err


FILE_SIZE_LIMIT = """
import resource, sys
import dump_imagenet
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
"""


def test_a_disk_that_takes_no_more_ends_the_process_with_1(photos, target):
    before = state(target)
    done = run(*arguments(photos, target, "val", "--overwrite"), code=FILE_SIZE_LIMIT)
    assert (done.returncode, done.stdout) == (1, "") and state(target) == before
    assert done.stderr.startswith("dump-imagenet: ") and "nothing was kept" in done.stderr
    assert len(done.stderr.splitlines()) == 1
