"""Files of tiled JPEGs: the same batches as from the files' own bytes, for less decoding."""
import dataclasses
import functools
import os
import shutil
import subprocess

import cv2
import lmdb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dataflows.load.decode.reader
from dataflows import CenterCrop, RandomResizedCrop
from dataflows.errors import RecordError
from dataflows.images.codecs import ScratchBuffer, decode_perfect, decode_reduced
from dataflows.images.plan import unreduced
from dataflows.jpeg.tile import tile
from dataflows.load.decode.crops import by_libjpeg
from dataflows.storage.store import Store
from dump_imagenet import dump_split
from helpers.photos import CLASSES, encode_jpeg, make_photo
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

TRANSFORMS = [RandomResizedCrop(64), RandomResizedCrop(64, antialias=False), RandomResizedCrop(32, scale=(0.01, 0.05)),
              RandomResizedCrop((40, 90), scale=(1, 1)), CenterCrop(64, resize=72), CenterCrop(48, resize=200),
              CenterCrop((20, 50), resize=64),
              RandomResizedCrop(64, antialias=False, interpolation="bicubic"),
              RandomResizedCrop(32, scale=(0.01, 0.05), interpolation="random"),
              *(CenterCrop(size, resize, interpolation="bicubic") for size, resize in
                ((64, 72), (48, 200), ((20, 50), 64)))]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_batches_are_those_of_the_untiled_file(jpeg_lmdb, tiled_lmdb, cls, split, transform):
    plain, tiled = (cls(folder / f"{split}.lmdb", 8, transform=transform) for folder in (jpeg_lmdb, tiled_lmdb))
    for _ in range(3):
        for (expected, labels), (images, numbers) in zip(plain, tiled, strict=True):
            assert torch.equal(images, expected) and torch.equal(numbers, labels)


def test_whole_images_are_those_of_the_untiled_file(jpeg_lmdb, tiled_lmdb):
    plain, tiled = (LMDBDataset(folder / "train.lmdb") for folder in (jpeg_lmdb, tiled_lmdb))
    for i in range(len(plain)):
        assert torch.equal(plain[i][0], tiled[i][0]) and plain[i][1] == tiled[i][1]


@pytest.mark.parametrize("cls", [RandomResizedCrop, CenterCrop])
def test_fast_decoding_differs_a_little(tiled_lmdb, cls):
    """For colors come last, after each plane was resized; by few levels."""
    images = {}
    for fast in (False, True):
        with LMDBLoader(tiled_lmdb / "train.lmdb", 8, transform=cls(64, fast_decode=fast), shuffle=False) as loader:
            images[fast] = torch.cat([batch for batch, _ in loader]).float()
    difference = images[True] - images[False]
    assert difference.abs().max() > 1 and difference.square().mean() < 6.5  # 40 dB


def test_scaled_decoding_needs_no_tiles_and_leaves_small_crops_alone(tmp_path):
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    for i, (height, width, sampling) in enumerate([(700, 901, 0x221111), (333, 1013, 0x211111), (640, 480, 0x111111),
                                                   (902, 600, 0x121111), (300, 2000, 0x411111), (120, 90, 0x221111)]):
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        (folder / f"{i}.jpg").write_bytes(cv2.imencode(".jpg", make_photo(height, width, i), options)[1].tobytes())
    batches = {}
    for name, scaled, tiles in (("exact", False, True), ("tiled", True, True), ("whole", True, False)):
        path = dump_split(tmp_path / "source", tmp_path / name, "val", tiles=tiles, progress=False).path
        for transform in (RandomResizedCrop((40, 50), scaled_decode=scaled), CenterCrop(48, 60, scaled_decode=scaled),
                          RandomResizedCrop(30, antialias=False, scaled_decode=scaled)):
            with LMDBLoader(path, 6, transform=transform, shuffle=False, num_workers=0) as loader:
                for epoch in range(6):
                    batches.setdefault((name, type(transform), transform.antialias, epoch), next(iter(loader))[0])
    differ = 0
    for (name, *case), images in batches.items():
        if name == "whole":
            assert torch.equal(images, batches[("tiled", *case)])
            exact = batches[("exact", *case)]
            if case[1]:  # without antialiasing, not shrinking by so much is what makes the difference
                assert (exact.float() - images.float()).square().mean() < 60  # 30 dB
            differ += not torch.equal(exact, images)
    assert differ


SAMPLINGS = ["1x1,1x1,1x1", "2x1,1x1,1x1", "2x2,1x1,1x1", "1x2,1x1,1x1", "4x1,1x1,1x1", "1x4,1x1,1x1", "3x1,1x1,1x1",
             "1x3,1x1,1x1", "3x2,1x1,1x1", "4x2,1x1,1x1", "2x2,2x1,2x1", "2x2,1x2,1x2", "2x1,2x1,2x1", "2x2,2x2,1x1",
             "1x1,2x2,2x2", "2x2,1x1,2x1", "2x1,1x1,2x1"]  # simplejpeg refuses half of them
needs_cjpeg = pytest.mark.skipif(shutil.which("cjpeg") is None, reason="cjpeg (libjpeg-turbo-progs) is not installed")


@functools.lru_cache(maxsize=None)
def of_sampling(factors, height, width):
    header = b"P6 %d %d 255\n" % (width, height)
    return subprocess.run(["cjpeg", "-quality", "92", "-sample", factors], check=True, capture_output=True,
                          input=header + make_photo(height, width, height).tobytes()).stdout


@needs_cjpeg
@pytest.mark.parametrize("interval_px", [8, 32, 64])  # of 64, some intervals wrap around
@pytest.mark.parametrize("factors", SAMPLINGS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_reduced_part_is_that_of_the_reduced_whole(factors, interval_px, data):
    """For any sampling, factor and box: whichever decoder takes a JPEG and its cuts, their pixels are libjpeg's."""
    height, width = data.draw(st.sampled_from([(90, 333), (130, 752), (60, 376), (17, 30), (64, 128), (9, 401)]))
    factor = data.draw(st.sampled_from([2, 4, 8]))
    fast = data.draw(st.booleans())
    high, wide = -(-height // factor), -(-width // factor)
    top, left = data.draw(st.integers(0, high - 1)), data.draw(st.integers(0, wide - 1))
    h, w = data.draw(st.integers(1, high - top)), data.draw(st.integers(1, min(wide - left, 40)))
    check_reduced(of_sampling(factors, height, width), interval_px, height, width, factor, fast, [top, left, h, w])


@needs_cjpeg
@pytest.mark.parametrize("factors", ["2x1,1x1,1x1", "2x2,1x1,1x1", "4x2,1x1,1x1", "2x1,1x1,2x1", "2x2,1x2,1x2"])
def test_narrow_reduced_parts(factors):
    """Chroma of fewer than three samples in a row is not interpolated, so a cut must not be as narrow as that."""
    height, width = 17, 90
    jpeg = of_sampling(factors, height, width)
    for factor in (2, 4, 8):
        for left in range(-(-width // factor)):
            check_reduced(jpeg, 8, height, width, factor, False, [0, left, 1, 1])


def check_reduced(jpeg, interval_px, height, width, factor, fast, box):
    """The box of the reduced image, from the file as it was and from its tiled form."""
    top, left, h, w = box
    tiled = tile(jpeg, interval_px=interval_px)
    [region] = unreduced(np.array([box]), np.array([factor]), np.array([height]), np.array([width]))
    boxes = []
    for image in (jpeg, tiled):
        source = dataflows.load.decode.reader._source(lambda value: (value, 0), np.frombuffer(image, np.uint8), 10**9)
        pixels, (y, x) = by_libjpeg(source, region.tolist(), factor, fast, ScratchBuffer())
        boxes.append(pixels[top - y:top - y + h, left - x:left - x + w])
    assert boxes[0].shape == (h, w, 3)
    np.testing.assert_array_equal(*boxes)


@needs_cjpeg
@pytest.mark.parametrize("transform", [RandomResizedCrop(20, scale=(0.2, 1)), CenterCrop(24, resize=30),
                                       RandomResizedCrop(20, scale=(0.2, 1), antialias=False),
                                       RandomResizedCrop(20, scale=(0.2, 1), interpolation="random"),
                                       CenterCrop(24, resize=30, interpolation="bicubic")], ids=str)
def test_scaled_batches_of_any_sampling_are_those_of_the_untiled_file(tmp_path, transform):
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    for i, factors in enumerate(SAMPLINGS):
        (folder / f"{i:02}.jpg").write_bytes(of_sampling(factors, 333 + i, 501 - 7 * i))
    paths = [dump_split(tmp_path / "source", tmp_path / str(tiles), "val", tiles=tiles, progress=False).path
             for tiles in (False, True)]
    assert not Store(paths[1]).index.meta.untiled
    transform = dataclasses.replace(transform, scaled_decode=True)
    loaders = [LMDBLoader(path, len(SAMPLINGS), num_workers=0, transform=transform) for path in paths]
    for _ in range(4):
        (plain, _), (tiled, _) = (next(iter(loader)) for loader in loaders)
        assert torch.equal(plain, tiled)


def test_a_reduced_jpeg_with_flaws_is_as_libjpeg_reduces_it():
    """Not shrunk from the whole: its tiled form has no flaws, and would be decoded otherwise."""
    jpeg = encode_jpeg(make_photo(91, 133, 1))
    flawed = jpeg[:-2] + b"\x12\x34" * 9 + jpeg[-2:]
    assert decode_perfect(flawed) is None
    for factor in (2, 4, 8):
        np.testing.assert_array_equal(decode_reduced(flawed, factor), decode_reduced(jpeg, factor))


def test_a_small_crop_decodes_few_pixels(tiled_lmdb, monkeypatch):
    decode, decoded = dataflows.load.decode.reader.decode, []
    monkeypatch.setattr(dataflows.load.decode.reader, "decode",
                        lambda *args, **options: decoded.append(decode(*args, **options)) or decoded[-1])
    list(LMDBLoader(tiled_lmdb / "train.lmdb", 8, transform=RandomResizedCrop(32, scale=(0.02, 0.05)), num_workers=0))
    index = Store(tiled_lmdb / "train.lmdb").index
    assert sum(pixels.shape[0] * pixels.shape[1] for pixels in decoded) < 0.6 * np.dot(index.height, index.width)


def test_the_summary_counts_what_has_no_tiles(tmp_path):
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    for i, (extension, options) in enumerate([(".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".png", [])]):
        (folder / f"{i}{extension}").write_bytes(cv2.imencode(extension, make_photo(90, 120, i), options)[1].tobytes())
    summary = dump_split(tmp_path / "source", tmp_path, "val", progress=False)
    assert summary.untiled == {"progressive": 1}
    assert "1 stored without tiles, to be decoded whole: 1 progressive" in str(summary)
    assert Store(summary.path).index.meta.untiled == summary.untiled
    [(images, _)] = LMDBLoader(summary.path, 3, transform=CenterCrop(32, resize=64), shuffle=False)
    assert images.shape == (3, 3, 32, 32)


@pytest.mark.parametrize("transform", [RandomResizedCrop(32), CenterCrop(32, resize=40)], ids=["random", "center"])
def test_a_damaged_list_of_tiles_is_named_by_file_and_key(tiled_lmdb, tmp_path, transform):
    path = str(tmp_path / "val.lmdb")
    shutil.copy(tiled_lmdb / "val.lmdb", path)
    with lmdb.open(path, subdir=False, lock=False, map_size=2**30) as env, env.begin(write=True) as txn:
        for i in range(len(CLASSES), 10):
            value = bytearray(txn.get(b"%08d" % i))
            value[value.index(b"RSTINDEX") + 24] = 7  # bytes per length: 1, 2 or 4
            txn.put(b"%08d" % i, bytes(value))
    with pytest.raises(RecordError, match=f"{os.path.basename(path)}, key 0000000[3-9]: damaged tiled JPEG"):
        list(LMDBLoader(path, 2, transform=transform))
