"""Our own antialiased resize: torch's and Pillow's pixels, for any row of a plan and any part of an image."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows.images.compiled import resample
from dataflows.images.compiled.exact import Region
from dataflows.images.compiled.kernels import Kernels
from dataflows.images.compiled.resample import Line, Resampler
from dataflows.images.plan import regions
from dataflows.images.resize import resize_into

own = Kernels()


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
    own.resize(own.split(part), row, region, crops[1])
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


def test_a_gray_image_is_resized_once_and_given_thrice():
    plane = np.append(noise(30, 40)[:, :, 0].ravel(), np.zeros(resample.BLOCK, np.uint8))
    row, region, out = [0, 0, 30, 40, 20, 20, 0, 0, 1], [0, 0, 30, 40], np.zeros((3, 20, 20), np.uint8)
    own.resize(Region((plane, plane, plane), 0, 40, 30, 40), row, region, out)
    expected = np.zeros((3, 20, 20), np.uint8)
    resize_into(np.repeat(plane[:1200].reshape(30, 40, 1), 3, 2), row, True, expected)
    np.testing.assert_array_equal(out, expected)


LINE = Line(0.0, 2.0, 2.0, 40, 20, 0, 20, 0, 40)


@pytest.mark.parametrize("change", [{"at": -1}, {"at": 17}, {"stride": 39}, {"number": 0}, {"number": 4},
                                    {"down": LINE._replace(samples=41)}, {"across": LINE._replace(samples=0)},
                                    {"out": np.zeros((3, 20, 19), np.uint8)}], ids=str)
def test_what_does_not_fit_is_refused(change):
    plane = np.zeros(40 * 40 + 16, np.uint8)
    fitting = {"planes": (plane, plane, plane), "number": 3, "at": 0, "stride": 40, "down": LINE, "across": LINE,
               "flip": False, "out": np.zeros((3, 20, 20), np.uint8)}
    Resampler().resize(**fitting)
    with pytest.raises(ValueError, match="too small"):
        Resampler().resize(**fitting | change)
