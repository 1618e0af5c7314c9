"""Labels in a CSV file: what it may say, what is wrong with it, and what is in only one of file and folder."""
import csv
import hashlib
import io
import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.dump import space
from dataflows.dump import write as writing
from dataflows.errors import Refused
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.sources.label_file import LabelledFiles, read_labels
from dataflows.sources.opening import open_source
from dataflows.storage.index import load_index
from dump_imagenet import check_split, dump_split, main
from helpers.imagenet_forms import write
from helpers.photos import encode_jpeg, make_photo
from uint_lmdb_loader import LMDBDataset

PHOTO = encode_jpeg(make_photo(40, 50, 1))


def stored(folder, text, name="labels.csv"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder / name)


def refusal(tmp_path, text):
    with pytest.raises(ValueError) as error:
        read_labels(stored(tmp_path, text))
    return str(error.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("text", [
    "file,label\nb/1.jpg,dog\na.jpg,cat\n", "file,label\r\nb/1.jpg,dog\r\na.jpg,cat",
    "\ufefffile,label\nb/1.jpg,dog\na.jpg,cat\n",
    'file,class\n"b/1.jpg","dog"\n\na.jpg, cat \n', "file , label\n./b//1.jpg,dog\na.jpg,cat\n"])
def test_names_of_classes(tmp_path, text):
    table = read_labels(stored(tmp_path, text))
    assert table.files == ["b/1.jpg", "a.jpg"] and table.labels.tolist() == [1, 0] and table.classes == ["cat", "dog"]


def test_class_numbers_and_commas_in_names(tmp_path):
    table = read_labels(stored(tmp_path, 'file,label\n"a, b.jpg",007\nc,0\n'))
    assert table.files == ["a, b.jpg", "c"] and table.labels.tolist() == [7, 0] and table.classes is None
    assert table.labels.dtype == "int32" and table.lines == [2, 3]


NAME = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    lambda name: "/" not in name and name not in (".", ".."))


@given(st.dictionaries(NAME, st.text("abc xyz,\"'", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=8),
       st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_csv_writes_is_read(tmp_path_factory, labels, end, quoting):
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator=end, quoting=quoting).writerows([("file", "label"), *labels.items()])
    table = read_labels(stored(tmp_path_factory.getbasetemp(), stream.getvalue()))
    assert dict(zip(table.files, (table.classes[n] for n in table.labels))) == labels
    assert table.classes == sorted(set(labels.values()))


@pytest.mark.parametrize("text, told", [
    ("", "/labels.csv, line 1: '' must be the header, file,label"),
    ("a.jpg,3\n", "line 1: 'a.jpg,3' must be the header"),
    ("file\na.jpg\n", "must be the header"), ("file,label\n", "lists no file"), ("file,label\n\n", "lists no file"),
    ("file,label\na,1\na,2\n", "has 1 wrong line: line 3: a is listed already, in line 2. Correct or remove"),
    ("file,label\na,1\n./a,2\n", "line 3: a is listed already, in line 2"),
    ("file,label\na,1,2\n", "line 2: it has 3 columns, and the header has 2"), ("file,label\na\n", "it has 1 columns"),
    ("file,label\n../a,1\n", "line 2: file '../a' must be a path below"),
    ("file,label\n/etc/a,1\n", "file '/etc/a' must"),
    ("file,label\n,1\n", "file '' must"), ("file,label\n.,1\n", "file '.' must"),
    ("file,label\na,\n", "line 2: it has no label"),
    ("file,label\na,-1\n", "line 2: label '-1' must be a class number, a whole number from 0 to 999,999"),
    ("file,label\na,1.5\n", "label '1.5' must be"), ("file,label\na,1e3\n", "label '1e3' must be"),
    ("file,label\na,1000000\n", "label '1000000' must be"), ("file,label\na,99999999999\n", "must be a class number"),
    ("file,label\na,1\nb,x\n", "line 3: label 'x' is a name, and that of line 2 is a number"),
    ("file,label\na,x\nb,1\n", "line 3: label '1' is a number, and that of line 2 is a name"),
    ("file,label\n" + "".join(f"{n},-{n}\n" for n in range(1, 1235)), "has 1,234 wrong lines: line 2: label '-1' must"),
    ("file,label\n" + "".join(f"{n},-{n}\n" for n in range(1, 1235)), "; and 1,231 more. Correct or remove"),
    ('file,label\na,"x\n', "line 2: it is not CSV"), ('file,label\na,"x"y\n', "line 2: it is not CSV"),
    (b"file,label\n\xff,1\n", "is not text in UTF-8")])
def test_wrong_lines_are_told(tmp_path, text, told):
    assert told in refusal(tmp_path, text)


# The file and the folder.

def source(tmp_path):
    return write(tmp_path / "source", {"a.jpg": PHOTO, "b/c.jpg": PHOTO, "b/d.png": PHOTO, "b/notes.txt": b"",
                                       "odd.name": PHOTO})


def test_all_images_that_are_listed_whatever_their_extension(tmp_path):
    labels = stored(source(tmp_path), "file,label\nodd.name,2\na.jpg,1\nb/d.png,0\nb/c.jpg,0\n")
    files = LabelledFiles(tmp_path / "source", labels)
    files.refuse()
    assert list(files) == [["odd.name", 2], ["a.jpg", 1], ["b/d.png", 0], ["b/c.jpg", 0]]
    assert files.read("odd.name") == PHOTO and files.left_out == {".txt": 1} and files.classes is None
    assert files.layout == "files that labels.csv lists"


def test_what_only_one_of_the_two_has(tmp_path):
    labels = stored(source(tmp_path), "file,label\na.jpg,1\nx.jpg,1\ny.jpg,2\n")
    with pytest.raises(Refused) as error:
        dump_split(tmp_path / "source", tmp_path / "target", "val", labels=labels, progress=False)
    text = str(error.value)
    assert f"{labels} lists 2 files (line 3: x.jpg, line 4: y.jpg), which are not in {tmp_path / 'source'}" in text
    assert f"holds 2 images (b/c.jpg, b/d.png), which are not in {labels}" in text
    assert "on_error='skip'" in text and not (tmp_path / "target").exists()
    checked = check_split(tmp_path / "source", "val", labels=labels, progress=False)
    assert not checked.ok and [entry["name"] for entry in checked.failures] == ["labels.csv", "x.jpg", "y.jpg"]
    summary = dump_split(tmp_path / "source", tmp_path / "target", "val", labels=labels, on_error="skip",
                         progress=False)
    assert summary.count == 1 and summary.skipped[0] == {
        "name": "labels.csv", "reason": "it does not list 2 images (b/c.jpg, b/d.png)"}
    assert len(summary.skipped) == 3 and summary.left_out == {".txt": 1, ".name": 1}


def test_folders_that_cannot_be_looked_into_are_named(tmp_path):
    labels = stored(source(tmp_path), "file,label\na.jpg,1\nb/d.png,0\nb/c.jpg,0\n")
    os.symlink("nowhere", tmp_path / "source" / "lost")
    os.symlink("..", tmp_path / "source" / "b" / "loop")
    with pytest.raises(OSError, match=r"2 folders or links \(.*source/b/loop, .*source/lost\) may hold images"):
        LabelledFiles(tmp_path / "source", labels).refuse()


@pytest.mark.parametrize("kind", ["missing", "tar"])
def test_a_source_that_is_no_folder(tmp_path, kind):
    labels = stored(tmp_path, "file,label\na,1\n")
    (tmp_path / "tar").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=f"there is no folder .*{kind}, below which .*tars must be unpacked"):
        LabelledFiles(tmp_path / kind, labels)
    with pytest.raises(FileNotFoundError, match="nothing.csv"):
        LabelledFiles(tmp_path, tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="Leave labels out"):
        open_source([], "val", labels=labels)


# Dumps.

def csv_of(photos, split, folder):
    """A folder of classes as a label file, in its order."""
    return stored(folder, "file,label\n" + "".join(f"{name},{name.split('/')[0]}\n"
                                                   for name, _ in ImageNetFiles(photos, split)))


def state(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pathlib.Path(folder).iterdir()}


def test_the_classes_of_folders_in_a_file_give_the_same_dump(photos, tmp_path, capsys):
    labels = csv_of(photos, "train", tmp_path)
    dump_split(photos, tmp_path / "folders", "train", progress=False)
    assert main(["--source", str(photos / "train"), "--labels", labels, "--split", "train", "--target",
                 str(tmp_path / "csv"), "--no-progress"]) == 0
    paths = [str(tmp_path / name / "train.lmdb") for name in ("folders", "csv")]
    one, other = (load_index(path, path) for path in paths)
    assert pathlib.Path(paths[0]).read_bytes() == pathlib.Path(paths[1]).read_bytes()
    assert {name for name in vars(one.meta) if vars(one.meta)[name] != vars(other.meta)[name]} == {"layout"}
    assert one.name.tolist() == other.name.tolist()
    assert LMDBDataset(paths[1]).classes == ["n01440764", "n01443537", "n01484850"]
    assert main(["--source", str(photos / "train"), "--labels", labels, "--split", "train", "--check",
                 "--no-progress"]) == 0
    capsys.readouterr()


def test_an_interrupted_dump_goes_on_and_another_label_file_does_not(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_TRANSACTION_BYTES", 1)
    monkeypatch.setattr(space, "_SAMPLE", 1)
    labels, read = csv_of(photos, "train", tmp_path), LabelledFiles.read
    options = dict(labels=labels, progress=False, num_workers=1)
    dump_split(photos / "train", tmp_path / "once", "train", **options)
    with monkeypatch.context() as patch:
        patch.setattr(LabelledFiles, "read", lambda self, name: [][0] if "1484850_3" in name else read(self, name))
        with pytest.raises(IndexError):
            dump_split(photos / "train", tmp_path / "often", "train", **options)
    text = pathlib.Path(labels).read_text()
    stored(tmp_path, text.replace("_0.JPEG,n01440764", "_0.JPEG,n01443537"))
    with pytest.raises(Refused, match="cannot be resumed: source was"):
        dump_split(photos / "train", tmp_path / "often", "train", resume=True, **options)
    stored(tmp_path, text)
    assert dump_split(photos / "train", tmp_path / "often", "train", resume=True, **options).resumed > 0
    assert state(tmp_path / "often") == state(tmp_path / "once")
