"""Which files a split holds, and their order: torchvision's."""
import contextlib
import os
import pathlib
import re
import socket
import tempfile

import pytest

from dataflows.sources.imagenet import EXTENSIONS, ImageNetFiles


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
                           match=f"no folder {re.escape(str(tmp_path / split))}.*SPLIT/CLASS.*check source and split"):
            ImageNetFiles(tmp_path, split)


def test_a_split_without_class_folders(tmp_path):
    make(tmp_path / "val", "1.jpg")
    with pytest.raises(FileNotFoundError,
                       match=f"{re.escape(str(tmp_path / 'val'))} holds no class folders.*sort its images"):
        ImageNetFiles(tmp_path, "val")


def test_classes_without_images_are_all_named(tmp_path):
    make(tmp_path / "val", "a/1.jpg", "b/notes.txt")
    b, c = tmp_path / "val" / "b", tmp_path / "val" / "c"
    with pytest.raises(FileNotFoundError, match=f"class {re.escape(str(b))} holds no image.*Remove or fill it$"):
        ImageNetFiles(tmp_path, "val")
    c.mkdir()
    with pytest.raises(FileNotFoundError,
                       match=f"classes {re.escape(f'{b}, {c}')} hold no image: every class.*Remove or fill them$"):
        ImageNetFiles(tmp_path, "val")
    files = ImageNetFiles(tmp_path, "val", tolerant=True)
    assert files.empty == [str(b), str(c)] and list(files) == [["a/1.jpg", 0]] and files.classes == ["a", "b", "c"]


# What is no image, or nobody can tell.

APPLE_DOUBLE = b"\0\x05\x16\x07\0\x02\0\0Mac OS X        "


def test_all_other_files_are_counted_by_kind(tmp_path):
    make(tmp_path / "val", "c/1.jpg", "c/a.gif", "c/b.GIF", "d/1.jpg", "d/deep/x.avif", "c/README", "c/x.jpg~",
         "c/.hidden", "c/x.0001", "c/x.éa", "c/x.longerthanany", "top.txt", "beside.png", "d/.DS_Store")
    (tmp_path / "val" / "c" / "folder.gif").mkdir()
    assert ImageNetFiles(tmp_path, "val").left_out == {
        "with another extension": 3, ".gif": 2, "without an extension": 2, ".avif": 1, ".jpg~": 1, ".txt": 1,
        "image beside the classes": 1, "macOS companion": 1}


def test_of_many_kinds_the_rarest_are_counted_together(tmp_path):
    make(tmp_path / "val", "c/1.jpg", *(f"c/x.a{i}" for i in range(40)), *(f"c/{i}.gif" for i in range(3)))
    left_out = ImageNetFiles(tmp_path, "val").left_out
    assert len(left_out) == 31 and left_out[".gif"] == 3 and left_out["with another extension"] == 11


def test_flat_images_have_other_files_beside_them(tmp_path):
    make(tmp_path / "val", "1.jpg", "2.jpg", "notes.md")
    (tmp_path / "val" / "synsets.txt").write_text("n01440764\nn01443537\n")
    assert ImageNetFiles(tmp_path, "val").left_out == {".md": 1, ".txt": 1}


def test_companions_of_macos_are_no_images_but_by_their_name_alone_nothing_is_one(tmp_path):
    make(tmp_path / "val", "a/1.jpg", "a/._real.jpg", "a/._empty.jpg")
    (tmp_path / "val" / "__MACOSX" / "a").mkdir(parents=True)
    for name in ("a/._1.jpg", "a/._1.gif", "__MACOSX/a/._1.jpg", "__MACOSX/._a"):
        (tmp_path / "val" / name).write_bytes(APPLE_DOUBLE)
    ds = ImageNetFiles(tmp_path, "val")
    assert [name for name, _ in ds] == ["a/._empty.jpg", "a/._real.jpg", "a/1.jpg"] and ds.classes == ["a"]
    assert ds.left_out == {"macOS companion": 4}
    make(tmp_path / "val", "__MACOSX/2.jpg")
    assert ImageNetFiles(tmp_path, "val").classes == ["__MACOSX", "a"]


@pytest.fixture
def lost(tmp_path):
    """A split with links that may be folders of images and are not there, or lead in a circle."""
    make(tmp_path / "val", "a/1.jpg", "b/deep/2.jpg")
    for name, to in (("gone", "/nowhere/n01440764"), ("b/gone", "../../gone"), ("a/self", "self"),
                     ("b/deep/up", "../../b"), ("a/broken.jpg", "nowhere.jpg"), ("a/circle.jpg", "circle.jpg")):
        os.symlink(to, tmp_path / "val" / name)
    return tmp_path


def test_folders_that_nobody_can_look_into_are_all_named(lost):
    with pytest.raises(OSError, match="4 folders or links may hold more images.*Make them readable or remove") as info:
        ImageNetFiles(lost, "val")
    for words in ("val/gone: it is a link to /nowhere/n01440764, which is not there", "val/b/gone: it is a link",
                  "val/a/self: it cannot be looked at: Too many levels", "val/b/deep/up: .* leads back to a folder"):
        assert re.search(words, str(info.value))
    ds = ImageNetFiles(lost, "val", tolerant=True)
    assert [name for name, _ in ds] == ["a/1.jpg", "a/broken.jpg", "a/circle.jpg", "b/deep/2.jpg"]
    assert [name for name, _ in ds.unreadable] == ["a/self", "b/deep/up", "b/gone", "gone"]
    for name in ("a/broken.jpg", "a/circle.jpg"):
        with pytest.raises(OSError, match=name):
            ds.read(name)


def test_a_link_to_a_folder_above_the_split_leads_back_too(tmp_path):
    make(tmp_path / "val", "a/1.jpg")
    os.symlink("../..", tmp_path / "val" / "a" / "up")
    ds = ImageNetFiles(tmp_path, "val", tolerant=True)
    assert [name for name, _ in ds] == ["a/1.jpg"] and [name for name, _ in ds.unreadable] == ["a/up/val"]


def test_what_is_called_like_an_image_and_is_no_file(tmp_path, monkeypatch):
    make(tmp_path / "val", "a/1.jpg")
    os.mkfifo(tmp_path / "val" / "a" / "2.jpg")
    os.mkfifo(tmp_path / "val" / "a" / "._3.jpg")
    os.symlink("/dev/zero", tmp_path / "val" / "a" / "4.jpg")
    monkeypatch.chdir(tmp_path / "val" / "a")  # for the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("5.jpg")
    ds = ImageNetFiles(tmp_path, "val")
    for name, words in (("2.jpg", "named pipe"), ("._3.jpg", "named pipe"), ("4.jpg", "device"), ("5.jpg", "socket")):
        assert [f"a/{name}", 0] in list(ds)
        with pytest.raises(OSError, match=f"it is a {words}, not a file: '.*{name}'"):
            ds.read(f"a/{name}")
    assert ds.read("a/1.jpg") == b"a/1.jpg"


# Folders without permission, as a user who is not root.

@contextlib.contextmanager
def as_nobody():
    """The body runs without root's rights, for which there is no permission that is missing."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that all users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        path.chmod(0o755)
        yield path
        for each in path.rglob("*"):
            if each.is_dir():
                each.chmod(0o755)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
@pytest.mark.parametrize("closed", ["a/deep", "a"])
def test_a_folder_without_permission_is_named(open_folder, closed, mode):
    make(open_folder / "val", "a/1.jpg", "a/deep/2.jpg", "b/3.jpg")
    os.symlink("deep", open_folder / "val" / "a" / "link")
    (open_folder / "val" / closed).chmod(mode)
    with as_nobody():
        ds = ImageNetFiles(open_folder, "val", tolerant=True)
        told = {name for name, _ in ds.unreadable} | set(ds.empty)
        for name, _ in ds:
            try:
                ds.read(name)
            except PermissionError:
                told.add(name)
        if mode != 0o444:  # else what is in it can be listed, and reading fails
            with pytest.raises(OSError, match=f"{closed}: it cannot be listed: Permission denied"):
                ImageNetFiles(open_folder, "val")
    listed = {"a/deep/2.jpg", "a/link/2.jpg"} if closed == "a/deep" else {"a/1.jpg", "a/deep", "a/link"}
    folders = {"a/deep", "a/link"} if closed == "a/deep" else {"a", str(open_folder / "val" / "a")}
    assert told == (listed if mode == 0o444 else folders)


def test_a_class_that_nobody_can_look_into_is_not_called_empty(open_folder):
    """Its user would remove it, and lose its images."""
    make(open_folder / "val", "a/1.jpg", "ab/2.jpg", "b/deep/3.jpg")
    os.mkdir(open_folder / "val" / "c")
    root = re.escape(str(open_folder / "val"))
    for closed in ("ab", "b/deep"):
        (open_folder / "val" / closed).chmod(0o000)
    with as_nobody():
        files = ImageNetFiles(open_folder, "val", tolerant=True)
        with pytest.raises(OSError, match=f"2 folders or links may hold more images.*{root}/ab: it cannot be listed: "
                           f"Permission denied.*classes {root}/ab, {root}/b have no image that can be seen: every "
                           f"class needs one, also with on_error='skip'. Make them readable, or remove them. class "
                           f"{root}/c holds no image: .*Remove or fill it$"):
            files.refuse()
        with pytest.raises(OSError, match=rf"^classes {root}/ab, {root}/b have no image that can be seen \({root}/ab: "
                           rf"it cannot be listed: Permission denied; {root}/b/deep: .*denied\): every class needs"):
            files.refuse(unreadable=False)


@pytest.mark.parametrize("closed", ["", "val"])
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_source_without_permission_says_so(open_folder, closed, mode):
    make(open_folder / "source" / "val", "a/1.jpg")
    (open_folder / "source" / closed).chmod(mode)
    with as_nobody():
        if closed == "" and mode == 0o111:  # it may be entered, and the split is known by name
            assert len(ImageNetFiles(open_folder / "source", "val")) == 1
        else:
            with pytest.raises(OSError, match="cannot be (looked into|listed): Permission denied.*Make"):
                ImageNetFiles(open_folder / "source", "val")


def test_a_split_that_is_a_link_to_nothing(tmp_path):
    os.symlink("/nowhere/val", tmp_path / "val")
    with pytest.raises(FileNotFoundError, match="val is a link to /nowhere/val, which is not there"):
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
