"""The default's crops and whole images of tiled JPEGs by our own decoder: libjpeg's pixels, and what is left to it."""
import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.compiled import kernels, ready
from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.tile import tile
from helpers.jpegs import encode
from uint_lmdb_loader import LMDBDataset, LMDBLoader


def decode(image, region):
    return kernels.decode_region(image, region)


@settings(max_examples=150, deadline=None)
@given(sampling=st.sampled_from(["gray", "4:4:4", "4:2:2", "4:2:0", "4:4:0"]), height=st.integers(1, 130),
       width=st.integers(1, 130), quality=st.sampled_from([1, 30, 75, 95, 100]), optimize=st.integers(0, 1),
       interval_px=st.sampled_from([8, 32, 48, 64, 200]), data=st.data())
def test_a_region_has_the_pixels_of_libjpeg(sampling, height, width, quality, optimize, interval_px, data):
    image = np.frombuffer(tile(encode(height, width, sampling, quality=quality, optimize=optimize),
                               interval_px=interval_px), np.uint8)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    region = [top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))]
    found = decode(image, region)
    if sampling in ("4:2:2", "4:2:0") and width < 5:
        assert found is None
    else:
        whole = simplejpeg.decode_jpeg(image.tobytes(), "RGB")
        np.testing.assert_array_equal(found, whole[top:top + region[2], left:left + region[3]])


@pytest.mark.parametrize("sampling", ["4:1:1"])
def test_chroma_of_four_pixels_is_left_to_libjpeg(sampling):
    assert decode(np.frombuffer(tile(encode(64, 64, sampling)), np.uint8), [0, 0, 64, 64]) is None


def test_what_is_damaged_or_too_large_is_left_to_libjpeg():
    image = np.frombuffer(tile(encode(64, 64)), np.uint8).copy()
    assert decode(image, [0, 0, 64, 64]) is not None
    tiles = read_tiles(image)
    image[tiles.scan_at + int(tiles.offsets[3]) - 1] = 0xC4
    assert decode(image, [0, 0, 64, 64]) is None
    image = np.frombuffer(tile(encode(2056, 2048)), np.uint8)
    assert decode(image, [0, 0, 2056, 2048]) is None and decode(image, [9, 9, 40, 40]) is not None


@pytest.mark.parametrize("region", [[-1, 0, 9, 9], [0, -1, 9, 9], [0, 0, 0, 9], [0, 0, 9, 0], [60, 0, 5, 9],
                                    [0, 60, 9, 5]])
def test_a_region_that_is_not_within_the_image_is_none(region):
    assert decode(np.frombuffer(tile(encode(64, 64)), np.uint8), region) is None


@pytest.fixture(scope="module")
def by_libjpeg(tiled_lmdb):
    """Batches, and whole images, as they are without our own decoder."""
    with ready.without():
        return read(tiled_lmdb / "train.lmdb")


def read(path):
    batches = {str(transform): [images for images, _ in LMDBLoader(path, 8, transform=transform)] for transform in (
        RandomResizedCrop(48), RandomResizedCrop(48, antialias=False), CenterCrop(40), CenterCrop((60, 70), resize=80),
        RandomResizedCrop(33, interpolation="bicubic"), RandomResizedCrop(24, scaled_decode=True))}
    dataset = LMDBDataset(path)
    return batches | {"whole": [dataset[number][0] for number in range(len(dataset))]}


def test_batches_and_whole_images_are_those_of_libjpeg(tiled_lmdb, by_libjpeg, monkeypatch):
    assert ready.make_ready()
    decoded = []
    many, one = kernels.crop, kernels.decode_region
    monkeypatch.setattr(kernels, "crop", lambda *args: decoded.extend(
        np.array((made := many(*args)).done)[args[4]]) or made)
    monkeypatch.setattr(kernels, "decode_region",
                        lambda *args: decoded.append((made := one(*args)) is not None) or made)
    found = read(tiled_lmdb / "train.lmdb")
    assert found.keys() == by_libjpeg.keys()
    for name, images in found.items():
        assert all(map(torch.equal, images, by_libjpeg[name])), name
    assert len(decoded) >= 5 * 23 and sum(decoded) > 0.8 * len(decoded)
