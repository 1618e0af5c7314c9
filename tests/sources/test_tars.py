"""Images read inside tars: where they are, in which order, and what a tar must not be."""
import gc
import io
import os
import pickle
import random
import tarfile
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.sources.imagenet import ImageNetFiles
from dataflows.sources.tars import TarImages, members
from helpers.imagenet_forms import class_tars, tar_of
from helpers.limits import limited_memory

FORMATS = {"GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
FLAT = {f"{i}.JPEG": bytes([i]) * (300 * i) for i in range(1, 6)}  # shorter and longer than a block of 512
CLASSES = {f"{c}/{c}_{i}.JPEG": f"{c}{i}".encode() * 400 for c in ("n01440764", "n01443537") for i in (1, 10, 2)}


def stored(path, content):
    path.write_bytes(content)
    return str(path)


def contents(images):
    return {name: images.read(name) for name in map(os.fsdecode, images.names)}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_flat_tar(format, tmp_path):
    images = TarImages(stored(tmp_path / "val.tar", tar_of(dict(reversed(FLAT.items())), format)))
    assert list(contents(images).items()) == sorted(FLAT.items()) and images.folders == {}


@pytest.mark.parametrize("inner", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("outer", FORMATS.values(), ids=FORMATS)
def test_a_tar_of_tars(outer, inner, tmp_path):
    tars = {f"{c}.tar": tar_of({name.split("/")[1]: content for name, content in CLASSES.items() if c in name}, inner)
            for c in ("n01443537", "n01440764")}
    images = TarImages(stored(tmp_path / "train.tar", tar_of(tars, outer)))
    assert list(contents(images).items()) == sorted(CLASSES.items())
    assert images.folders == {"n01440764": 3, "n01443537": 3}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["GNU", "pax"])
def test_names_of_any_length_and_script(format, tmp_path):
    files = {"c" * 150 + "/" + "x" * 250 + ".jpg": b"long", "日本語/写真 ü.jpg": b"other script",
             "日本語/\udcff\udce9.jpg": b"not UTF-8"}
    assert contents(TarImages(stored(tmp_path / "a.tar", class_tars(files, format)))) == files


def test_an_empty_image_and_no_other_member(tmp_path):
    files = {"a.JPEG": b"", "notes.txt": b"no image", "b.gif": b"nor this", "c.PNG": b"c"}
    assert contents(TarImages(stored(tmp_path / "a.tar", tar_of(files)))) == {"a.JPEG": b"", "c.PNG": b"c"}


def test_dots_and_folders_before_names(tmp_path):
    tar = tar_of({"./train/n2.tar": tar_of({"./1.jpg": b"1", "deep/2.jpg": b"2"}), "./n1.TAR": tar_of({"3.jpg": b"3"})})
    assert contents(TarImages(stored(tmp_path / "a.tar", tar))) == {
        "n1/3.jpg": b"3", "n2/1.jpg": b"1", "n2/deep/2.jpg": b"2"}


def test_what_the_tar_program_writes(tmp_path):
    """With folders, modes and owners, in the order of the file system."""
    (tmp_path / "val").mkdir()
    for name, content in FLAT.items():
        (tmp_path / "val" / name).write_bytes(content)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "val", ".")
    assert contents(TarImages(str(tmp_path / "a.tar"))) == FLAT


def test_offsets_are_those_of_the_file(tmp_path):
    path = stored(tmp_path / "train.tar", class_tars(CLASSES))
    with open(path, "rb") as file:
        whole = file.read()
        found = [(member.name, member.offset) for outer in members(file.fileno(), 0, len(whole), path)
                 for member in members(file.fileno(), outer.offset, outer.size, path)]
    assert len(found) == 6 and found == sorted(found, key=lambda member: member[1])
    for name, offset in found:
        content = CLASSES[f"{name.split('_')[0]}/{name}"]
        assert whole[offset:offset + len(content)] == content


def test_only_headers_are_read_to_list_it(tmp_path, monkeypatch):
    read, pread = [0], os.pread

    def counting(*args):
        content = pread(*args)
        read[0] += len(content)
        return content

    path = stored(tmp_path / "train.tar", class_tars({f"{c}/{i}.jpg": bytes(200_000) for c in "ab" for i in range(9)}))
    monkeypatch.setattr(os, "pread", counting)
    TarImages(path)
    assert read[0] < 50_000 < os.path.getsize(path) / 70


def test_listing_keeps_no_header(tmp_path):
    path = stored(tmp_path / "val.tar", tar_of({f"{i}.jpg": b"" for i in range(20)}))
    with open(path, "rb") as file:
        kept = [sum(type(thing) is tarfile.TarInfo for thing in gc.get_objects())
                for _ in members(file.fileno(), 0, os.path.getsize(path), path)]
    assert len(kept) == 20 and max(kept) <= kept[0] + 2  # others may be left of earlier tests


def test_threads_and_copies_read_it_at_once(tmp_path):
    images = TarImages(stored(tmp_path / "train.tar", class_tars(CLASSES)))
    wrong = []

    def work(images, seed):
        names = list(CLASSES) * 50
        random.Random(seed).shuffle(names)
        wrong.extend(name for name in names if images.read(name) != CLASSES[name])

    threads = [threading.Thread(target=work, args=(pickle.loads(pickle.dumps(images)) if i % 2 else images, i))
               for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_it_is_closed_with_its_last_reference(tmp_path):
    before = sorted(os.listdir("/proc/self/fd"))
    images = TarImages(stored(tmp_path / "a.tar", tar_of(FLAT)))
    copy = pickle.loads(pickle.dumps(images))
    assert len(os.listdir("/proc/self/fd")) == len(before) + 2
    del images, copy
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["6.JPEG", "", "1.JPEG/", "1.JPEGG", "1.JPE", "z" * 1000, "a\0b"])
def test_no_such_image(name, tmp_path):
    images = TarImages(stored(tmp_path / "a.tar", tar_of(FLAT)))
    with pytest.raises(FileNotFoundError, match="a.tar holds no "):
        images.read(name)


def test_other_members_are_counted_by_kind(tmp_path):
    companion = b"\0\x05\x16\x07"
    inner = tar_of({"1.jpg": b"1", "x.gif": b"", "._1.jpg": companion, "._2.jpg": b"real", "deep.tar": b""})
    tar = tar_of({"a.tar": inner, "._a.tar": companion, "notes.txt": b"", "__MACOSX/._a.jpg": companion})
    images = TarImages(stored(tmp_path / "a.tar", tar))
    assert contents(images) == {"a/._2.jpg": b"real", "a/1.jpg": b"1"}
    assert images.left_out == {"macOS companion": 3, ".gif": 1, ".tar": 1, ".txt": 1}
    links = TarImages(stored(tmp_path / "b.tar", link_to_a_folder()))
    assert links.left_out == {"without an extension": 1} and contents(links) == {"1.jpg": b"image"}


def link_to_a_folder():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, content in (("1.jpg", tarfile.REGTYPE, b"image"), ("more", tarfile.SYMTYPE, b""),
                                    ("folder", tarfile.DIRTYPE, b"")):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "folder" * (kind == tarfile.SYMTYPE)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_classes_without_images_are_all_named(tmp_path):
    tar = tar_of({"a.tar": tar_of({"a.txt": b""}), "b.tar": tar_of({"1.jpg": b"1"}), "c.tar": tar_of({})})
    path = stored(tmp_path / "train.tar", tar)
    assert TarImages(path).folders == {"a": 0, "b": 1, "c": 0}
    with pytest.raises(FileNotFoundError, match=f"classes {path}: a.tar, {path}: c.tar hold no image: every class"):
        ImageNetFiles(path, "train")
    assert list(ImageNetFiles(path, "train", tolerant=True)) == [["b/1.jpg", 1]]
    none = TarImages(stored(tmp_path / "none.tar", tar_of({"a.tar": tar_of({})})))
    with pytest.raises(FileNotFoundError, match="holds no 1.jpg"):
        none.read("1.jpg")


# What is refused.

def links(kind):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("1.jpg")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"image"))
        info = tarfile.TarInfo("2.jpg")
        info.type, info.linkname = kind, "1.jpg"
        tar.addfile(info)
    return stream.getvalue()


@pytest.mark.parametrize("content, words", [
    (b"", "not a whole tar .empty file"), (b"text" * 1000, "not a whole tar .*header"),
    (tar_of({}), "neither images nor tars of images"), (tar_of({"a.txt": b"a"}), "neither images nor tars"),
    (tar_of({"a/1.jpg": b"1"}), "holds a/1.jpg, and 0 tars.*outside of folders.*Unpack it"),
    (tar_of({"../1.jpg": b"1"}), "holds ../1.jpg"), (tar_of({"/1.jpg": b"1"}), "holds /1.jpg"),
    (tar_of({"1.jpg": b"1", "a.tar": tar_of(FLAT)}), "holds 1.jpg, and 1 tars.*one tar per class only"),
    (tar_of({"a.tar": b""}), "a.tar is not a whole tar"),
    (tar_of({"a.tar": b"text"}), "a.tar is not a whole tar"),
    (tar_of({"a.tar": tar_of(FLAT), "./a.tar": tar_of(FLAT)}), "a.tar comes twice"),
    (tar_of({".tar": tar_of(FLAT)}), "has no name: every class needs one tar"),
    (tar_of({"1.jpg": b"1", "./1.jpg": b"2"}), "holds 1.jpg more than once"),
    (links(tarfile.SYMTYPE), "2.jpg is a link"), (links(tarfile.LNKTYPE), "2.jpg is a link"),
    (links(tarfile.CHRTYPE), "2.jpg is a link or a device"),
    (tar_of({"a.tar": links(tarfile.LNKTYPE)}), "a.tar: 2.jpg is a link"),
    (tar_of(FLAT) + tar_of(FLAT), "at byte 8,192 there is neither"),  # one behind the other
    (b"\x1f\x8b\x08" + bytes(9), "compressed.*gunzip .*a.tar"), (b"BZh9" + bytes(9), "compressed.*bunzip2"),
    (b"\xfd7zXZ\0" + bytes(9), "compressed.*unxz"), (b"\x28\xb5\x2f\xfd" + bytes(9), "compressed.*unzstd"),
])
def test_what_is_no_tar_of_images(content, words, tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}/a.tar.*{words}"):
        TarImages(stored(tmp_path / "a.tar", content))


@pytest.mark.parametrize("whole", [tar_of(FLAT), class_tars(CLASSES), class_tars(CLASSES, tarfile.PAX_FORMAT)],
                         ids=["flat", "of tars", "of tars, pax"])
def test_a_tar_that_is_cut_off_anywhere(whole, tmp_path):
    end = len(whole.rstrip(b"\0"))
    expected = contents(TarImages(stored(tmp_path / "a.tar", whole)))
    for size in [*range(0, end, 256), end]:
        with pytest.raises(ValueError, match="a.tar.* is not a whole tar .*cut off or damaged.*copy it again"):
            TarImages(stored(tmp_path / "a.tar", whole[:size]))
    assert contents(TarImages(stored(tmp_path / "a.tar", whole[:-512]))) == expected  # still has one block of zeros


@given(data=st.data())
def test_a_damaged_tar_is_an_error_or_other_images(data, tmp_path_factory):
    whole = bytearray(class_tars(CLASSES, data.draw(st.sampled_from(list(FORMATS.values())))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = stored(tmp_path_factory.mktemp("damaged") / "a.tar", whole)
    try:
        images = TarImages(path)
    except ValueError as error:
        assert path in str(error)
    else:
        assert len(contents(images)) == 6


@pytest.mark.parametrize("size", [2**62, 2**34, -512], ids=["huge", "large", "negative"])
def test_a_header_with_an_absurd_size(size, tmp_path):
    info = tarfile.TarInfo("1.jpg")
    info.size = abs(size)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size % 2**95 | 2**95 if size >= 0 else size % 2**96).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with limited_memory(), pytest.raises(ValueError, match="not a whole tar"):
        TarImages(stored(tmp_path / "a.tar", bytes(header) + bytes(2048)))


def test_a_tar_that_became_shorter(tmp_path):
    path = stored(tmp_path / "a.tar", tar_of(FLAT))
    images = TarImages(path)
    os.truncate(path, 4000)
    with pytest.raises(OSError, match="a.tar ends within 5.JPEG"):
        images.read("5.JPEG")
    assert images.read("1.JPEG") == FLAT["1.JPEG"]
