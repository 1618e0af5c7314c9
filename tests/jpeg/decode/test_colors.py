"""Colors against libjpeg-turbo's: from planes that inverse_dct gives, which is tested by itself, to Pillow's pixels."""
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows.jpeg.decode.colors import planes_to_rgb, to_rgb
from helpers.coefficients import coefficients_of, jpeg_of, samples_of

SAMPLINGS = [(1, 1), (2, 1), (1, 2), (2, 2)]  # (across, down)
FLAT = np.ones(64, np.int64)


def photo(height, width, across, down, seed):
    """(pixels that Pillow decodes, [Y, Cb, Cr]) of a JPEG whose last MCUs go on with noise behind the image's edges."""
    rng = np.random.default_rng(seed)
    rows, columns = -(-height // (8 * down)), -(-width // (8 * across))
    shapes = [(8 * rows * down, 8 * columns * across), (8 * rows, 8 * columns), (8 * rows, 8 * columns)]
    quantisers = rng.integers(20, 120, 64)
    blocks = [coefficients_of(rng.integers(0, 256, shape), quantisers) for shape in shapes]
    jpeg = jpeg_of(height, width, blocks, [quantisers] * 3, [(across, down), (1, 1), (1, 1)])
    return np.array(Image.open(io.BytesIO(jpeg))), [samples_of(component, quantisers) for component in blocks]


def box_of(planes, size, across, down, box):
    """to_rgb of a box, of no more MCUs than it needs; asserts that nothing is written beside the box."""
    (height, width), (top, left, rows, columns) = size, box
    y0, x0 = max(top - down + 1, 0) // (8 * down) * 8, max(left - across + 1, 0) // (8 * across) * 8
    y1, x1 = -(-(top + rows + down - 1) // (8 * down)) * 8, -(-(left + columns + across - 1) // (8 * across)) * 8
    luma = planes[0][y0 * down:y1 * down, x0 * across:x1 * across]
    cb, cr = (plane[y0:y1, x0:x1] for plane in planes[1:])
    chroma_rows = min(cb.shape[0], -(-height // down) - y0)
    chroma_columns = min(cb.shape[1], -(-width // across) - x0)
    out = np.full((3, (rows + 1) * luma.shape[1]), 77, np.uint8)
    to_rgb(luma.ravel(), luma.shape[1], cb.ravel(), cr.ravel(), cb.shape[1], chroma_rows, chroma_columns, across, down,
           top - y0 * down, left - x0 * across, rows, columns, *out)
    assert (out[:, (rows - 1) * luma.shape[1] + columns:] == 77).all()
    return out.reshape(3, rows + 1, -1)[:, :rows, :columns].transpose(1, 2, 0)


@st.composite
def boxes(draw):
    across, down = draw(st.sampled_from(SAMPLINGS))
    height = draw(st.integers(1, 50))
    width = draw(st.integers(1 if across == 1 else 5, 50))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    rows, columns = draw(st.integers(1, height - top)), draw(st.integers(1, width - left))
    return (height, width), (across, down), (top, left, rows, columns), draw(st.integers(0, 99))


@settings(max_examples=40)
@given(boxes())
def test_pixels_are_those_of_libjpeg(case):
    size, sampling, (top, left, rows, columns), seed = case
    pixels, planes = photo(*size, *sampling, seed)
    found = box_of(planes, size, *sampling, (top, left, rows, columns))
    np.testing.assert_array_equal(found, pixels[top:top + rows, left:left + columns])


@pytest.mark.parametrize("across, down", SAMPLINGS)
def test_boxes_at_all_edges_and_at_the_seams_of_mcus(across, down):
    size = (37, 43)
    pixels, planes = photo(*size, across, down, 5)
    edges = [sorted({0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, side - 1, side}) for side in size]
    for (top, bottom), (left, right) in itertools.product(*(itertools.combinations(edge, 2) for edge in edges)):
        found = box_of(planes, size, across, down, (top, left, bottom - top, right - left))
        np.testing.assert_array_equal(found, pixels[top:bottom, left:right])


def test_every_color():
    """Y that covers its range, with every pair of Cb and Cr, in one JPEG whose blocks have one value each."""
    blocks = [np.zeros((64, 64, 64), np.int64) for _ in range(3)]
    cb, cr = np.mgrid[:64, :64]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for block, value in zip(blocks, (rng.integers(0, 256, (64, 64)), 4 * cb + seed, 4 * cr + rng.integers(0, 4))):
            block[..., 0] = 8 * (value - 128)
        jpeg = jpeg_of(512, 512, blocks, [FLAT] * 3, [(1, 1)] * 3)
        found = box_of([samples_of(block, FLAT) for block in blocks], (512, 512), 1, 1, (0, 0, 512, 512))
        np.testing.assert_array_equal(found, np.array(Image.open(io.BytesIO(jpeg))))


FITTING = {"luma": np.zeros(16 * 32, np.uint8), "luma_stride": 32, "cb": np.zeros(8 * 16, np.uint8),
           "cr": np.zeros(8 * 16, np.uint8), "chroma_stride": 16, "chroma_rows": 8, "chroma_columns": 16, "across": 2,
           "down": 2, "top": 2, "left": 3, "height": 14, "width": 29,
           **{name: np.zeros(13 * 32 + 29, np.uint8) for name in "rgb"}}


@pytest.mark.parametrize("change", [
    {"across": 0}, {"across": 3}, {"down": 0}, {"down": -1}, {"down": 4}, {"down": 1}, {"across": 1}, {"top": -1},
    {"top": 3}, {"top": 2 ** 63 - 1}, {"left": -1}, {"left": 4}, {"left": 2 ** 63 - 1}, {"height": 0}, {"height": 15},
    {"height": 2 ** 62}, {"width": 0}, {"width": 30}, {"luma_stride": 31}, {"luma_stride": 33}, {"luma_stride": 0},
    {"chroma_stride": 15}, {"chroma_stride": 17}, {"chroma_stride": 0}, {"chroma_rows": 7}, {"chroma_rows": 9},
    {"chroma_rows": 2 ** 62}, {"chroma_columns": 15}, {"chroma_columns": 17},
    {"luma": np.zeros(16 * 32 - 1, np.uint8)}, {"cb": np.zeros(8 * 16 - 1, np.uint8)},
    {"cr": np.zeros(8 * 16 - 1, np.uint8)}, *({name: np.zeros(13 * 32 + 28, np.uint8)} for name in "rgb")], ids=str)
def test_what_does_not_fit_is_refused(change):
    to_rgb(**FITTING)
    with pytest.raises(ValueError, match="outside of an array"):
        to_rgb(**FITTING | change)


def test_one_compilation_serves_all_samplings():
    for across, down in SAMPLINGS:
        size = (9, 20)
        box_of(photo(*size, across, down, 1)[1], size, across, down, (1, 2, 5, 5))
    assert len(to_rgb.signatures) == 1


def test_planes_of_one_size_are_converted_with_the_same_factors():
    luma, cb, cr = np.random.default_rng(0).integers(0, 256, (3, 9999), np.uint8)
    exact, found = np.empty((2, 3, 9999), np.uint8)
    to_rgb(luma, 9999, cb, cr, 9999, 1, 9999, 1, 1, 0, 0, 1, 9999, *exact)
    planes_to_rgb(luma, cb, cr, *found)
    np.testing.assert_array_equal(found, exact)
