"""What is blamed on an image: what is its own fault, and never what the machine lacks."""
import contextlib
import errno
import io
import json
import os
import resource
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from dataflows.dump.pack import FilePacker
from dataflows.dump.prepare import Preparation
from dataflows.dump.recovery.journal import SkippedFile
from dataflows.sources.imagenet import ImageNetFiles
from dump_imagenet import main
from helpers.fuse import mounted
from helpers.limits import limited_memory
from helpers.photos import encode_jpeg, make_photo

PHOTO = encode_jpeg(make_photo(60, 80, 1))


def source(tmp_path, **files):
    (tmp_path / "source" / "val" / "class").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "source" / "val" / "class" / name.replace("_", ".")).write_bytes(content)
    return ImageNetFiles(tmp_path / "source", "val")


def pack(files, name, on_error="skip"):
    return FilePacker(files, Preparation(tiles=False), on_error)([f"class/{name}", 0])


@contextlib.contextmanager
def no_more_files():
    """Nothing can be opened in the body."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("on_error", ["skip", "raise", "fix"])
def test_too_many_open_files_are_not_the_images_fault(tmp_path, on_error):
    files = source(tmp_path, a_jpg=PHOTO)
    pack(files, "a.jpg")
    with no_more_files(), pytest.raises(OSError, match="a.jpg: the system cannot read it: Too many open files") as info:
        pack(files, "a.jpg", on_error)
    assert info.value.__cause__.errno == errno.EMFILE


def test_a_source_that_is_gone_is_not_the_images_fault(tmp_path):
    files = source(tmp_path, a_jpg=PHOTO, b_jpg=PHOTO)
    os.unlink(tmp_path / "source" / "val" / "class" / "a.jpg")
    assert isinstance(pack(files, "a.jpg").note, SkippedFile)
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(OSError, match="source/val is gone. Mount it again"):
        pack(files, "b.jpg")


def large(kind):
    """A file that decodes to 144 MB, and takes as much again to decode."""
    pixels = np.zeros((6000, 8000, 3), np.uint8)
    pixels[::7] = 200
    if kind == "progressive.jpg":
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["progressive.jpg", "a.png"])
@pytest.mark.parametrize("megabytes", [8, 60, 180])
def test_a_lack_of_memory_is_not_the_images_fault(tmp_path, kind, megabytes):
    files = source(tmp_path, small_jpg=PHOTO, **{kind.replace(".", "_"): large(kind)})
    pack(files, "small.jpg")
    with limited_memory(megabytes * 2**20), pytest.raises(MemoryError, match=f"{kind}: no memory for it"):
        pack(files, kind)
    assert pack(files, kind).value is not None


@pytest.mark.parametrize("request_, error", [("read", "EIO"), ("open", "ESTALE"), ("open", "ENOMEM"),
                                             ("read", "ETIMEDOUT")])
def test_a_disk_or_server_that_fails_does_not_empty_the_dump(tmp_path, request_, error, capsys):
    source(tmp_path, a_jpg=PHOTO, b_jpg=PHOTO)
    with mounted("refusing_file_system.py", tmp_path / "source", json.dumps({request_: error})) as mountpoint:
        argv = ["--source", mountpoint, "--target", str(tmp_path / "out"), "--split", "val", "--no-progress"]
        for on_error in ("skip", "raise"):
            assert main([*argv, "--on-error", on_error]) == 2  # when it tries some, before it writes
            err = capsys.readouterr().err
            assert "a.jpg: the system cannot read it: " + os.strerror(getattr(errno, error)) in err
        assert [*(tmp_path / "out").iterdir()] == []


def test_a_file_that_may_not_be_read_is_left_out(tmp_path):
    source(tmp_path, a_jpg=PHOTO, b_jpg=PHOTO)
    with mounted("refusing_file_system.py", tmp_path / "source", json.dumps({"open": "EACCES"})) as mountpoint:
        packed = pack(ImageNetFiles(mountpoint, "val"), "a.jpg")
    assert packed.value is None and "Permission denied" in packed.note.reason
