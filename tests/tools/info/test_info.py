"""`python -m dataflows info`: what it says of each kind of file, and that it reads and trusts little of it."""
import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.__main__ import main
from dataflows.storage.index import index_path, load_index, write_index
from dataflows.storage.store import Store
from dataflows.terminal import printable
from dataflows.tools.info.facts import SAMPLE, WIDTH, as_text, describe
from dataflows.tools.info.histogram import bins
from dataflows.tools.text import bar, columns, fit, size_text
from dump_imagenet import dump_split
from helpers import odd_files
from helpers.lmdb_files import change_meta, pack_msgpack, save_index, write_lmdb
from helpers.photos import CLASSES, SIZES, encode_jpeg, make_photo

TIMEOUT_SECONDS = 60
JPEG = encode_jpeg(make_photo(40, 60, seed=0))
HOSTILE = "\x1b[2Jgone\r\nnew line \u202etxt.exe \udcff"


def words(facts):
    """The text without its line ends and columns."""
    return " ".join(as_text(facts).split())


@pytest.fixture
def dumped(tiled_lmdb, tmp_path):
    """A copy of a dump, to be changed."""
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        shutil.copy(tiled_lmdb / name, tmp_path)
    return tmp_path / "train.lmdb"


# Dumps.

@pytest.mark.parametrize("folder, kind, tiles", [
    ("tiled_lmdb", "tiled JPEG", {"tiled": 23, "stored_whole": {}}), ("jpeg_lmdb", "JPEG", None),
    ("uint8_lmdb", "pixels", None)])
def test_facts_of_a_dump(folder, kind, tiles, request):
    path = request.getfixturevalue(folder) / "train.lmdb"
    facts, index = describe(path), load_index(str(path), str(path))
    assert (facts["path"], facts["index"], facts["records"]) == (str(path), index_path(str(path)), 23)
    assert facts["file_bytes"] == path.stat().st_size
    assert facts["dump"]["split"] == "train" and facts["dump"]["seed"] == 0 and facts["tiles"] == tiles
    assert facts["dump"]["format"] == ("uint8" if kind == "pixels" else "jpeg")
    assert facts["bytes"]["total"] == sum(index.nbytes) and facts["bytes"]["most"] == max(index.nbytes)
    assert facts["bytes"]["pixels"] == 3 * sum(index.height.astype(int) * index.width)
    assert facts["classes"]["counts"] == [{"class": name, "name": name, "images": images}
                                          for name, images in zip(CLASSES, (9, 8, 6))]
    assert (facts["classes"]["number"], facts["classes"]["empty"]) == (3, 0)
    assert [facts["classes"][name] for name in ("least", "median", "most")] == [6, 8, 9]
    expected = {size: 23 // len(SIZES) + (place < 23 % len(SIZES)) for place, size in enumerate(SIZES)}
    assert {(s["height"], s["width"]): s["images"] for s in facts["sizes"]["most_common"]} == expected
    assert facts["sizes"]["distinct"] == len(SIZES)
    assert sum(found["number"] for found in facts["sizes"]["shorter_side"]) == 23
    assert facts["sample"]["numbers"] == list(range(23)) and facts["sample"]["kinds"] == {kind: 23}
    assert facts["sample"]["serializers"] == {"msgpack": 23} and facts["sample"]["labels"] == [0, 1, 2]
    assert json.loads(json.dumps(facts)) == facts


def test_the_text_says_it_in_columns(tiled_lmdb):
    text = as_text(describe(tiled_lmdb / "train.lmdb"))
    for part in ("train, as jpeg: 23 records of 3 classes", "a permutation, of seed 0", "23 of 23 JPEGs",
                 "23 tiled JPEG", "How it was made", "Sizes of images", "Classes", f"grayscale: {CLASSES[0]}/"):
        assert part in text
    assert printable(text.replace("\n", "")) == text.replace("\n", "")  # no colors, no tabs
    assert max(len(line) for line in text.splitlines() if str(tiled_lmdb) not in line) <= WIDTH
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip().startswith(CLASSES)}
    lengths = [rows[name].count("█") for name in CLASSES]
    assert lengths[0] > lengths[1] > lengths[2] > 0
    assert len({row.index("█") for row in rows.values()}) == 1


def test_what_the_dump_found_is_told(tmp_path):
    folder = tmp_path / "val" / "class"
    folder.mkdir(parents=True)
    for name in ("photo.JPEG", "gray.jpg", "a png.JPEG", "progressive.jpg"):
        (folder / name).write_bytes(odd_files.PLAIN[name][0])
    (folder / "again.jpg").write_bytes(odd_files.PLAIN["photo.JPEG"][0])
    (folder / "empty.jpg").touch()
    (folder / "moves.gif").touch()
    dump_split(tmp_path, tmp_path, "val", on_error="skip", progress=False)
    facts = describe(tmp_path / "val.lmdb")
    assert facts["found"]["findings"]["grayscale"] == {"images": 1, "examples": ["class/gray.jpg"]}
    assert facts["found"]["equal_files"] == 1
    assert facts["found"]["skipped"] == [{"name": "class/empty.jpg", "reason": "the file is empty"}]
    assert facts["found"]["left_out"] == {".gif": 1}
    assert facts["tiles"] == {"tiled": 4, "stored_whole": {"progressive": 1}}
    assert facts["sample"]["kinds"] == {"tiled JPEG": 4, "progressive JPEG": 1}
    text = words(facts)
    for part in ("grayscale: class/gray.jpg", "1 file: the file is empty: class/empty.jpg", "1 progressive",
                 "left out by name or place: 1 .gif", "PNG content, JPEG name: class/a png.JPEG", "sorted by class"):
        assert part in text


def test_many_classes_are_told_by_how_many_images_they_have(dumped):
    names = [f"class {number}" for number in range(1000)]
    change_meta(dumped, classes=names, class_names=names)
    facts = describe(dumped)
    assert (facts["classes"]["number"], facts["classes"]["empty"]) == (1000, 997)
    counts = facts["classes"]["counts"]
    assert len(counts) == 1000 and [entry["images"] for entry in counts[:4]] == [9, 8, 6, 0]
    text = as_text(facts)
    assert "997 have no image" in text and "most images" in text and "fewest images" in text
    assert "class 0  " in text and "class 999  " in text and "class 500" not in text


def test_a_label_without_a_class_is_told_by_its_number(dumped):
    index = load_index(str(dumped), str(dumped))
    index = dataclasses.replace(index, label=np.where(index.label == 2, -7, index.label))
    shutil.move(write_index(index, str(dumped)), index_path(str(dumped)))
    assert {"class": "label -7", "name": "label -7", "images": 6} in describe(dumped)["classes"]["counts"]


# Files without an index.

@pytest.mark.parametrize("pack, serializer", [(pickle.dumps, "pickle"), (pack_msgpack, "msgpack")])
def test_files_of_other_writers(pack, serializer, tmp_path):
    pixels = make_photo(50, 70, seed=1)
    path = write_lmdb(tmp_path / "a.lmdb", [
        [JPEG, 3], [odd_files.PLAIN["progressive.jpg"][0], 3], [odd_files.PNG, 900], [pixels, 1],
        [pixels.transpose(2, 0, 1).copy(), 1], [b"what is this", 1], [JPEG, "a text"]], pack)
    facts = describe(path)
    assert facts["records"] == 7 and facts["file_bytes"] == path.stat().st_size
    assert [facts[name] for name in ("index", "dump", "tiles", "bytes", "sizes", "classes", "found")] == [None] * 7
    sample = facts["sample"]
    assert sample["serializers"] == {serializer: 6} and sample["labels"] == [1, 3, 900]
    assert sample["kinds"] == {"pixels": 2, "JPEG": 1, "progressive JPEG": 1, "PNG": 1, "no image": 1}
    assert sample["array_layouts"] == {"HWC": 1, "CHW": 1}
    [unreadable] = sample["unreadable"]
    assert unreadable["key"] == "00000006" and "a label must be an integer" in unreadable["error"]
    assert sum(found["number"] for found in sample["shorter_side"]) == 5
    text = words(facts)
    for part in ("7 in", "none: it was written by another program", "not known", f"6 {serializer}", "2 pixels",
                 "array_layout='CHW'", "1 to 900, 3 distinct", "key 00000006", "A look at 7 records"):
        assert part in text
    assert json.loads(json.dumps(facts)) == facts


def test_a_dump_without_its_index_is_still_seen_to_be_tiled(dumped):
    (dumped.parent / "train.lmdb.index.npz").unlink()
    facts = describe(dumped)
    assert facts["index"] is None and facts["sample"]["kinds"] == {"tiled JPEG": 23}
    assert sum(facts["sample"]["tile_widths"].values()) == 23


# How much is read.

def test_a_bounded_sample_is_read(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", [[b"\xff\xd8\xff%d" % n, n] for n in range(1234)])
    sample = describe(path)["sample"]
    assert len(sample["numbers"]) == len(sample["labels"]) == SAMPLE and sample["numbers"] == sample["labels"]
    assert sample["numbers"][0] == 0 and set(np.diff(sample["numbers"])) == {12, 13}


def test_of_an_indexed_file_nothing_is_read_but_the_sample_and_what_the_store_compares(tmp_path):
    folder = tmp_path / "val" / "class"
    folder.mkdir(parents=True)
    count = SAMPLE + 50
    for number in range(count):
        (folder / f"{number:03d}.jpg").write_bytes(encode_jpeg(make_photo(24, 32, seed=number)))
    dump_split(tmp_path, tmp_path, "val", progress=False)
    path = tmp_path / "val.lmdb"
    facts, index = describe(path), load_index(str(path), str(path))
    others = set(range(count)) - {*facts["sample"]["numbers"], 0, count - 1}
    assert len(others) >= 45
    with open(path, "rb+") as file:
        for number in others:
            file.seek(index.offset[number])
            file.write(bytes(int(index.nbytes[number])))
    assert describe(path) == facts


def test_neither_pillow_nor_torch_is_loaded_for_jpegs(tiled_lmdb):
    code = ("import sys; from dataflows.tools.info.facts import as_text, describe; as_text(describe(sys.argv[1])); "
            "print([name for name in ('PIL', 'torch', 'cv2', 'matplotlib', 'numba', 'tensorpack') "
            "if name in sys.modules])")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tiled_lmdb / "val.lmdb"], text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


# Damaged and hostile files.

@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "not an LMDB", "index", "foreign index"])
def test_errors_are_those_of_the_store(damage, dumped, tiled_lmdb, capsys):
    index = dumped.parent / "train.lmdb.index.npz"
    if damage == "missing":
        dumped.unlink()
        index.unlink()
    elif damage in ("empty", "truncated", "not an LMDB"):
        content = {"empty": b"", "truncated": dumped.read_bytes()[:20_000], "not an LMDB": b"x" * 9999}
        dumped.write_bytes(content[damage])
        index.unlink()
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:-20])
    else:
        shutil.copy(tiled_lmdb / "val.lmdb.index.npz", index)
    with pytest.raises((OSError, ValueError)) as theirs:
        Store(dumped)
    with pytest.raises(type(theirs.value)) as ours:
        describe(dumped)
    assert str(ours.value) == str(theirs.value)
    assert main(["info", str(dumped)]) == (2 if damage == "missing" else 1)
    assert capsys.readouterr() == ("", f"{theirs.value}\n")


def test_a_record_that_is_none_is_named(dumped):
    index = load_index(str(dumped), str(dumped))
    with open(dumped, "rb+") as file:
        file.seek(index.offset[5])
        file.write(b"\xc1" * 20)
    [unreadable] = describe(dumped)["sample"]["unreadable"]
    assert unreadable["key"] == "00000005" and f"{dumped}, key 00000005: " in unreadable["error"]
    assert f"unreadable {dumped}, key 00000005:" in words(describe(dumped))


@pytest.mark.parametrize("part, value", [
    ("format", 5), ("split", None), ("layout", ["a"]), ("seed", "0"), ("class_names", ["one"]),
    ("class_names", [1, 2, 3]), ("options", []), ("tools", {"numpy": 2}), ("untiled", {"progressive": "one"}),
    ("findings", []), ("findings", {"grayscale": [23]}), ("findings", {"grayscale": [-1]}),
    ("findings", {"grayscale": [True]}), ("duplicates", [3]), ("skipped", ["a.jpg"]), ("skipped", [{"name": "a.jpg"}]),
    ("class_counts", "few"), ("left_out", [".gif"]), ("left_out", {".gif": "one"})])
def test_an_index_whose_parts_are_of_other_types_is_refused(part, value, dumped):
    change_meta(dumped, **{part: value})
    with pytest.raises(ValueError, match=f"train.lmdb.index.npz: {part} of its meta object is not what the format"):
        describe(dumped)


@pytest.mark.parametrize("part", ["class_names", "findings", "duplicates", "skipped", "class_counts", "untiled",
                                  "left_out"])
def test_an_index_may_lack_what_older_ones_did(part, dumped):
    change_meta(dumped, missing={part})
    assert part not in load_index(str(dumped), str(dumped)).written_meta()
    facts = describe(dumped)
    assert facts["records"] == 23 and as_text(facts)


def test_no_name_reaches_the_terminal_as_a_command(dumped):
    index = load_index(str(dumped), str(dumped))
    names = [HOSTILE, "plain", "猫" * 60]
    index = dataclasses.replace(index, name=np.full(23, b"\x1b]0;owned\x07.jpg"))
    save_index(index, dumped)
    change_meta(dumped, classes=names, class_names=names, layout=HOSTILE, split=HOSTILE, findings={HOSTILE: [0]},
                skipped=[{"name": HOSTILE, "reason": HOSTILE}], class_counts=[HOSTILE], untiled={HOSTILE: 1},
                left_out={HOSTILE: 1}, tools={HOSTILE: HOSTILE}, options={"tiles": True, HOSTILE: HOSTILE})
    facts = describe(dumped)
    text = as_text(facts)
    text.encode()  # no half of a surrogate pair
    assert not {unicodedata.category(c) for c in text.replace("\n", "")} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert text.count(r"\x1b[2Jgone\r\nnew line") >= 8 and r"\x1b]0;owned\x07.jpg" in text
    assert json.loads(json.dumps(facts)) == facts


# The command.

def test_the_command(tiled_lmdb, capsys):
    path = str(tiled_lmdb / "val.lmdb")
    assert main(["info", path]) == 0
    assert capsys.readouterr() == (as_text(describe(path)) + "\n", "")
    assert main(["info", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == describe(path)


# Parts.

@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.integers(1, 15))
def test_bins_hold_each_value_once(values, limit):
    found = bins(np.array(values), limit)
    assert len(found) <= limit
    for entry in found:
        assert entry["number"] == sum(entry["least"] <= value <= entry["most"] for value in values)
    assert sum(entry["number"] for entry in found) == len(values)
    assert all(before["most"] + 1 == after["least"] for before, after in zip(found, found[1:]))


def test_bins_have_round_bounds_and_leave_the_few_outside_to_the_outer_ones():
    sides = np.concatenate([np.full(600, 500), np.arange(330, 730), [9331, 11]])
    assert [(found["least"], found["most"]) for found in bins(sides, 10)] == [(11, 349)] + [
        (least, least + 49) for least in range(350, 700, 50)] + [(700, 9331)]
    assert [tuple(found.values()) for found in bins(np.array([375, 500, 500, 640]), 5)] == [
        (300, 399, 1), (400, 499, 0), (500, 599, 2), (600, 699, 1)]
    assert bins([50] * 50) == [{"least": 50, "most": 50, "number": 50}] and bins(np.array([], int)) == []


@given(st.text(), st.integers(1, 40))
def test_a_text_that_is_fitted_has_its_width(text, width):
    assert columns(fit(printable(text), width)) == width
    printable(text).encode()


def test_bars_are_exact_to_an_eighth_and_show_what_is_more_than_nothing():
    assert [bar(share, 4) for share in (0, 1e-9, 1 / 32, 0.5, 0.53125, 1)] == ["", "▏", "▏", "██", "██▏", "████"]


def test_sizes_are_in_decimal_units():
    assert [size_text(n) for n in (0, 999, 1000, 26_714_112, 10**15)] == [
        "0 bytes", "999 bytes", "1.0 KB", "26.7 MB", "1,000.0 TB"]
