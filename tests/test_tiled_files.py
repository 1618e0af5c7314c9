"""Files of tiled JPEGs: the same batches as from the files' own bytes, for less decoding."""
import os
import shutil

import cv2
import lmdb
import numpy as np
import pytest
import torch
from conftest import CLASSES, make_photo

import dataflows.reader
from dataflows import CenterCrop, RandomResizedCrop
from dataflows.record import RecordError
from dataflows.store import Store
from dump_imagenet import dump_split
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

TRANSFORMS = [RandomResizedCrop(64), RandomResizedCrop(64, antialias=False), RandomResizedCrop(32, scale=(0.01, 0.05)),
              RandomResizedCrop((40, 90), scale=(1, 1)), CenterCrop(64, resize=72), CenterCrop(48, resize=200),
              CenterCrop((20, 50), resize=64), RandomResizedCrop(64, fast_decode=True),
              CenterCrop(64, resize=72, antialias=False, fast_decode=True)]


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
    """By the inverse DCT and by the interpolation of color, so in most pixels of photos and by few levels."""
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


def test_a_small_crop_decodes_few_pixels(tiled_lmdb, monkeypatch):
    decode, decoded = dataflows.reader.decode, []
    monkeypatch.setattr(dataflows.reader, "decode",
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
    assert Store(summary.path).index.meta["untiled"] == summary.untiled
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
