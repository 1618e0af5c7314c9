"""webdataset's shards: which tars a source names, what a sample is, and what is said of one that is none."""
import hashlib
import json
import pathlib

import pytest

from dataflows.dump import space
from dataflows.dump import write as writing
from dataflows.dump.verify import verify
from dataflows.errors import Refused
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.sources.opening import open_source
from dataflows.sources.shard_paths import expand, matching
from dataflows.sources.shards import TarShards
from dataflows.storage.index import load_index
from dump_imagenet import check_split, dump_split, main
from helpers.imagenet_forms import class_tars, tar_of, write
from helpers.photos import encode_jpeg, make_photo


def photo(number):
    return encode_jpeg(make_photo(40 + number, 60, number))


def members(numbers, label=lambda n: {"cls": b"%d" % (n % 3)}):
    return {f"{n:04d}.{extension}": content for n in numbers
            for extension, content in {"jpg": photo(n), **label(n)}.items()}


def shards(folder, label=lambda n: {"cls": b"%d" % (n % 3)}, name="train-{:03d}.tar"):
    """Three shards of four samples."""
    return write(folder, {name.format(i): tar_of(members(range(4 * i, 4 * i + 4), label)) for i in range(3)})


def opened(source, split="train", **options):
    files = open_source(str(source), split, **options)
    files.refuse()
    return files


@pytest.mark.parametrize("pattern, words", [
    ("a.tar", ["a.tar"]), ("{000..003}", ["000", "001", "002", "003"]), ("{8..10}", ["8", "9", "10"]),
    ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]), ("x{a,b{1..2},}", ["xa", "xb1", "xb2", "x"]), ("{5..5}", ["5"])])
def test_braces(pattern, words):
    assert sorted(expand(pattern)) == sorted(words) and expand(pattern)[0] == words[0]


@pytest.mark.parametrize("pattern", ["{}", "{a}", "{3..1}", "{a..c}", "{0..9999999}"])
def test_braces_that_are_neither_range_nor_list(pattern):
    with pytest.raises(ValueError, match="is neither a range such as {000..012} nor a list such as {a,b}"):
        expand(pattern)


def test_missing_shards_are_named(tmp_path):
    shards(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"5 of the names .* are missing: .*-003.tar, .*-005.tar, "):
        matching(f"{tmp_path}/train-{{000..007}}.tar")
    with pytest.raises(FileNotFoundError, match=r"1 of the names .*val-\*.tar"):
        matching(f"{tmp_path}/{{train,val}}-*.tar")


EXPECTED = [(photo(n), n % 3) for n in range(12)]


@pytest.mark.parametrize("source, prefix", [
    ("train-{000..002}.tar", ""), ("train-*.tar", ""), ("train-00[0-2].tar", ""), ("", ""), ("", "train"),
    ("train", "train"), ("{train,train}-00?.tar", "")])
def test_all_ways_to_name_shards(tmp_path, source, prefix):
    shards(tmp_path / prefix)
    write(tmp_path / prefix, {"notes.txt": b""})
    files = opened(tmp_path / source if source else tmp_path)
    assert [(files.read(name), label) for name, label in files] == EXPECTED
    assert files.pointers[5] == ["train-001.tar/0005.jpg", 2] and files.classes == ["0", "1", "2"]
    assert files.layout.startswith("3 tar shards in ")
    assert sorted(opened(tmp_path / source, seed=3, shuffle=True)) == sorted(files)


def test_a_folder_holds_shards_of_several_splits(tmp_path):
    shards(tmp_path)
    write(tmp_path, {"val-0.tar": tar_of(members([20]))})
    assert len(opened(tmp_path)) == 12 and len(opened(tmp_path, "val")) == 1
    assert len(opened(tmp_path / "val-0.tar", "val")) == 1


def test_other_tars_are_read_as_before_and_two_forms_are_an_error(tmp_path):
    write(tmp_path, {"ILSVRC2012_img_train.tar": class_tars({"n01440764/1.JPEG": photo(1)})})
    assert isinstance(opened(tmp_path), ImageNetFiles)
    shards(tmp_path)
    with pytest.raises(ValueError, match="in 2 forms: tar in .*ILSVRC2012_img_train.tar; tar shards in .* Give a"):
        opened(tmp_path)
    assert len(opened(tmp_path / "train-*.tar")) == 12


@pytest.mark.parametrize("label, names", [
    (lambda n: {"json": json.dumps({"label": n % 3}).encode()}, ["0", "1", "2"]),
    (lambda n: {"json": json.dumps({"cls": n % 3, "width": 3}).encode()}, ["0", "1", "2"]),
    (lambda n: {"CLS": b" %d\n" % (n % 3), "txt": b"a caption", "seg.png": b"mask"}, ["0", "1", "2"]),
    (lambda n: {"cls": b"%d" % (n % 3), "json": json.dumps({"label": 99, "class_name": "abc"[n % 3]}).encode()},
     ["a", "b", "c"])])
def test_labels_in_all_their_forms(tmp_path, label, names):
    files = opened(shards(tmp_path, label))
    assert [number for _, number in files] == [n % 3 for n in range(12)]
    assert files.class_names == names and files.classes == ["0", "1", "2"]
    assert files.left_out == ({".txt": 12, ".png": 12} if "txt" in label(0) else {})


def test_keys_may_have_folders_and_images_any_format(tmp_path):
    write(tmp_path, {"a.tar": tar_of({"x/1.cls": b"0", "x/1.PNG": b"one", "y/1.webp": b"two", "y/1.cls": b"1"})})
    files = opened(tmp_path / "{a,a}.tar")
    assert [(name, files.read(name)) for name, _ in files] == [("a.tar/x/1.PNG", b"one"), ("a.tar/y/1.webp", b"two")]


FAULTS = {
    "0001.jpg": "0001: it has an image and no label", "0002.cls": "0002: it has a label and no image",
    "0003.jpg 0003.png 0003.cls": "0003: it has 2 images, and must have one"}
LABELS = [(b"cat", "its label 'cat' must be a class number"), (b"-1", "its label '-1' must"),
          (b"", "its label '' must"),
          (b"1000000", "from 0 to 999,999"), (b"1.0", "'1.0' must")]
JSONS = [(b"{", "its .json cannot be read"), (b"[1]", "its .json must hold an object"), (b"{}", "neither a .cls"),
         (b'{"label": "cat"}', "its label 'cat' must"), (b'{"label": true}', "its label 'True' must"),
         (b'{"label": 1, "class_name": 3}', "class_name in its .json must be a text"), (b"[" * 99999, "cannot be read"),
         (b"\xff", "cannot be read")]


@pytest.mark.parametrize("extra, told", [
    *(({name: b"0" for name in names.split()}, told) for names, told in FAULTS.items()),
    *(({"0009.jpg": b"", "0009.cls": text}, f"0009: {told}" if told.startswith("its") else told)
      for text, told in LABELS),
    *(({"0009.jpg": b"", "0009.json": text}, told) for text, told in JSONS)], ids=range(16))
def test_samples_that_lack_something_are_told_and_may_be_left_out(tmp_path, extra, told):
    write(tmp_path, {"train-0.tar": tar_of({**members([8]), **extra})})
    with pytest.raises(Refused, match="1 samples in .* lack something: train-0.tar/.*on_error='skip'") as error:
        dump_split(tmp_path, tmp_path / "target", "train", progress=False)
    assert told in str(error.value)
    assert not check_split(tmp_path, "train", progress=False).ok
    summary = dump_split(tmp_path, tmp_path / "target", "train", on_error="skip", progress=False)
    assert summary.count == 1 and told.rpartition(": ")[2] in summary.skipped[0]["reason"]


def test_two_names_of_a_class(tmp_path):
    def label(n):
        return {"json": json.dumps({"label": 0, "class_name": "crane" if n < 9 else "bird"}).encode()}

    with pytest.raises(OSError, match="3 samples .* its class 0 is called 'bird' in it, and 'crane' before"):
        opened(shards(tmp_path, label))


@pytest.mark.parametrize("content, words", [
    (lambda tar: tar[:len(tar) // 2], "is not a whole tar"), (lambda tar: tar[:700], "is not a whole tar"),
    (lambda tar: b"\x1f\x8b" + tar, "is compressed.*gunzip"), (lambda tar: b"text" * 300, "is not a whole tar")])
def test_damaged_shards(tmp_path, content, words):
    shards(tmp_path)
    (tmp_path / "train-001.tar").write_bytes(content((tmp_path / "train-001.tar").read_bytes()))
    with pytest.raises(ValueError, match=f"train-001.tar {words}"):
        opened(tmp_path)


def test_members_and_shards_of_one_name(tmp_path):
    write(tmp_path, {"a/1.tar": tar_of(members([1])), "b/1.tar": tar_of(members([2]))})
    with pytest.raises(ValueError, match="two shards have one name"):
        opened(tmp_path / "{a,b}" / "1.tar")
    write(tmp_path, {"c.tar": tar_of({"1.jpg": b"", "1.JPG": b"", "1.cls": b"0"})})
    with pytest.raises(ValueError, match="holds 1.JPG more than once"):
        opened(tmp_path / "{c,c}.tar")


def test_a_shard_that_shrinks_or_vanishes(tmp_path):
    files = opened(shards(tmp_path))
    (tmp_path / "train-000.tar").write_bytes(b"")
    with pytest.raises(OSError, match="its shard ends within train-000.tar/0001.jpg"):
        files.read("train-000.tar/0001.jpg")
    with pytest.raises(FileNotFoundError, match="holds no train-000.tar/9.jpg"):
        files.read("train-000.tar/9.jpg")


def state(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pathlib.Path(folder).iterdir()}


def test_a_dump_of_shards_is_that_of_a_list_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writing, "_TRANSACTION_BYTES", 1)
    monkeypatch.setattr(space, "_SAMPLE", 1)
    source = str(shards(tmp_path / "source") / "train-{000..002}.tar")
    assert main(["--source", source, "--target", str(tmp_path / "once"), "--split", "train", "--no-progress"]) == 0
    dump_split(EXPECTED, tmp_path / "list", "train", progress=False)
    assert state(tmp_path / "once")["train.lmdb"] == state(tmp_path / "list")["train.lmdb"]
    assert verify(tmp_path / "once" / "train.lmdb", progress=False).bad == []
    path = str(tmp_path / "once" / "train.lmdb")
    assert load_index(path, path).meta.layout == "3 tar shards in train-{000..002}.tar"
    read = TarShards.read
    with monkeypatch.context() as patch:
        patch.setattr(TarShards, "read", lambda self, name: [][0] if "0007" in name else read(self, name))
        with pytest.raises(IndexError):
            dump_split(source, tmp_path / "often", "train", progress=False)
    dump_split(source, tmp_path / "often", "train", progress=False, resume=True)
    assert state(tmp_path / "often") == state(tmp_path / "once")
    capsys.readouterr()
