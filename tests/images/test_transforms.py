"""Crop boxes: torchvision's rules, for a whole batch at once, from a seed."""
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.images.transforms import CenterCrop, RandomResizedCrop
from dataflows.images.uniforms import uniforms

sides = st.one_of(st.integers(1, 12), st.integers(1, 700), st.integers(1, 65_535))
images = st.lists(st.tuples(sides, sides), min_size=1, max_size=20).map(np.array)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 100_000)
ratios = st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(lambda pair: tuple(sorted(pair)))
scales = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: tuple(sorted(pair)))

PHOTOS = np.array([(375, 500), (500, 375), (333, 500), (64, 64), (1000, 120)])


def plan(transform, sizes, positions=None, seed=0, epoch=0):
    positions = np.arange(len(sizes)) if positions is None else positions
    return transform.plan(sizes[:, 0], sizes[:, 1], positions, seed, epoch)


def torchvision_random_resized_crop(height, width, scale, ratio, attempts):
    """(top, left, height, width) and whether an attempt fitted: get_params of torchvision's class, given its draws."""
    area = height * width
    log_ratio = [math.log(r) for r in ratio]
    for u_area, u_ratio, u_top, u_left in attempts:
        target_area = area * (scale[0] + u_area * (scale[1] - scale[0]))
        aspect_ratio = math.exp(log_ratio[0] + u_ratio * (log_ratio[1] - log_ratio[0]))
        w = int(round(math.sqrt(target_area * aspect_ratio)))
        h = int(round(math.sqrt(target_area / aspect_ratio)))
        if 0 < w <= width and 0 < h <= height:
            return (int(u_top * (height - h + 1)), int(u_left * (width - w + 1)), h, w), True
    in_ratio = width / height
    if in_ratio < min(ratio):
        w = width
        h = int(round(w / min(ratio)))
    elif in_ratio > max(ratio):
        h = height
        w = int(round(h * max(ratio)))
    else:
        w, h = width, height
    return ((height - h) // 2, (width - w) // 2, h, w), False


def torchvision_resize_and_center_crop(height, width, resize, size):
    """The resized size and the crop's offsets, as Resize(resize) and CenterCrop(size) compute them for a PIL image."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = resize, int(resize * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    crop_height, crop_width = size
    crop_top = int(round((new_height - crop_height) / 2.0))
    crop_left = int(round((new_width - crop_width) / 2.0))
    return new_height, new_width, crop_top, crop_left


# --- RandomResizedCrop: the box


@given(images, seeds, epochs, scales, ratios)
def test_boxes_lie_within_the_image(sizes, seed, epoch, scale, ratio):
    top, left, height, width = plan(RandomResizedCrop(224, scale, ratio), sizes, None, seed, epoch)[:, :4].T
    assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (top + height <= sizes[:, 0]).all() and (left + width <= sizes[:, 1]).all()


@given(images, seeds, epochs, scales)
def test_boxes_have_the_area_and_ratio_asked_for_or_are_the_fallback(sizes, seed, epoch, scale):
    ratio = (3 / 4, 4 / 3)
    for (height, width), row in zip(sizes.tolist(), plan(RandomResizedCrop(8, scale, ratio), sizes, None, seed, epoch)):
        top, left, h, w = row[:4].tolist()
        fallback, _ = torchvision_random_resized_crop(height, width, scale, ratio, [])
        # Sides are rounded to whole pixels, so bounds hold for some real box within half a pixel.
        fits = ((h + .5) * (w + .5) >= scale[0] * height * width and (h - .5) * (w - .5) <= scale[1] * height * width
                and (w - .5) / (h + .5) <= ratio[1] and (w + .5) / (h - .5) >= ratio[0])
        assert fits or (top, left, h, w) == fallback


@given(images, seeds, epochs)
def test_boxes_are_those_of_torchvision_for_the_same_draws(sizes, seed, epoch):
    transform = RandomResizedCrop(224)
    draws = uniforms(range(41), seed, epoch, np.arange(len(sizes)))[:, :40].reshape(-1, 10, 4).tolist()
    rows = plan(transform, sizes, None, seed, epoch)
    for (height, width), attempts, row in zip(sizes.tolist(), draws, rows.tolist()):
        box, fitted = torchvision_random_resized_crop(height, width, transform.scale, transform.ratio, attempts)
        if fitted or min(box) >= 0 and min(box[2:]) > 0:
            assert tuple(row[:4]) == box


@pytest.mark.parametrize("height, width, box", [
    (100, 1000, (0, 433, 100, 133)),  # too wide: whole height, width 100 * 4 / 3
    (1000, 100, (433, 0, 133, 100)),  # too high: whole width, height 100 / (3 / 4)
    (1, 5000, (0, 2499, 1, 1)), (5000, 1, (2499, 0, 1, 1))])
def test_extreme_images_fall_back_to_a_center_crop(height, width, box):
    transform = RandomResizedCrop(224, scale=(0.9, 1.0))  # no box of that area has a ratio in bounds
    rows = plan(transform, np.array([(height, width)] * 50))
    assert {tuple(row) for row in rows[:, :4].tolist()} == {box}


def test_the_fallback_is_the_whole_image_if_its_ratio_is_in_bounds():
    rows = plan(RandomResizedCrop(224, scale=(30, 40)), np.array([(100, 110), (7, 7)]))  # areas that never fit
    assert rows[:, :4].tolist() == [[0, 0, 100, 110], [0, 0, 7, 7]]


def test_the_smallest_image_gives_its_one_pixel():
    rows = plan(RandomResizedCrop(224), np.array([(1, 1)] * 100))
    assert (rows[:, :4] == [0, 0, 1, 1]).all()


def test_boxes_spread_over_the_whole_image_and_over_all_areas():
    sizes = np.array([(375, 500)] * 4000)
    top, left, height, width = plan(RandomResizedCrop(224), sizes)[:, :4].T
    area = height * width / (375 * 500)
    assert area.min() < 0.09 and area.max() > 0.95 and 0.4 < area.mean() < 0.5
    assert (top == 0).any() and (left == 0).any() and (top + height == 375).any() and (left + width == 500).any()
    assert abs((top + height / 2).mean() / 375 - 0.5) < 0.02 and abs((left + width / 2).mean() / 500 - 0.5) < 0.02


# --- RandomResizedCrop: the output


def test_a_plan_says_the_box_the_size_the_window_and_the_mirroring():
    rows = plan(RandomResizedCrop((20, 30), hflip=1), PHOTOS)
    assert rows.dtype == np.int32 and rows.shape == (5, 9)
    assert (rows[:, 4:] == [20, 30, 0, 0, 1]).all()


@pytest.mark.parametrize("hflip, least, greatest", [(0, 0, 0), (False, 0, 0), (1, 1, 1), (1.0, 1, 1), (True, .47, .53),
                                                    (0.5, .47, .53), (0.1, .08, .12)])
def test_hflip_is_a_probability_and_true_is_one_half(hflip, least, greatest):
    flips = plan(RandomResizedCrop(224, hflip=hflip), np.array([(10, 10)] * 4000))[:, 8]
    assert set(flips.tolist()) <= {0, 1} and least <= flips.mean() <= greatest


def test_hflip_does_not_change_the_box():
    boxes = [plan(RandomResizedCrop(224, hflip=hflip), PHOTOS)[:, :4].tolist() for hflip in (0, 0.5, 1)]
    assert boxes[0] == boxes[1] == boxes[2]


@given(seeds, epochs, st.lists(st.integers(0, 64), max_size=6))
def test_a_plan_does_not_depend_on_how_samples_are_grouped(seed, epoch, cuts):
    transform, sizes = RandomResizedCrop(224), np.resize(PHOTOS, (64, 2))
    bounds = sorted({0, 64, *cuts})
    parts = [plan(transform, sizes[a:b], np.arange(a, b), seed, epoch) for a, b in zip(bounds, bounds[1:])]
    assert (np.concatenate(parts) == plan(transform, sizes, None, seed, epoch)).all()


def test_a_plan_does_not_change_its_arguments():
    sizes, positions = PHOTOS.copy(), np.arange(5)
    for transform in (RandomResizedCrop(224), CenterCrop(224)):
        plan(transform, sizes, positions)
    assert (sizes == PHOTOS).all() and (positions == np.arange(5)).all()


def test_seed_epoch_and_position_each_change_the_plan():
    base, sizes = RandomResizedCrop(224), np.array([(375, 500)] * 8)
    rows = plan(base, sizes)
    for other in (plan(base, sizes, seed=1), plan(base, sizes, epoch=1), plan(base, sizes, np.arange(8, 16))):
        assert (rows[:, :4] != other[:, :4]).any(axis=1).all()
    assert len({tuple(row) for row in rows[:, :4].tolist()}) == 8


def test_golden_plan():
    # Change this only if you know what you are doing: runs that are repeated or resumed would see other crops.
    sizes = np.array([(375, 500), (500, 375), (8, 400), (1, 1)])
    assert plan(RandomResizedCrop(224), sizes).tolist() == [
        [104, 228, 220, 170, 224, 224, 0, 0, 1], [27, 7, 440, 368, 224, 224, 0, 0, 0],
        [0, 194, 8, 11, 224, 224, 0, 0, 1], [0, 0, 1, 1, 224, 224, 0, 0, 0]]


# --- CenterCrop


@pytest.mark.parametrize("size, resize", [((224, 224), 256), ((224, 224), 232), ((224, 224), 224), ((99, 224), 255),
                                          ((1, 1), 1), ((384, 384), 438)])
def test_center_crop_does_torchvisions_arithmetic(size, resize):
    generator = np.random.default_rng(0)
    sizes = np.concatenate([generator.integers(1, 700, (2000, 2)), generator.integers(1, 12, (300, 2)),
                            np.array([(1, 65_535), (65_535, 1), (256, 256), (255, 256), (256, 257)])])
    rows = plan(CenterCrop(size, resize), sizes)
    expected = [torchvision_resize_and_center_crop(h, w, resize, size) for h, w in sizes.tolist()]
    assert rows[:, 4:8].tolist() == [list(row) for row in expected]
    assert (rows[:, :2] == 0).all() and (rows[:, 2:4] == sizes).all() and (rows[:, 8] == 0).all()


@given(images)
def test_the_center_window_lies_within_the_resized_image(sizes):
    _, _, _, _, height, width, top, left, _ = plan(CenterCrop((200, 224), 230), sizes).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + 200 <= height).all() and (left + 224 <= width).all()


# --- both


def test_a_size_is_one_side_or_height_and_width():
    for cls in (RandomResizedCrop, CenterCrop):
        assert cls(5).size == (5, 5) and cls((5, 6)).size == (5, 6) and cls([5, 6]).size == (5, 6)
        assert cls(np.int64(5)).size == (5, 5)


def test_transforms_are_values():
    for transform in (RandomResizedCrop(5, hflip=True), CenterCrop(5)):
        assert pickle.loads(pickle.dumps(transform)) == transform
        assert eval(repr(transform)) == transform
        with pytest.raises(AttributeError):
            transform.size = 6


@pytest.mark.parametrize("cls", [RandomResizedCrop, CenterCrop])
@pytest.mark.parametrize("size", [0, -1, (0, 5), (5, 0), (5,), (1, 2, 3), "224", 2.5, None, (3.5, 2)])
def test_a_wrong_size_is_refused(cls, size):
    with pytest.raises((ValueError, TypeError), match="size must be"):
        cls(size)


@pytest.mark.parametrize("name", ["scale", "ratio"])
@pytest.mark.parametrize("value", [(0, 1), (-1, 1), (0.5, 0.4), (float("nan"), 1), (0.5,), (0.1, 0.2, 0.3), 0.5, None])
def test_a_wrong_range_is_refused(name, value):
    with pytest.raises((ValueError, TypeError), match=f"{name} must be"):
        RandomResizedCrop(224, **{name: value})


@pytest.mark.parametrize("hflip", [-0.1, 1.1, float("nan"), "often"])
def test_a_wrong_probability_is_refused(hflip):
    with pytest.raises((ValueError, TypeError), match="hflip is a probability from 0 to 1"):
        RandomResizedCrop(224, hflip=hflip)


def test_a_crop_larger_than_the_resized_image_is_refused():
    with pytest.raises(ValueError, match="resize must be an integer of at least 224, not 223"):
        CenterCrop((200, 224), resize=223)


@pytest.mark.parametrize("cls, name, near", [(RandomResizedCrop, "scal", "scale"), (CenterCrop, "resise", "resize"),
                                             (RandomResizedCrop, "antialiased", "antialias")])
def test_a_misspelt_option_is_told_the_nearest(cls, name, near):
    with pytest.raises(TypeError, match=f"^{cls.__name__} got an unexpected option '{name}'; did you mean {near}\\?$"):
        cls(224, **{name: 1})


def test_a_derived_crop_is_named_as_it_is_called():
    class Own(CenterCrop):
        pass

    with pytest.raises(TypeError, match="^Own got an unexpected option 'resise'; did you mean resize"):
        Own(224, resise=256)
    assert Own(224, resize=300).resize == 300
