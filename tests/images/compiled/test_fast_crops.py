"""Crops of fast_decode=True from planes: against Pillow, against the default's, and where numba does not work."""
import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.compiled import kernels, ready
from dataflows.images.plan import regions
from dataflows.jpeg import compiled
from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.tile import tile
from dataflows.storage.record import pack
from helpers.jpegs import encode
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader


def crop(image, row, size, antialias):
    out, plan = np.empty((1, 3, *size), np.uint8), np.array([row])
    value = np.frombuffer(pack([image.tobytes(), 1]), np.uint8)
    made = kernels.crop([value], plan, regions(plan, size), np.array([read_tiles(image)[:2]]), np.ones(1, bool),
                        RandomResizedCrop(size, antialias=antialias, fast_decode=True), True, out)
    assert made.done == [True]
    return out[0]


@st.composite
def rows(draw):
    """(height, width of an image, row of a plan, size of the window)."""
    height, width = draw(st.integers(1, 120)), draw(st.integers(1, 160))
    box_height, box_width = draw(st.integers(1, height)), draw(st.integers(1, width))
    top, left = draw(st.integers(0, height - box_height)), draw(st.integers(0, width - box_width))
    to = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    size = draw(st.integers(1, to[0])), draw(st.integers(1, to[1]))
    offset = draw(st.integers(0, to[0] - size[0])), draw(st.integers(0, to[1] - size[1]))
    return height, width, [top, left, box_height, box_width, *to, *offset, draw(st.integers(0, 1))], size


@settings(max_examples=80, deadline=None)
@given(rows())
def test_a_plane_is_resized_as_pillow_does_it(what):
    height, width, row, size = what
    image = np.frombuffer(tile(encode(height, width, "gray")), np.uint8)
    top, left, box_height, box_width, to_height, to_width, y, x, flip = row
    gray = Image.fromarray(cv2.imdecode(image, cv2.IMREAD_GRAYSCALE))
    expected = gray.crop((left, top, left + box_width, top + box_height)).resize((to_width, to_height),
                                                                               Image.Resampling.BILINEAR)
    expected = np.asarray(expected, int)[y:y + size[0], x:x + size[1]]
    expected = expected[:, ::-1] if flip else expected
    found = crop(image, row, size, True)
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()
    assert np.abs(found[0] - expected).max() <= 1


@settings(max_examples=50, deadline=None)
@given(rows())
def test_without_antialias_a_plane_is_resized_as_opencv_does_it(what):
    height, width, row, _ = what
    top, left, box_height, box_width, to_height, to_width, _, _, flip = row
    image = np.frombuffer(tile(encode(height, width, "gray")), np.uint8)
    box = cv2.imdecode(image, cv2.IMREAD_GRAYSCALE)[top:top + box_height, left:left + box_width]
    expected = cv2.resize(box, (to_width, to_height), interpolation=cv2.INTER_LINEAR).astype(int)
    size = to_height, to_width
    found = crop(image, [top, left, box_height, box_width, *size, 0, 0, flip], size, False)
    assert np.abs(found[0] - (expected[:, ::-1] if flip else expected)).max() <= 1


@pytest.mark.parametrize("transform", [RandomResizedCrop(64), CenterCrop(64, resize=72),
                                       RandomResizedCrop(64, antialias=False)], ids=str)
def test_crops_are_close_to_the_exact_ones(tiled_lmdb, transform):
    exact, fast = (torch.cat([images for images, _ in LMDBLoader(
        tiled_lmdb / "train.lmdb", 8, shuffle=False, transform=dataclasses.replace(transform, fast_decode=fast))
    ]).float() for fast in (False, True))
    errors = (exact - fast).square().mean((1, 2, 3))
    assert errors.max() < 6.5 and errors.median() < 2.6  # 40 and 44 dB
    assert not torch.equal(exact, fast)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1"])
def test_colors_of_any_sampling(sampling):
    image = np.frombuffer(tile(encode(96, 144, sampling, quality=95)), np.uint8)
    whole = cv2.imdecode(image, cv2.IMREAD_COLOR_RGB)
    for row in ([0, 0, 96, 144, 48, 72, 0, 0, 0], [17, 35, 60, 80, 30, 40, 0, 0, 1], [90, 130, 6, 14, 3, 7, 0, 0, 0]):
        top, left, height, width, to_height, to_width = row[:6]
        expected = Image.fromarray(whole[top:top + height, left:left + width]).resize((to_width, to_height),
                                                                                    Image.Resampling.BILINEAR)
        expected = np.asarray(expected).transpose(2, 0, 1)[:, :, ::-1 if row[8] else 1].astype(int)
        found = crop(image, row, (to_height, to_width), True)
        assert ((found - expected) ** 2).mean() < 30


def test_batches_do_not_depend_on_workers_or_memory_order(tiled_lmdb):
    options = {"transform": RandomResizedCrop(32, fast_decode=True), "seed": 4}
    path = tiled_lmdb / "train.lmdb"
    expected = [images for images, _ in LMDBLoader(path, 5, num_workers=0, **options)]
    for more in ({"num_workers": 3}, {"num_workers": 2, "worker_type": "process"}, {"channels_last": True}):
        found = [images for images, _ in LMDBLoader(path, 5, **options, **more)]
        assert all(map(torch.equal, found, expected)) and len(found) == len(expected)
    assert len(LMDBIterLoader(path, 5, **options)) == 5
    dataset = LMDBDataset(path, transform=CenterCrop(32, fast_decode=True))
    batch = [images for images, _ in LMDBLoader(path, 23, shuffle=False, transform=CenterCrop(32, fast_decode=True))][0]
    assert all(torch.equal(dataset[number][0], batch[number]) for number in range(23))


def test_when_all_is_ready_nothing_more_is_compiled(tiled_lmdb, uint8_lmdb, jpeg_lmdb):
    assert ready.make_ready()
    functions = [function for function in compiled._functions if "decode" in function.py_func.__module__
                 or "images" in function.py_func.__module__]
    before = {function.py_func: list(function.signatures) for function in functions}
    for options in ({}, {"io": "pread"}):
        for transform in (RandomResizedCrop(32), CenterCrop((32, 20), antialias=False)):
            for fast in (True, False):
                transform = dataclasses.replace(transform, fast_decode=fast)
                for channels_last in (False, True):
                    list(LMDBLoader(tiled_lmdb / "train.lmdb", 8, transform=transform, channels_last=channels_last,
                                    **options))
    LMDBDataset(tiled_lmdb / "train.lmdb")[0]
    list(LMDBLoader(uint8_lmdb / "train.lmdb", 8, transform=RandomResizedCrop(32)))
    list(LMDBLoader(jpeg_lmdb / "train.lmdb", 8, transform=RandomResizedCrop(32)))
    assert {function.py_func: list(function.signatures) for function in functions} == before
    assert len(functions) > 20
