"""Every form that ImageNet comes in gives the same samples, and the same dump; several at once are an error."""
import os
import pickle
import re
import shutil
import subprocess
import sys

import pytest

from dataflows.errors import Refused
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.storage.index import load_index
from dataflows.storage.store import Store
from dump_imagenet import dump_split, main
from helpers.imagenet_forms import (
    ARCHIVE,
    DEVKIT,
    FORMS,
    KAGGLE,
    SAMPLES,
    SOLUTION,
    SYNSET_LIST,
    TRAIN,
    TRAIN_SAMPLES,
    TRAIN_TAR,
    VAL,
    VAL_CLASSES,
    VAL_FOLDERS,
    VAL_SAMPLES,
    VAL_TAR,
    WORDS,
    class_tars,
    under,
    write,
)
from helpers.paths import ROOT
from helpers.photos import CLASSES


def samples(ds):
    return [(ds.read(name), label) for name, label in ds]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(form, tmp_path):
    files, split, inner, named = FORMS[form]
    ds = ImageNetFiles(write(tmp_path, files) / inner, split)
    assert samples(ds) == SAMPLES[split]
    assert ds.classes == list(CLASSES)
    assert ds.class_names == ([WORDS[wnid] for wnid in CLASSES] if named else ds.classes)
    assert str(tmp_path) not in ds.layout and ("class names of" in ds.layout) == named
    assert samples(pickle.loads(pickle.dumps(ds))) == SAMPLES[split]
    assert sorted(samples(ImageNetFiles(tmp_path / inner, split, seed=3))) == sorted(SAMPLES[split])


@pytest.mark.parametrize("split, options", [("train", {}), ("train", dict(shuffle=False)), ("val", {})])
def test_every_form_gives_the_same_dump(split, options, tmp_path):
    dumps = set()
    forms = [form for form in FORMS if FORMS[form][1] == split]
    for form in forms[::2] if split == "train" else forms:
        files, _, inner, named = FORMS[form]
        source = write(tmp_path / "source", files)
        path = tmp_path / f"{split}.lmdb"
        summary = dump_split(source / inner, tmp_path, split, progress=False, overwrite=True, tiles=False,
                             num_workers=2, **options)
        store = Store(path)
        dumps.add(b"".join(store.value(i).tobytes() for i in range(len(store))))
        index = load_index(str(path), str(path))
        assert index.meta.layout == summary.layout == ImageNetFiles(source / inner, split).layout
        assert index.class_names == ([WORDS[wnid] for wnid in CLASSES] if named else list(CLASSES))
        assert str(tmp_path) not in str(index.meta)
        shutil.rmtree(source)
    assert len(dumps) == 1 and len(store) == len(SAMPLES[split])


def test_the_layout_is_printed(tmp_path, capfd):
    write(tmp_path, VAL_TAR | ARCHIVE)
    assert main(["--source", str(tmp_path), "--target", str(tmp_path), "--split", "val"]) == 0
    out, err = capfd.readouterr()
    layout = ("flat images in ILSVRC2012_img_val.tar, labels of ILSVRC2012_devkit_t12.tar.gz, class names of "
              "ILSVRC2012_devkit_t12.tar.gz")
    assert f"reading {layout}\n" in err and f"Source: {layout}\n" in out


def test_a_dump_of_a_tar_writes_nothing_but_the_dump(tmp_path):
    source = write(tmp_path / "source", TRAIN_TAR)
    before = [(path, path.stat().st_mtime_ns) for path in source.rglob("*")]
    dump_split(source, tmp_path / "target", "train", progress=False)
    assert [(path, path.stat().st_mtime_ns) for path in source.rglob("*")] == before
    assert {path.name for path in (tmp_path / "target").iterdir()} == {"train.lmdb", "train.lmdb.index.npz"}


# Several layouts.

@pytest.mark.parametrize("files, split, found", [
    (under("train", TRAIN) | TRAIN_TAR, "train", ["class folders in {0}/train", "tar in {0}/ILSVRC2012_img_train.tar"]),
    (under("val", VAL) | VAL_FOLDERS | ARCHIVE, "val", ["class folders in {0}/val", "flat images in {0}/val"]),
    (KAGGLE | under("train", TRAIN), "train", ["class folders in {0}/train",
                                               "class folders in {0}/ILSVRC/Data/CLS-LOC/train"]),
    (KAGGLE | VAL_TAR, "val", ["flat images in {0}/ILSVRC/Data/CLS-LOC/val", "tar in {0}/ILSVRC2012_img_val.tar"]),
])
def test_several_layouts_are_an_error_that_lists_them(files, split, found, tmp_path, capsys):
    write(tmp_path, files)
    listed = "; ".join(layout.format(tmp_path) for layout in found)
    with pytest.raises(ValueError, match=re.escape(f"holds split '{split}' in 2 forms: {listed}. Give the one")):
        ImageNetFiles(tmp_path, split)
    with pytest.raises(Refused):
        dump_split(tmp_path, tmp_path / "out", split)
    assert main(["--source", str(tmp_path), "--target", str(tmp_path / "out"), "--split", split]) == 2
    assert listed in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_same_folder_over_a_link_is_one_layout(tmp_path):
    write(tmp_path, KAGGLE)
    os.symlink(tmp_path / "ILSVRC/Data/CLS-LOC/train", tmp_path / "train")
    assert samples(ImageNetFiles(tmp_path, "train")) == TRAIN_SAMPLES


def test_images_beside_class_folders_are_left_out_where_nothing_has_their_classes(tmp_path):
    write(tmp_path, VAL_FOLDERS | under("val", {"stray.jpg": b""}))
    assert samples(ImageNetFiles(tmp_path, "val")) == VAL_SAMPLES
    write(tmp_path, under("train", TRAIN | {"stray.jpg": b""}) | DEVKIT)  # which is of val alone
    assert samples(ImageNetFiles(tmp_path, "train")) == TRAIN_SAMPLES


def test_a_class_that_is_called_like_the_split(tmp_path):
    write(tmp_path / "train", {"train/1.jpg": b"1", "car/1.jpg": b"2"})
    assert samples(ImageNetFiles(tmp_path, "train")) == [(b"2", 0), (b"1", 1)]


# None.

def test_nothing_is_an_error_that_lists_what_is_there(tmp_path):
    write(tmp_path, {"images/1.jpg": b"", "ILSVRC2012_img_train.tar.gz": b"", "val": b""})
    for split in ("train", "val", "test"):
        with pytest.raises(FileNotFoundError, match=f"no folder {tmp_path}/{split}; {tmp_path} holds "
                                                    "ILSVRC2012_img_train.tar.gz, images, val.*SPLIT/CLASS.*CLS-LOC"):
            ImageNetFiles(tmp_path, split)
    with pytest.raises(FileNotFoundError, match="because there is no .*missing"):
        ImageNetFiles(tmp_path / "missing", "val")


def test_a_folder_of_neither_classes_nor_images(tmp_path):
    write(tmp_path, {f"train/{i:02d}.tar": b"" for i in range(11)})
    with pytest.raises(FileNotFoundError, match="holds no class folders and no images, but 00.tar, .* 09.tar, ...[.] "):
        ImageNetFiles(tmp_path, "train")


@pytest.mark.parametrize("files", [under("val", VAL), VAL_TAR])
def test_flat_images_need_their_ground_truth(files, tmp_path):
    write(tmp_path, files | {"notes.txt": b"n01440764 is a fish\n", "synsets.txt": "\n".join(CLASSES).encode()})
    with pytest.raises(FileNotFoundError, match="nothing says which classes its 7 images have: there is no "
                                                "ILSVRC2012_devkit_t12.tar.gz, LOC_val_solution.csv, or a .txt with"):
        ImageNetFiles(tmp_path, "val")


def test_a_tar_as_the_source_must_be_named_like_the_split(tmp_path):
    write(tmp_path, VAL_TAR | SYNSET_LIST)
    with pytest.raises(ValueError, match="ILSVRC2012_img_val.tar.*must contain the split's name 'train'"):
        ImageNetFiles(tmp_path / "ILSVRC2012_img_val.tar", "train")


# Names.

def test_the_names_in_the_index_are_those_below_folder_or_tar(tmp_path):
    write(tmp_path, TRAIN_TAR | VAL_TAR | SOLUTION)
    train, val = ImageNetFiles(tmp_path, "train"), ImageNetFiles(tmp_path, "val")
    assert [name for name, _ in train] == sorted(TRAIN) and train.root == str(tmp_path / "ILSVRC2012_img_train.tar")
    assert [name for name, _ in val] == [name for _, name in sorted(zip(VAL_CLASSES, VAL))]


def test_names_that_are_not_ascii(tmp_path):
    names = ["Größe/naïve 写真.jpg", "Größe/" + "ü" * 100 + ".JPEG", "été/\udce9.png"]
    files = {name: name.encode(errors="surrogateescape") for name in names}
    expected = [(files[name], int(name.startswith("é"))) for name in names]
    write(tmp_path / "folders", under("train", files))
    assert samples(ImageNetFiles(tmp_path / "folders", "train")) == expected
    write(tmp_path / "tar", {"ILSVRC2012_img_train.tar": class_tars(files)})
    ds = ImageNetFiles(tmp_path / "tar", "train")
    assert samples(ds) == expected and [name for name, _ in ds] == names and ds.classes == ["Größe", "été"]


WITHOUT_SCIPY = """
import sys
sys.modules["scipy"] = None
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name.split(".")[0] == "scipy" else find_spec(name, *args)
from dataflows.sources.imagenet import ImageNetFiles
for split in ("train", "val"):
    try:
        print(ImageNetFiles(sys.argv[1], split).layout)
    except ValueError as error:
        print(error)
"""


@pytest.mark.parametrize("more, words", [({}, "meta.mat is a Matlab file, which needs scipy: pip install "
                                              "'imagenet-lmdb[devkit]', or give"),
                                         (SYNSET_LIST, "flat images in val, labels of imagenet_2012_")])
def test_without_scipy(more, words, tmp_path):
    write(tmp_path, under("train", TRAIN) | under("val", VAL) | ARCHIVE | more)
    done = subprocess.run([sys.executable, "-c", WITHOUT_SCIPY, tmp_path], cwd=ROOT, capture_output=True, text=True,
                          timeout=60)
    train, val = done.stdout.splitlines()
    assert train == ("class folders in train, class names of ILSVRC2012_devkit_t12.tar.gz need scipy: "
                     "pip install 'imagenet-lmdb[devkit]'")
    assert words in val and done.stderr == ""
