"""INTER_LINEAR in a kernel: OpenCV's pixels, bit for bit, and where another OpenCV has others, it is not used."""
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.compiled import kernels, ready
from dataflows.images.compiled.linear import resize_linearly
from dataflows.images.compiled.resample import BLOCK
from uint_lmdb_loader import LMDBLoader

SIDES = st.one_of(st.integers(1, 90), st.integers(91, 600))


@settings(max_examples=300, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(st.integers(1, 120), st.integers(1, 120)), st.integers(1, 3), st.booleans(),
       st.sampled_from(["any", "halved", "as high", "as wide", "as it is"]), st.integers(0, 99))
def test_it_has_the_pixels_of_opencv(shape, to, number, flip, kind, seed):
    to = {"any": to, "halved": tuple(max(1, side // 2) for side in shape), "as high": (shape[0], to[1]),
          "as wide": (to[0], shape[1]), "as it is": shape}[kind]
    planes = np.random.default_rng(seed).integers(0, 256, (number, *shape), np.uint8)
    found = np.zeros((number, *to), np.uint8)
    resize_linearly(np.append(planes.ravel(), np.zeros(BLOCK - 1, np.uint8)), 0, shape[1], planes[0].size, number,
                    *shape, *to, flip, found.reshape(-1))
    for plane, of_it in zip(planes, found):
        expected = cv2.resize(plane, to[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(of_it, expected[:, ::-1] if flip else expected)


FITTING = {"source": np.zeros(3 * 40 * 40 + BLOCK - 1, np.uint8), "at": 0, "stride": 40, "apart": 1600, "number": 3,
           "height": 40, "width": 40, "h": 20, "w": 30, "flip": False, "out": np.zeros(3 * 20 * 30, np.uint8)}


@pytest.mark.parametrize("change", [{"at": -1}, {"at": 9}, {"at": 2**62}, {"stride": 39}, {"number": 0}, {"number": 4},
                                    {"apart": 0}, {"apart": 1609}, {"height": 0}, {"height": 41}, {"width": 0},
                                    {"width": 41}, {"h": 0}, {"w": 0}, {"w": 31}, {"h": 21, "w": 30}], ids=str)
def test_what_does_not_fit_is_refused(change):
    resize_linearly(**FITTING)
    with pytest.raises(ValueError, match="too small"):
        resize_linearly(**FITTING | change)


@pytest.mark.parametrize("transform", [RandomResizedCrop(40, antialias=False), CenterCrop(40, antialias=False)],
                         ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_another_opencv_keeps_its_pixels(tiled_lmdb, monkeypatch, transform, channels_last):
    """Batches are the same with our kernel, without it where OpenCV is another one, and without any."""
    assert ready.make_ready() and kernels.is_linear_of_opencv()
    made, real = [], kernels.crop
    monkeypatch.setattr(kernels, "crop", lambda *args: made.extend((found := real(*args)).done) or found)

    def batches():
        return [images for images, _ in LMDBLoader(tiled_lmdb / "train.lmdb", 8, transform=transform,
                                                   channels_last=channels_last)]

    ours = batches()
    assert made == [True] * 23
    monkeypatch.setattr(kernels, "is_linear_of_opencv", lambda: False)
    assert all(map(torch.equal, batches(), ours)) and len(made) == 23
    with ready.without():
        assert all(map(torch.equal, batches(), ours))


def test_an_opencv_with_other_pixels_is_seen(monkeypatch):
    real = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda *args, **options: real(*args, **options) ^ 1)
    assert not kernels.is_linear_of_opencv.__wrapped__()
