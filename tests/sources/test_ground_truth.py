"""Which files beside the images are taken for their classes and names, and that they must fit and agree."""
import os
import re

import pytest

from dataflows.sources.ground_truth import class_names, folders_near, labels_of, truth_files
from helpers.imagenet_forms import (
    ARCHIVE,
    DEVKIT,
    MAPPING,
    SOLUTION,
    SYNSET_LIST,
    TRUTHS,
    VAL,
    VAL_CLASSES,
    WORDS,
    lines,
    meta_mat,
    write,
)
from helpers.photos import CLASSES

NAMES = list(VAL)
IDS_FILE = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META_FILE = "ILSVRC2012_devkit_t12/data/meta.mat"
LIST_FILE = next(iter(SYNSET_LIST))


def found(root, names=NAMES):
    """Wnids, and the files' paths below root."""
    wnids, paths = labels_of(names, [str(root)])
    return wnids, [os.path.relpath(path, root) for path in paths]


def fails(root, words, names=NAMES, error=ValueError):
    with pytest.raises(error, match=words) as info:
        found(root, names)
    assert str(root) in str(info.value)


@pytest.mark.parametrize("truth", TRUTHS)
def test_each_ground_truth(truth, tmp_path):
    assert found(write(tmp_path, TRUTHS[truth]))[0] == VAL_CLASSES


def test_all_at_once_must_agree(tmp_path):
    write(tmp_path, SYNSET_LIST | SOLUTION | ARCHIVE)
    assert found(tmp_path) == (VAL_CLASSES, ["LOC_val_solution.csv", LIST_FILE, "ILSVRC2012_devkit_t12.tar.gz"])
    write(tmp_path, {LIST_FILE: lines([*VAL_CLASSES[:-1], CLASSES[0]])})
    fails(tmp_path, re.escape(f"LOC_val_solution.csv and {tmp_path / LIST_FILE} disagree: image {NAMES[-1]} is "
                              f"{CLASSES[1]} in the first, and {CLASSES[0]} in the second. Remove the wrong one"))


@pytest.mark.parametrize("folder", ["", "data", "ILSVRC2012_devkit_t12"])
def test_the_devkits_data_may_be_in_other_folders(folder, tmp_path):
    write(tmp_path / folder, {os.path.basename(name): content for name, content in DEVKIT.items()})
    assert found(tmp_path) == (VAL_CLASSES, [folder or "."])


@pytest.mark.parametrize("name", ["ILSVRC2012_devkit_t12.tgz", "ILSVRC2012_devkit_t12.gz"])
def test_the_devkits_archive_under_other_names(name, tmp_path):
    assert found(write(tmp_path, {name: next(iter(ARCHIVE.values()))})) == (VAL_CLASSES, [name])


def test_any_text_of_wnids_is_a_ground_truth_but_a_list_of_classes(tmp_path):
    write(tmp_path, {"val.txt": b"\xef\xbb\xbf" + lines(VAL_CLASSES, "\r\n"), "synsets.txt": lines(CLASSES),
                     "words.txt": lines(WORDS.items()), "other.txt": b"n01440764 1\n", "empty.txt": b"",
                     "binary.txt": bytes(range(256)), "wnids.csv": lines(CLASSES)})
    assert found(tmp_path) == (VAL_CLASSES, ["val.txt"])
    os.mkdir(tmp_path / "folder.txt")
    os.unlink(tmp_path / "val.txt")
    fails(tmp_path, "nothing says which classes its 7 images have", error=FileNotFoundError)
    assert found(tmp_path, NAMES[:3]) == (list(CLASSES), ["synsets.txt"])  # of one image per class


def test_the_nearest_folders_are_searched(tmp_path):
    kaggle = tmp_path / "ILSVRC/Data/CLS-LOC"
    (kaggle / "val").mkdir(parents=True)
    (tmp_path / "plain/val").mkdir(parents=True)
    assert folders_near(str(tmp_path / "plain/val")) == [str(tmp_path / "plain/val"), str(tmp_path / "plain")]
    assert folders_near(str(tmp_path / "plain/a.tar")) == [str(tmp_path / "plain")]
    assert folders_near(str(kaggle / "val") + "/") == [
        *map(str, (kaggle / "val", kaggle, kaggle.parent, kaggle.parent.parent, tmp_path))]


def test_folders_near_a_relative_path(tmp_path, monkeypatch):
    (tmp_path / "val").mkdir()
    monkeypatch.chdir(tmp_path)
    assert folders_near("./val") == [str(tmp_path / "val"), str(tmp_path)]


# What does not fit.

def test_no_ground_truth(tmp_path):
    fails(tmp_path, "nothing says which classes its 7 images have.*ILSVRC2012_devkit_t12", error=FileNotFoundError)
    assert truth_files([str(tmp_path)]) == []


@pytest.mark.parametrize("truth", ["synset list", "devkit", "devkit archive"])
def test_a_list_of_another_length_names_both_counts(truth, tmp_path):
    write(tmp_path, TRUTHS[truth])
    fails(tmp_path, "there are 6 images, and .* has the classes of 7. Add the missing", NAMES[:-1])
    fails(tmp_path, "there are 8 images, and .* has the classes of 7", [*NAMES, "x.JPEG"])


@pytest.mark.parametrize("names, words", [
    (NAMES[2:], "there are 5 images, and .* of 7: 2 images in it are missing .ILSVRC2012_val_00000001, .*2[)]"),
    ([*NAMES, "x.JPEG"], "there are 8 images, and .* of 7: 1 images are not in it .x[)]"),
    ([*NAMES[1:], "x.JPEG"], "there are 7 .*1 images are not in it .x. and 1 images in it are missing .ILSVRC.*1[)]"),
    ([f"{i}.JPEG" for i in range(5)], "5 images are not in it .0, 1, 2, ...[)]"),
    (sorted([*NAMES, NAMES[0].replace("JPEG", "png")]), "8 images, .* 1 images are there with several extensions"),
])
def test_a_solution_of_other_images_names_some(names, words, tmp_path):
    fails(write(tmp_path, SOLUTION), words, names)


@pytest.mark.parametrize("changed, words", [
    ({IDS_FILE: lines([1, 2, 3, 4, 1, 1, 1])},
     "ground_truth.txt, line 4: none of the 3 classes in meta.mat has the ILSVRC2012_ID 4"),
    ({IDS_FILE: lines([1, 2, "x"])}, "ground_truth.txt, line 3: 'x' must be an ILSVRC2012_ID"),
    ({META_FILE: meta_mat()[:500]}, "data: meta.mat is not the devkit's meta.mat"),
    ({META_FILE: None}, "lacks meta.mat. Take ILSVRC2012_devkit_t12.tar.gz as it is"),
])
def test_a_damaged_devkit(changed, words, tmp_path):
    files = {**DEVKIT, **changed}
    write(tmp_path, {name: content for name, content in files.items() if content is not None})
    fails(tmp_path, words)


def test_a_damaged_archive(tmp_path):
    (name, whole), = ARCHIVE.items()
    for content in (b"", b"text", whole[:len(whole) // 2], whole[:20], whole[:100] + b"x" * 50 + whole[150:]):
        fails(write(tmp_path, {name: content}), f"{name} (is damaged|lacks).*Take {name} as it is")


def test_a_wrong_line_in_a_list(tmp_path):
    fails(write(tmp_path, {LIST_FILE: lines([*VAL_CLASSES[:3], "tench", *VAL_CLASSES[4:]])}), f"{LIST_FILE}, line 4")


# Names of classes.

@pytest.mark.parametrize("files, file", [
    (MAPPING, "LOC_synset_mapping.txt"), ({"synset_words.txt": MAPPING["LOC_synset_mapping.txt"]}, "synset_words.txt"),
    (DEVKIT, "ILSVRC2012_devkit_t12/data"), (ARCHIVE, "ILSVRC2012_devkit_t12.tar.gz"),
    (MAPPING | ARCHIVE, "LOC_synset_mapping.txt")])
def test_names_of_classes_and_their_file(files, file, tmp_path):
    assert class_names([str(write(tmp_path, files))]) == (WORDS, str(tmp_path / file))


def test_no_names_of_classes(tmp_path):
    assert class_names([str(write(tmp_path, SYNSET_LIST | SOLUTION))]) == ({}, None)
