"""Which files a split holds, and their order: torchvision's."""
import os
import re

import pytest

from dataflows.imagenet import EXTENSIONS, ImageNetFiles


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_classes_and_files_are_sorted_as_torchvision_sorts_them(tmp_path):
    make(tmp_path / "train", "b/2.jpg", "b/10.jpg", "b/1.jpg", "a/x.jpg", "B/y.jpg", "a10/z.jpg", "a2/z.jpg")
    ds = ImageNetFiles(tmp_path, "train")
    assert ds.classes == ["B", "a", "a10", "a2", "b"]
    assert list(ds) == [["B/y.jpg", 0], ["a/x.jpg", 1], ["a10/z.jpg", 2], ["a2/z.jpg", 3], ["b/1.jpg", 4],
                        ["b/10.jpg", 4],
                        ["b/2.jpg", 4]]
    assert len(ds) == 7


def test_nested_folders_belong_to_their_class_in_the_order_of_their_paths(tmp_path):
    make(tmp_path / "train", "c/z.jpg", "c/a/2.jpg", "c/a/1.jpg", "c/a/deep/1.jpg", "c/a-1/1.jpg", "c/b/1.jpg")
    assert [name for name, _ in ImageNetFiles(tmp_path, "train")] == [
        "c/z.jpg", "c/a/1.jpg", "c/a/2.jpg", "c/a-1/1.jpg", "c/a/deep/1.jpg", "c/b/1.jpg"]


def test_extensions_in_any_case_and_nothing_else(tmp_path):
    images = sorted([f"c/1{e}" for e in EXTENSIONS] + [f"c/2{e.upper()}" for e in EXTENSIONS] + [
        "c/.jpg", "c/a b.Jpeg", "c/é.png"])
    make(tmp_path / "val", *images, "c/notes.txt", "c/jpg", "c/x.jpg.txt", "c/x.gif", "c/x.jpg~", "c/.DS_Store",
         "top.jpg")
    (tmp_path / "val" / "c" / "folder.jpg").mkdir()
    assert [name for name, _ in ImageNetFiles(tmp_path, "val")] == images


def test_torchvisions_extensions():
    assert EXTENSIONS == (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def test_symbolic_links_are_followed(tmp_path):
    make(tmp_path / "elsewhere", "1.jpg", "deep/2.jpg")
    make(tmp_path / "train", "a/0.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "train" / "b")
    os.symlink(tmp_path / "elsewhere" / "deep", tmp_path / "train" / "a" / "link")
    os.symlink(tmp_path / "elsewhere" / "1.jpg", tmp_path / "train" / "a" / "9.jpg")
    os.symlink(tmp_path / "train", tmp_path / "linked")
    for split in ("train", "linked"):
        ds = ImageNetFiles(tmp_path, split)
        assert list(ds) == [["a/0.jpg", 0], ["a/9.jpg", 0], ["a/link/2.jpg", 0], ["b/1.jpg", 1], ["b/deep/2.jpg", 1]]
        assert ds.read("b/deep/2.jpg") == b"deep/2.jpg"


@pytest.mark.parametrize("form", [str, os.fspath, lambda path: path, lambda path: f"{path}/",
                                  lambda path: f"{path}/../{path.name}"])
def test_names_do_not_depend_on_how_the_source_is_written(tmp_path, form):
    make(tmp_path / "source" / "val", "a/1.jpg", "b/1.jpg")
    ds = ImageNetFiles(form(tmp_path / "source"), "val")
    assert list(ds) == [["a/1.jpg", 0], ["b/1.jpg", 1]] and ds.read("b/1.jpg") == b"b/1.jpg"


def test_a_relative_source(tmp_path, monkeypatch):
    make(tmp_path / "val", "a/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert list(ImageNetFiles(".", "val")) == [["a/1.jpg", 0]]


def test_the_seed_fixes_the_permutation(tmp_path):
    make(tmp_path / "train", *[f"a/{i}.jpg" for i in range(6)], *[f"b/{i}.jpg" for i in range(4)])
    straight = list(ImageNetFiles(tmp_path, "train"))
    # Files in use were written in these orders: change them only if you mean to.
    for seed, order in ((0, [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]), (1, [8, 4, 7, 0, 1, 2, 5, 9, 6, 3])):
        ds = ImageNetFiles(tmp_path, "train", seed=seed)
        assert list(ds) == list(ds) == [straight[i] for i in order] and ds.classes == ["a", "b"]


def test_a_missing_split_names_folder_rule_and_remedy(tmp_path):
    make(tmp_path, "train")
    for split in ("val", "train"):  # the latter is a file
        with pytest.raises(FileNotFoundError,
                           match=f"no folder {re.escape(str(tmp_path / split))}.*SPLIT/CLASS.*--source and --split"):
            ImageNetFiles(tmp_path, split)


def test_a_split_without_class_folders(tmp_path):
    make(tmp_path / "val", "1.jpg")
    with pytest.raises(FileNotFoundError,
                       match=f"{re.escape(str(tmp_path / 'val'))} holds no class folders.*sort its images"):
        ImageNetFiles(tmp_path, "val")


def test_a_class_without_images(tmp_path):
    make(tmp_path / "val", "a/1.jpg", "b/notes.txt")
    with pytest.raises(FileNotFoundError,
                       match=f"{re.escape(str(tmp_path / 'val' / 'b'))} holds no image.*Remove the folder or fill it"):
        ImageNetFiles(tmp_path, "val")


def test_a_file_that_vanished(tmp_path):
    make(tmp_path / "val", "a/1.jpg")
    ds = ImageNetFiles(tmp_path, "val")
    (tmp_path / "val/a/1.jpg").unlink()
    with pytest.raises(OSError):
        ds.read("a/1.jpg")


def test_class_names_are_the_folders_where_nothing_says_more(tmp_path):
    make(tmp_path / "val", "b/1.jpg", "a/1.jpg")
    ds = ImageNetFiles(tmp_path, "val")
    assert ds.class_names == ds.classes == ["a", "b"] and ds.layout == "class folders in val"


def test_pointers_are_a_sequence(tmp_path):
    make(tmp_path / "val", "a/1.jpg", "a/2.jpg", "b/1.jpg")
    pointers = ImageNetFiles(tmp_path, "val").pointers
    whole = [["a/1.jpg", 0], ["a/2.jpg", 0], ["b/1.jpg", 1]]
    assert list(pointers) == whole and len(pointers) == 3 and pointers[-1] == ["b/1.jpg", 1]
    assert pointers[1:] == whole[1:] and pointers[::-2] == whole[::-2] and ["a/2.jpg", 0] in pointers
    assert [type(value) for value in pointers[0]] == [str, int]
    for number in (3, -4):
        with pytest.raises(IndexError):
            pointers[number]
    pointers[0].append("changed by a caller")
    assert pointers[0] == ["a/1.jpg", 0]
