"""What a dump says of its source: findings with their records, equal contents, class counts that differ."""
import hashlib
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataflows.dump.findings import ACROSS, DUPLICATE, FindingsCollector, class_counts, duplicates, examples, lines
from dataflows.storage.index import load_index
from dataflows.storage.store import Store
from dump_imagenet import dump_split, main
from helpers.odd_files import BAD, JPEG, LOSSY, PLAIN
from helpers.photos import CLASSES, encode_jpeg, make_photo
from uint_lmdb_loader import LMDBDataset


def digests(letters):
    return b"".join(hashlib.blake2b(bytes([letter]), digest_size=16).digest() for letter in letters)


@pytest.mark.parametrize("letters, groups", [(b"", []), (b"a", []), (b"abc", []), (b"aa", [[0, 1]]),
                                             (b"abcb", [[1, 3]]), (b"bacab", [[0, 4], [1, 3]]), (b"zzz", [[0, 1, 2]])])
def test_duplicates(letters, groups):
    assert duplicates(digests(letters)) == groups


@given(st.binary(max_size=60))
def test_duplicates_are_all_that_occurs_more_than_once(letters):
    groups = {letter: [i for i, other in enumerate(letters) if other == letter] for letter in letters}
    assert duplicates(digests(letters)) == sorted(group for group in groups.values() if len(group) > 1)


def test_findings_name_their_records():
    findings = FindingsCollector()
    for found, letter in ((("grayscale",), b"a"), ((), b"b"), (("CMYK", "grayscale"), b"a"), ((), b"b"), ((), b"c")):
        findings.add(found, digests(letter))
    result = findings.collected([0, 1, 2, 1, 0], CLASSES, "train")
    assert result.findings == {"CMYK": [2], "grayscale": [0, 2], DUPLICATE: [0, 1, 2, 3], ACROSS: [0, 2]}
    assert result.duplicates == [[0, 2], [1, 3]] and result.class_counts == []
    assert json.loads(json.dumps(result._asdict())) == result._asdict()


# ImageNet has 1,000 classes: 895 of 1,300 images, the least of 732.
WNIDS = [f"n{i:08}" for i in range(1000)]
TRAIN = [732] + [1300] * 895 + [1124] * 104
TRAIN[-1] += 1_281_167 - sum(TRAIN)


def test_imagenets_own_class_counts_are_no_finding():
    assert sum(TRAIN) == 1_281_167 and max(TRAIN) == 1300
    assert class_counts("train", WNIDS, TRAIN) == [] == class_counts("val", WNIDS, [50] * 1000)


def test_other_class_counts_are_told():
    assert class_counts("val", WNIDS, [50] * 998 + [49, 51]) == [
        "49 of class n00000998, of which ImageNet's val has 50",
        "51 of class n00000999, of which ImageNet's val has 50"]
    assert class_counts("train", WNIDS, [0, *TRAIN[1:]]) == [
        "1,280,435 images, and ImageNet's train has 1,281,167",
        "0 of class n00000000, of which ImageNet's train has 732 to 1,300"]


@pytest.mark.parametrize("split, classes", [("test", WNIDS), ("train", WNIDS[1:]), ("train", [*WNIDS[1:], "cats"])])
def test_other_datasets_have_no_class_counts_to_compare(split, classes):
    assert class_counts(split, classes, [5] * len(classes)) == []


def test_the_summary_gives_counts_some_names_and_the_first_classes():
    names = [b"a", b"b", b"c\xe9", b"d"]
    findings = {"CMYK": [0, 1, 2, 3], "grayscale": [1]}
    named = examples(findings, names)
    assert lines({"CMYK": 4, "grayscale": 1}, named, ["few"] * 12, "x.npz") == [
        "found, with the numbers of the records in x.npz:", "  4 CMYK: a, b, c\udce9, ...", "  1 grayscale: b",
        *["few"] * 10, "and 2 other classes"]
    assert lines({}, {}, [], "x.npz") == []


# In a dump.

@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A split with a file of each kind in one class, photos and the same file twice in two others."""
    root = tmp_path_factory.mktemp("odd") / "source"
    odd, *others = (root / "val" / name for name in CLASSES)
    for seed, folder in enumerate((odd, *others)):
        folder.mkdir(parents=True)
        (folder / "one.jpg").write_bytes(encode_jpeg(make_photo(40, 50, seed)))
        (folder / "same.jpg").write_bytes(encode_jpeg(make_photo(40, 50, 9)))
    (others[0] / "again.jpg").write_bytes(encode_jpeg(make_photo(40, 50, 9)))
    for name, content in {name: row[0] for name, row in (PLAIN | LOSSY | BAD).items()}.items():
        (odd / name).write_bytes(content)
    return root


def without_bad(odd, tmp_path):
    """A copy of the source in which nothing is left that cannot be fixed."""
    for path in (odd / "val").rglob("*.*"):
        if path.name not in BAD:
            copy = tmp_path / "source" / path.relative_to(odd)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "source"


def files(source):
    return {path.relative_to(source / "val").as_posix() for path in (source / "val").rglob("*.*")}


def checked(summary):
    """{name: findings} of the records of a dump, of which the index and the summary say the same."""
    index = load_index(summary.path, summary.path)
    names = [name.decode() for name in index.name.tolist()]
    assert summary.findings == {finding: len(numbers) for finding, numbers in index.meta.findings.items()}
    assert (summary.skipped, summary.class_counts) == (index.meta.skipped, index.meta.class_counts)
    text = str(summary)
    for finding, count in summary.findings.items():
        assert f"  {count} {finding}: {names[index.meta.findings[finding][0]]}" in text
    found = {name: set() for name in names}
    for finding, numbers in index.meta.findings.items():
        assert numbers == sorted(set(numbers))
        for number in numbers:
            found[names[number]].add(finding)
    return found


@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
@pytest.mark.parametrize("split_options", [dict(num_workers=1), dict(num_workers=4, shuffle=True)])
def test_each_source_file_is_a_record_or_listed(odd, tmp_path, image_format, split_options):
    summary = dump_split(odd, tmp_path, "val", format=image_format, on_error="skip", progress=False, **split_options)
    found = checked(summary)
    skipped = {entry["name"]: entry["reason"] for entry in summary.skipped}
    assert found.keys() | skipped.keys() == files(odd) and not found.keys() & skipped.keys()
    assert skipped.keys() == {f"{CLASSES[0]}/{name}" for name in BAD} and all(skipped.values())
    for name, (_, findings) in (PLAIN | LOSSY).items():
        assert found[f"{CLASSES[0]}/{name}"] >= set(findings)
    assert found[f"{CLASSES[1]}/again.jpg"] == {DUPLICATE, ACROSS}


@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
@pytest.mark.parametrize("options", [{}, dict(on_error="fix"), dict(on_error="skip")])
def test_what_has_an_rgb_form_is_stored_as_the_loaders_show_it(odd, tmp_path, image_format, options):
    source = without_bad(odd, tmp_path)
    summary = dump_split(source, tmp_path, "val", format=image_format, progress=False, **options)
    found = checked(summary)
    assert found.keys() == files(source) and summary.skipped == [] and summary.count == len(files(source))
    converted = {name for name, findings in found.items() if "converted to RGB" in findings}
    assert converted == {f"{CLASSES[0]}/{name}" for name in LOSSY}
    assert (summary.findings["CMYK"], summary.findings["YCCK"]) == (3, 1)
    dataset, index = LMDBDataset(summary.path, image_type="numpy"), Store(summary.path).index
    for number, name in enumerate(index.name.tolist()):
        if name.decode().endswith("/cmyk.jpg"):
            with Image.open(io.BytesIO(LOSSY["cmyk.jpg"][0])) as image:
                expected = np.asarray(image.convert("RGB"))
            assert np.abs(dataset[number][0].astype(int) - expected).max() <= (4 if image_format == "jpeg" else 0)


@pytest.mark.parametrize("on_error, name, words", [
    ("raise", "cmyk.jpg", "cmyk.jpg: CMYK: .*on_error='fix' stores PIL's"),
    ("raise", "half.jpg", "half.jpg: the JPEG file is truncated or damaged: .*on_error='skip'"),
    ("fix", "half.jpg", "half.jpg: the JPEG file is truncated or damaged: .*on_error='skip'"),
    *[(mode, "deep gray.png", "deep gray.png: it is 16-bit gray, which has no faithful RGB form.*on_error='skip'")
      for mode in ("raise", "fix")],
    ("fix", "bomb.png", "bomb.png: it states 60,000 x 60,000 pixels.*max_pixels=3600000000")])
def test_a_dump_stops_at_an_error_and_says_what_to_do(tmp_path, on_error, name, words, capsys):
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    (folder / "a photo.jpg").write_bytes(JPEG)
    (folder / name).write_bytes((LOSSY | BAD)[name][0])
    with pytest.raises(ValueError, match=words):
        dump_split(tmp_path / "source", tmp_path / "out", "val", on_error=on_error, progress=False)
    argv = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "out"), "--split", "val", "--no-progress"]
    assert main([*argv, "--on-error", on_error]) == 1
    told = capsys.readouterr().err
    assert str(folder / name) in told and re.search("--(on-error (fix|skip)|max-pixels 36)", told)
    assert list((tmp_path / "out").iterdir()) == []
    assert main([*argv, "--on-error", "skip"]) == 0
    assert f"class/{name}" in capsys.readouterr().out


def test_equal_files_are_grouped_in_the_index(odd, tmp_path):
    summary = dump_split(odd, tmp_path, "val", on_error="skip", progress=False)
    index = load_index(summary.path, summary.path)
    groups = [{index.name[number].decode() for number in group} for group in index.meta.duplicates]
    assert {f"{name}/same.jpg" for name in CLASSES} | {f"{CLASSES[1]}/again.jpg"} in groups
    assert summary.findings[DUPLICATE] == sum(map(len, groups))


def test_the_classes_of_imagenet_are_counted(tmp_path):
    for name in WNIDS:
        (tmp_path / "source" / "val" / name).mkdir(parents=True)
        (tmp_path / "source" / "val" / name / "0.JPEG").write_bytes(JPEG)
    summary = dump_split(tmp_path / "source", tmp_path, "val", progress=False, tiles=False)
    assert summary.class_counts[:2] == ["1,000 images, and ImageNet's val has 50,000",
                                        "1 of class n00000000, of which ImageNet's val has 50"]
    assert load_index(summary.path, summary.path).meta.class_counts == summary.class_counts
    assert summary.findings == {DUPLICATE: 1000, ACROSS: 1000}
    assert "1,000 images, and ImageNet's val has 50,000" in str(summary)


def test_a_dump_decodes_what_it_stored(odd, tmp_path):
    """What the loaders decode has the size that the index states, for every kind of file."""
    summary = dump_split(odd, tmp_path, "val", on_error="skip", progress=False)
    store = Store(summary.path)
    dataset = LMDBDataset(summary.path, image_type="numpy")
    for number in range(summary.count):
        assert dataset[number][0].shape == (store.index.height[number], store.index.width[number], 3)
