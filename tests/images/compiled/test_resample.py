"""Our own antialiased resize: torch's and Pillow's pixels, for any row of a plan and any part of an image."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows.images.compiled import kernels
from dataflows.images.compiled.resample import BLOCK, Line, resize
from dataflows.images.plan import regions
from dataflows.images.resize import resize_into


def noise(height, width, seed=0):
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), np.uint8)


@st.composite
def rows(draw):
    """(height, width of an image, row of a plan that is no copy, size of the window)."""
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    box_height, box_width = draw(st.integers(1, height)), draw(st.integers(1, width))
    top, left = draw(st.integers(0, height - box_height)), draw(st.integers(0, width - box_width))
    near = st.integers(-2, 2)
    to = [max(1, draw(st.one_of(st.integers(1, 90), near.map(lambda more, side=side: side + more))))
          for side in (box_height, box_width)]
    if to == [box_height, box_width]:
        to[0] += 1
    size = [draw(st.one_of(st.just(side), st.integers(1, side))) for side in to]
    offset = [draw(st.integers(0, side - wanted)) for side, wanted in zip(to, size)]
    row = [top, left, box_height, box_width, *to, *offset, draw(st.integers(0, 1))]
    return height, width, row, tuple(size)


def both(image, row, size, channels_last=False):
    """(torch's crop, ours), from the pixels of the row's region."""
    [region] = regions(np.array([row]), size).tolist()
    top, left, height, width = region
    part = image[top:top + height, left:left + width]
    crops = [np.zeros((*size, 3), np.uint8).transpose(2, 0, 1) if channels_last else np.zeros((3, *size), np.uint8)
             for _ in range(2)]
    resize_into(part, row, True, crops[0], origin=(top, left))
    kernels.resize(part, row, region, crops[1])
    return crops


@settings(max_examples=300, deadline=None)
@given(rows(), st.integers(0, 99), st.booleans())
def test_it_has_the_pixels_of_torch(what, seed, channels_last):
    height, width, row, size = what
    expected, found = both(noise(height, width, seed), row, size, channels_last)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape, size", [((500, 375), (224, 224)), ((1500, 2000), (224, 160)), ((40, 3000), (8, 9)),
                                         ((64, 64), (300, 300)), ((1, 1), (5, 5)), ((224, 500), (224, 224))], ids=str)
def test_whole_images_of_usual_and_odd_sizes(shape, size):
    expected, found = both(noise(*shape), [0, 0, *shape, *size, 0, 0, 0], size)
    np.testing.assert_array_equal(found, expected)
    pillow = np.asarray(Image.fromarray(noise(*shape)).resize(size[::-1], Image.Resampling.BILINEAR), int)
    assert np.abs(found.transpose(1, 2, 0) - pillow).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_a_flat_image_stays_as_it_is(level):
    image = np.full((97, 211, 3), level, np.uint8)
    for size in ((3, 5), (40, 40), (97, 100), (300, 500)):
        assert (both(image, [0, 0, 97, 211, *size, 0, 0, 1], size)[1] == level).all()


LINE = Line(0.0, 2.0, 2.0, 40, 20, 0, 20, 0, 40)
FITTING = {"source": np.zeros(3 * 40 * 40 + BLOCK - 1, np.uint8), "at": 0, "stride": 40, "apart": 1600, "number": 3,
           "down": LINE, "across": LINE, "flip": False, "out": np.zeros(3 * 20 * 20, np.uint8)}
BESIDE = FITTING | {"source": np.zeros(3 * 40 * 40, np.uint8), "stride": 120, "apart": 0}


@pytest.mark.parametrize("change", [{"at": -1}, {"at": 9}, {"at": 2**62}, {"stride": 39}, {"number": 0}, {"number": 4},
                                    {"apart": 1609}, {"apart": -1}, {"down": LINE._replace(samples=41)},
                                    {"across": LINE._replace(samples=0)}, {"down": LINE._replace(wanted=0)},
                                    {"across": LINE._replace(samples=41)}, {"out": np.zeros(3 * 20 * 20 - 1, np.uint8)},
                                    {"source": np.zeros(3 * 40 * 40 - 1, np.uint8)}], ids=str)
@pytest.mark.parametrize("fitting", [FITTING, BESIDE], ids=["planes", "beside"])
def test_what_does_not_fit_is_refused(fitting, change):
    resize(**fitting)
    if fitting is BESIDE and "apart" in change:
        change = {"apart": -1}
    if fitting is BESIDE and change == {"stride": 39}:
        change = {"stride": 119}
    with pytest.raises(ValueError, match="too small"):
        resize(**fitting | change)


def test_colors_beside_each_other_need_nothing_behind_them():
    """The same from an array that ends with the image, and from a larger one."""
    image, found = noise(40, 40), np.empty((2, 3 * 20 * 20), np.uint8)
    resize(**BESIDE | {"source": image.ravel().copy(), "out": found[0]})
    resize(**BESIDE | {"source": np.append(image.ravel(), np.zeros(99, np.uint8)), "out": found[1]})
    np.testing.assert_array_equal(found[0], found[1])
    planes = np.append(image.transpose(2, 0, 1).ravel(), np.zeros(BLOCK - 1, np.uint8))
    resize(**FITTING | {"source": planes, "out": found[1]})
    np.testing.assert_array_equal(found[0], found[1])
