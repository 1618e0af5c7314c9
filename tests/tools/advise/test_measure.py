"""Measuring on this machine: all formats, all numbers of threads, and nothing left behind. No figure is judged here."""
import os
import tempfile
import time

import cv2
import numpy as np
import pytest
import torch

from dataflows.images.compiled import ready
from dataflows.system import available_memory
from dataflows.tools.advise import measure as measuring
from dataflows.tools.advise import steps
from dataflows.tools.advise.detail import compare
from dataflows.tools.advise.measure import measure
from dataflows.tools.advise.predict import predict
from dataflows.tools.advise.sample import PREPARATIONS, Image, Sample, dump
from dataflows.tools.advise.steps import time_steps
from helpers.photos import CLASSES, encode_jpeg, make_photo

SECONDS = 60.0  # so much that all images are sampled, also while other programs are at work


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary folders are made in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def short(monkeypatch):
    """Turns that end as soon as they may."""
    monkeypatch.setattr(measuring, "_WINDOW_S", 0.0)
    monkeypatch.setattr(measuring, "_TURNS", 1)


@pytest.mark.parametrize("folder, name, stored", [
    ("photos", "train", None), ("jpeg_lmdb", "train.lmdb", "jpeg --no-tiles"), ("tiled_lmdb", "train.lmdb", "jpeg"),
    ("uint8_lmdb", "train.lmdb", "uint8")])
def test_every_source_is_measured_in_every_format(folder, name, stored, request, temporary, short):
    path = request.getfixturevalue(folder) / name
    found = measure(str(path), 2, seconds=SECONDS)
    assert (found.source, found.stored, found.images, found.sampled) == (str(path), stored, 23, 23)
    assert (found.workers, found.processors) == (2, len(os.sched_getaffinity(0)))
    assert [one.name for one in found.formats] == [*PREPARATIONS]
    for one in found.formats:
        assert one.images_per_s > 0 and one.pause >= 1 and one.cpu_ms > 0 and one.error == 0
        assert one.steps.resize_ms > 0 and one.steps.resize_linear_ms > 0
        assert (one.steps.copy_ms > 0) == one.name.endswith("--no-tiles")  # kernels read the others where they lie
        assert one.name.startswith("jpeg") == (one.steps.decode_ms > 0) == (one.steps.huffman_ms > 0)
    if stored:  # its own size is no extrapolation
        [own] = [one for one in predict(found, 2) if one.name == stored]
        assert own.file_bytes == pytest.approx(path.stat().st_size, rel=0.05)
    assert not os.listdir(temporary)


def test_scaling_is_measured_up_to_the_workers_that_run(photos, temporary, short, monkeypatch):
    monkeypatch.setattr(measuring, "usable_cpus", lambda: 3)
    found = measure(str(photos), 8, seconds=SECONDS)
    for points, name in ((found.scaling_encoded, "jpeg"), (found.scaling_pixels, "uint8 --max-side 500")):
        assert [count for count, _ in points] == [1, 2, 3]
        assert points[-1][1] == next(one.images_per_s for one in found.formats if one.name == name)


def test_sizes_are_those_of_the_formats(photos, temporary, short):
    sizes = {one.name: one.record_bytes for one in measure(str(photos), 1, seconds=SECONDS).formats}
    assert sizes["jpeg --no-tiles"] <= sizes["jpeg"] < sizes["uint8"]
    assert sizes["uint8 --max-side 500"] == sizes["uint8"] == sizes["uint8 --shorter-side 256"]  # all are smaller


def test_what_shrunk_jpegs_save_and_what_they_lose_is_measured(tmp_path, temporary, short):
    """Photos of 500 x 375, as most of ImageNet's."""
    folder = tmp_path / "photos" / "train" / CLASSES[0]
    folder.mkdir(parents=True)
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(encode_jpeg(make_photo(375, 500, i)))
    formats = {one.name: one for one in measure(str(tmp_path / "photos"), 2, seconds=SECONDS).formats}
    full, at_320, at_256 = (formats[name] for name in ("jpeg", "jpeg --shorter-side 320", "jpeg --shorter-side 256"))
    assert at_256.record_bytes < at_320.record_bytes < full.record_bytes
    assert full.enlarged < at_320.enlarged < at_256.enlarged < 1
    assert 20 < at_256.psnr_db < at_320.psnr_db < 60
    assert full.psnr_db is None and formats["uint8"].psnr_db is None  # lossless
    assert formats["uint8 --shorter-side 256"].psnr_db > at_256.psnr_db  # no JPEG in between


def test_crops_are_compared_at_the_same_place(tmp_path):
    """A smooth image loses nothing when it is shrunk; half a pixel beside, its gradient would differ by more."""
    pixels = np.empty((400, 600, 3), np.uint8)
    pixels[:] = np.linspace(0, 255, 600)[None, :, None]
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(pixels))
    sample = Sample(str(tmp_path), [Image("a.jpg", (tmp_path / "a.jpg").read_bytes(), 0, 100)])
    for name in ("uint8", "uint8 --shorter-side 256"):
        dump(sample, PREPARATIONS[name], str(tmp_path / f"{name}.lmdb"), 1)
    _, psnr = compare(str(tmp_path / "uint8 --shorter-side 256.lmdb"), str(tmp_path / "uint8.lmdb"),
                      time.monotonic() + 60)
    assert psnr > 48


def test_numbers_of_threads_stay_as_they_were(photos, temporary, short, several_threads):
    before = torch.get_num_threads(), torch.get_num_interop_threads(), cv2.getNumThreads()
    measure(str(photos), 2, seconds=SECONDS)
    assert (torch.get_num_threads(), torch.get_num_interop_threads(), cv2.getNumThreads()) == before
    assert before[0] == 3


def test_nothing_is_left_when_measuring_fails(tmp_path, temporary, short):
    folder = tmp_path / "photos" / "train" / CLASSES[0]
    folder.mkdir(parents=True)
    (folder / "bad.jpg").write_bytes(encode_jpeg(make_photo(30, 40, 0))[:200])
    with pytest.raises(ValueError, match="none of the 1 files in .*train could be read; the first is .*bad.jpg"):
        measure(str(tmp_path / "photos"), 1, seconds=SECONDS)
    assert not os.listdir(temporary)


def test_a_single_image_is_enough(tmp_path, temporary, short):
    folder = tmp_path / "photos" / "train" / CLASSES[0]
    folder.mkdir(parents=True)
    (folder / "one.jpg").write_bytes(encode_jpeg(make_photo(300, 400, 0)))
    found = measure(str(tmp_path / "photos"), 1, seconds=SECONDS)
    assert (found.images, found.sampled) == (1, 1)


def test_when_time_is_short_less_is_measured(photos, temporary, short):
    found = measure(str(photos), 1, seconds=0.001)
    assert 1 <= found.sampled < 23
    assert all(one.images_per_s > 0 for one in found.formats)


def test_steps_are_those_of_the_loaders(tiled_lmdb, uint8_lmdb):
    tiled = time_steps(str(tiled_lmdb / "train.lmdb"), time.monotonic() + 60)
    pixels = time_steps(str(uint8_lmdb / "train.lmdb"), time.monotonic() + 60)
    assert tiled.greatest in ("decoding", "resizing") and tiled.decode_ms > 0
    assert pixels.decode_ms == 0 and pixels.greatest == "resizing"
    with ready.without():
        tiled = time_steps(str(tiled_lmdb / "train.lmdb"), time.monotonic() + 60)
        pixels = time_steps(str(uint8_lmdb / "train.lmdb"), time.monotonic() + 60)
    assert min(tiled.copy_ms, tiled.decode_ms, pixels.copy_ms) > 0 and pixels.decode_ms == 0


def test_the_steps_of_a_tiled_jpeg_give_the_pixels_of_the_reader(tiled_lmdb, jpeg_lmdb, monkeypatch):
    """What is resized is the crop's own region, whatever was cut."""
    resized = {"tiled": [], "plain": []}
    for name, folder in (("tiled", tiled_lmdb), ("plain", jpeg_lmdb)):
        monkeypatch.setattr(steps, "resize_into", lambda pixels, *_, found=resized[name]: found.append(pixels.copy()))
        time_steps(str(folder / "train.lmdb"), time.monotonic() + 60)
    assert len(resized["tiled"]) == len(resized["plain"]) == 2 * 23
    for tiled, plain in zip(resized["tiled"], resized["plain"]):
        np.testing.assert_array_equal(tiled, plain)


def test_memory_is_a_part_of_what_the_machine_has():
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
