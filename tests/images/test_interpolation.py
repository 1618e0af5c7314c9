"""Bicubic crops: PIL's, to within two levels, in any memory and from any part of an image; and the choice by chance."""
import contextlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.plan import regions
from dataflows.images.resize import resize_into
from helpers.photos import make_photo
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

BICUBIC = Image.Resampling.BICUBIC


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def black_and_white(height, width, seed=0):
    """Where the filter overshoots most."""
    return (noise(height, width, seed) > 127) * np.uint8(255)


def pil_resized(pixels, height, width):
    """PIL's BICUBIC whose horizontal pass is the first one, as in each version before 13 and for most images in that.
    """
    image = Image.fromarray(pixels).resize((width, pixels.shape[0]), BICUBIC)
    return np.array(image.resize((width, height), BICUBIC))


def pil_center_crop(pixels, size, resize, resized=pil_resized):
    """torchvision's Resize(resize) and CenterCrop(size), by PIL, of an image that may be resized whole."""
    height, width = (resize * side // min(pixels.shape[:2]) for side in pixels.shape[:2])
    top, left = (round((side - size) / 2) for side in (height, width))
    return resized(pixels, height, width)[top:top + size, left:left + size]


def cropped(pixels, box, size, *, flip=0, antialias=True):
    out = np.empty((3, *size), np.uint8)
    resize_into(pixels, [*box, *size, 0, 0, flip], antialias, out, bicubic=True)
    return out.transpose(1, 2, 0)


def center_row(pixels, size, resize, **options):
    height, width = pixels.shape[:2]
    plan = CenterCrop(size, resize, **options).plan(np.array([height]), np.array([width]), np.zeros(1), 0, 0)
    return plan[0].tolist()


def center_cropped(pixels, size, resize):
    out = np.empty((3, size, size), np.uint8)
    resize_into(pixels, center_row(pixels, size, resize), True, out, bicubic=True)
    return out.transpose(1, 2, 0)


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b)


# --- pixels


@pytest.mark.parametrize("make, share", [(make_photo, 1e-4), (noise, 1e-3), (black_and_white, 1e-2)])
def test_crops_are_within_two_levels_of_pil_and_nearly_all_values_within_one(make, share):
    image, generator, off = make(375, 500, seed=5), np.random.default_rng(0), []
    for _ in range(40):
        h, w = (int(generator.integers(1, side + 1)) for side in image.shape[:2])
        top, left = int(generator.integers(0, 376 - h)), int(generator.integers(0, 501 - w))
        expected = pil_resized(image[top:top + h, left:left + w], 224, 224)
        off.append(difference(cropped(image, (top, left, h, w), (224, 224)), expected))
    assert np.max(off) <= 2 and (np.array(off) == 2).mean() < share


def test_photos_are_near_pil_also_where_its_vertical_pass_is_the_first():
    image, generator = make_photo(375, 500, seed=5), np.random.default_rng(1)
    for _ in range(40):
        h, w = int(generator.integers(225, 376)), int(generator.integers(100, 225))
        expected = np.array(Image.fromarray(image[:h, :w]).resize((224, 224), BICUBIC))
        assert difference(cropped(image, (0, 0, h, w), (224, 224)), expected).max() <= 3


@pytest.mark.parametrize("h, w", [(1, 1), (1, 60), (60, 1), (2, 3), (60, 90), (224, 224), (224, 100), (300, 224)])
@pytest.mark.parametrize("size", [(224, 224), (31, 57), (1, 1), (5, 1), (1, 5)])
@pytest.mark.parametrize("make", [noise, black_and_white])
def test_boxes_and_outputs_of_any_size_are_within_two_levels_of_pil(make, h, w, size):
    image = make(310, 230)
    expected = pil_resized(image[3:3 + h, 4:4 + w], *size)
    found = cropped(image, (3, 4, h, w), size)
    assert difference(found, expected).max() <= 2
    assert (cropped(image, (3, 4, h, w), size, flip=1) == found[:, ::-1]).all()


@pytest.mark.parametrize("height, width", [(60, 90), (375, 500), (500, 375), (256, 256), (257, 256), (30, 40), (1, 1),
                                           (3, 2), (600, 256), (17, 1200), (1200, 17),
                                           # As high or wide as the window's end, where torch would ignore the scale:
                                           (240, 320), (320, 240), (240, 240), (242, 238), (264, 221)])
@pytest.mark.parametrize("make", [make_photo, noise, black_and_white])
def test_center_crops_are_within_two_levels_of_pil_near_and_far(monkeypatch, make, height, width):
    image = make(height, width, seed=7)
    for size, resize in [(224, 256), (64, 64), (24, 32), (1, 5)]:
        expected = pil_center_crop(image, size, resize)
        assert difference(center_cropped(image, size, resize), expected).max() <= 2
        with monkeypatch.context() as patch:
            patch.setattr("dataflows.images.resize.is_far", lambda row, height, width: True)
            assert difference(center_cropped(image, size, resize), expected).max() <= 2


@settings(max_examples=60)
@given(st.integers(20, 600), st.integers(20, 600), st.integers(1, 64), st.integers(0, 64), st.data())
def test_center_crops_are_the_same_from_their_region_alone(height, width, size, more, data):
    image = black_and_white(height, width)
    row = center_row(image, size, size + more)
    [(top, left, h, w)] = regions(np.array([row]), (size, size), True).tolist()
    bottom, right = data.draw(st.integers(top + h, height)), data.draw(st.integers(left + w, width))
    top, left = data.draw(st.integers(0, top)), data.draw(st.integers(0, left))
    part = np.empty((3, size, size), np.uint8)
    resize_into(image[top:bottom, left:right], row, True, part, bicubic=True, origin=(top, left))
    assert (part.transpose(1, 2, 0) == center_cropped(image, size, size + more)).all()


def test_the_bicubic_region_is_twice_the_support_on_each_side():
    row = [0, 0, 400, 600, 200, 1200, 90, 500, 0]  # 2 to 1 in height, 1 to 2 in width
    found = regions(np.array([row, row]), (20, 30), np.array([False, True]))
    assert found.tolist() == [[179, 249, 42, 17], [177, 248, 46, 19]]
    assert (regions(np.array([row]), (20, 30), True) == found[1]).all()


@pytest.mark.parametrize("window", [None, (60, 70, 8, 9), (60, 70, 0, 0)])
@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("size", [(33, 44), (1, 1), (1, 9), (9, 1), (40, 60)])
def test_how_memory_lies_makes_no_difference(size, flip, window):
    image = noise(70, 90)
    row = [5, 6, 40, 60, *(window or (*size, 0, 0)), flip]
    planes, last, other = (np.empty(shape, np.uint8) for shape in ((3, *size), (*size, 3), (3, *size)))
    resize_into(image, row, True, planes, bicubic=True)
    resize_into(image, row, True, last.transpose(2, 0, 1), bicubic=True)
    resize_into(np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1], row, True, other, bicubic=True)
    assert (last.transpose(2, 0, 1) == planes).all() and (other == planes).all()


def test_a_box_of_the_outputs_size_is_copied_exactly():
    image = noise(50, 60)
    for antialias in (True, False):
        assert (cropped(image, (3, 4, 20, 30), (20, 30), antialias=antialias) == image[3:23, 4:34]).all()


def test_without_antialiasing_crops_are_opencvs_cubic_ones():
    image = noise(70, 90)
    expected = cv2.resize(image[5:45, 6:66], (44, 33), interpolation=cv2.INTER_CUBIC)
    assert (cropped(image, (5, 6, 40, 60), (33, 44), antialias=False) == expected).all()
    row, out = center_row(image, 24, 32, antialias=False), np.empty((3, 24, 24), np.uint8)
    resize_into(image, row, False, out, bicubic=True)
    top, left, h, w = row[:4]
    expected = cv2.resize(image[top:top + h, left:left + w], (24, 24), interpolation=cv2.INTER_CUBIC)
    assert (out.transpose(1, 2, 0) == expected).all()


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (60, 90), (300, 1000)])
def test_photos_are_those_of_torchvision_to_within_what_is_documented(height, width):
    transforms = pytest.importorskip("torchvision.transforms")
    image, mode = make_photo(height, width, seed=3), transforms.InterpolationMode.BICUBIC
    expected = transforms.Compose([transforms.Resize(256, interpolation=mode), transforms.CenterCrop(224)])(
        Image.fromarray(image))
    assert difference(center_cropped(image, 224, 256), np.array(expected)).max() <= 2
    box = 7, 9, height // 2, width // 2
    expected = transforms.functional.resized_crop(Image.fromarray(image), *box, [224, 224], mode)
    assert difference(cropped(image, box, (224, 224)), np.array(expected)).max() <= 3


# --- the choice


def choice(positions, seed=0, epoch=0):
    return RandomResizedCrop(8, interpolation="random").bicubic(np.asarray(positions), seed, epoch)


def test_golden_choice():
    # Change this only if you know what you are doing: runs that are repeated or resumed would see other crops.
    assert np.flatnonzero(choice(range(24))).tolist() == [0, 1, 2, 3, 5, 9, 11, 13, 16, 17, 18, 19, 23]


def test_half_of_the_samples_are_bicubic_whatever_else_is_drawn():
    chosen = choice(range(10_000))
    assert chosen.dtype == bool and abs(chosen.mean() - 0.5) < 0.02
    sides = np.full(10_000, 400)
    plan = RandomResizedCrop(8).plan(sides, sides, np.arange(10_000), 0, 0)
    for column in (0, 1, 2, 3, 8):
        assert abs(np.corrcoef(plan[:, column], chosen)[0, 1]) < 0.04
    for other in (choice(range(10_000), seed=1), choice(range(10_000), epoch=1), choice(range(1, 10_001))):
        assert abs((other == chosen).mean() - 0.5) < 0.02


@given(st.integers(0, 2**64 - 1), st.integers(0, 100_000), st.lists(st.integers(0, 64), max_size=6))
def test_the_choice_does_not_depend_on_how_samples_are_grouped(seed, epoch, cuts):
    bounds = sorted({0, 64, *cuts})
    parts = [choice(np.arange(a, b), seed, epoch) for a, b in zip(bounds, bounds[1:])]
    assert (np.concatenate(parts) == choice(np.arange(64), seed, epoch)).all()


def test_what_is_not_random_is_all_or_none():
    for cls in (RandomResizedCrop, CenterCrop):
        assert cls(8) == cls(8, interpolation="bilinear") != cls(8, interpolation="bicubic")
        assert hash(cls(8)) == hash(cls(8, interpolation="bilinear"))
        for interpolation in ("bilinear", "bicubic"):
            transform = cls(8, interpolation=interpolation)
            found = transform.bicubic(np.arange(5), 0, 0)
            assert found.tolist() == [interpolation == "bicubic"] * 5 and found.dtype == bool
            assert eval(repr(transform)) == transform


def test_the_interpolation_does_not_change_the_plan():
    sides, positions = np.array([375, 60, 1]), np.arange(3)
    for cls in (RandomResizedCrop, CenterCrop):
        bilinear, bicubic = (cls(8, interpolation=name).plan(sides, sides[::-1], positions, 5, 6)
                             for name in ("bilinear", "bicubic"))
        assert (bilinear == bicubic).all()


@pytest.mark.parametrize("value", ["cubic", "BICUBIC", None, 3, BICUBIC])
def test_another_interpolation_is_refused(value):
    with pytest.raises(ValueError, match="interpolation must be 'bilinear', 'bicubic' or 'random', not "):
        RandomResizedCrop(8, interpolation=value)
    with pytest.raises(ValueError, match="interpolation must be 'bilinear' or 'bicubic', not "):
        CenterCrop(8, 8, interpolation=value)


def test_a_center_crop_takes_nothing_by_chance():
    with pytest.raises(ValueError, match="interpolation must be 'bilinear' or 'bicubic', not 'random'"):
        CenterCrop(8, 8, interpolation="random")


# --- loaders


def batches(loader):
    with loader:
        return torch.cat([images for images, _ in loader])


@pytest.mark.parametrize("folder", ["jpeg_lmdb", "tiled_lmdb", "uint8_lmdb"])
def test_a_sample_of_random_interpolation_is_that_of_one_or_the_other(request, folder):
    path = request.getfixturevalue(folder) / "train.lmdb"
    found = {name: batches(LMDBLoader(path, 5, transform=RandomResizedCrop(40, interpolation=name), shuffle=False,
                                      num_workers=2)) for name in ("bilinear", "bicubic", "random")}
    chosen = choice(range(23))
    assert 0 < chosen.sum() < 23
    for number, bicubic in enumerate(chosen):
        assert torch.equal(found["random"][number], found["bicubic" if bicubic else "bilinear"][number])
    assert all(not torch.equal(*pair) for pair in zip(found["bilinear"], found["bicubic"], strict=True))


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_random_interpolation_is_the_same_for_any_batch_size_and_workers(tiled_lmdb, cls):
    path, transform = tiled_lmdb / "train.lmdb", RandomResizedCrop(40, interpolation="random")
    expected = batches(cls(path, 23, transform=transform, num_workers=0, seed=3))
    for batch_size, options in [(4, {"num_workers": 3}), (7, {"num_workers": 2, "worker_type": "process"}),
                                (5, {"num_workers": 1, "channels_last": True})]:
        assert torch.equal(batches(cls(path, batch_size, transform=transform, seed=3, **options)), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_datasets_crop_as_loaders_do(tiled_lmdb, interpolation):
    path, transform = tiled_lmdb / "val.lmdb", CenterCrop(40, 48, interpolation=interpolation)
    expected = batches(LMDBLoader(path, 4, transform=transform, shuffle=False))
    with contextlib.closing(LMDBDataset(path, transform=transform)) as dataset:
        assert torch.equal(torch.stack([dataset[i][0] for i in range(len(dataset))]), expected)


def test_a_dataset_draws_the_interpolation_with_the_box(tiled_lmdb):
    whole = RandomResizedCrop((30, 40), scale=(50, 50), ratio=(0.1, 10), hflip=0, interpolation="random")
    with contextlib.closing(LMDBDataset(tiled_lmdb / "val.lmdb", transform=whole)) as dataset:  # areas that never fit
        found = {np.asarray(dataset[0][0]).tobytes() for _ in range(60)}
    assert len(found) == 2
