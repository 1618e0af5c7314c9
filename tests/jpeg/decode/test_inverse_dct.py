"""The inverse DCT against libjpeg-turbo's: the pixels of a gray JPEG are the samples of its one plane."""
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows.jpeg.decode.inverse_dct import inverse_dct
from helpers.coefficients import coefficients_of, jpeg_of, samples_of

FLAT = np.ones(64, np.int32)


def libjpeg(blocks, quantisers):
    rows, columns = blocks.shape[:2]
    jpeg = jpeg_of(8 * rows, 8 * columns, [blocks], [quantisers], [(1, 1)])
    return np.array(Image.open(io.BytesIO(jpeg)))


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 37), st.integers(0, 2), st.integers(0, 2 ** 32 - 1))
def test_samples_are_those_of_libjpeg(rows, columns, groups_before, seed):
    """Of noise, of edges between black and white, and of any coefficients of that size."""
    rng = np.random.default_rng(seed)
    quantisers = rng.integers(1, rng.choice([2, 20, 256]), 64)
    kind = rng.integers(3)
    if kind == 2:
        blocks = rng.integers(-1023, 1024, (rows, columns, 64)) // quantisers * (rng.random(64) < 0.1)
    else:
        samples = rng.integers(0, 256, (8 * rows, 8 * columns)) if kind == 0 else \
            255 * (rng.random((8 * rows, 8 * columns)) < rng.random())
        blocks = coefficients_of(samples, quantisers)
    np.testing.assert_array_equal(samples_of(blocks, quantisers, 1024 * groups_before), libjpeg(blocks, quantisers))


@pytest.mark.parametrize("value", [-1023, -97, -1, 1, 2, 600, 1023])
def test_each_coefficient_by_itself(value):
    blocks = (value * np.eye(64, dtype=np.int64)).reshape(4, 16, 64)
    np.testing.assert_array_equal(samples_of(blocks, FLAT), libjpeg(blocks, FLAT))


def test_every_mean():
    blocks = np.zeros((2, 1023, 64), np.int64)
    blocks[..., 0] = np.arange(-1023, 1023).reshape(2, 1023)
    np.testing.assert_array_equal(samples_of(blocks, FLAT), libjpeg(blocks, FLAT))


def test_hostile_coefficients_do_no_harm():
    rng = np.random.default_rng(3)
    blocks = rng.integers(-32768, 32768, (3, 21, 64))
    samples = samples_of(blocks, rng.integers(1, 65536, 64))
    assert samples.min() == 0 and samples.max() == 255


@pytest.mark.parametrize("change", [
    {"start": -1024}, {"start": 1024}, {"start": 2 ** 63 - 1}, {"blocks": -1}, {"blocks": 33}, {"blocks": 2 ** 62},
    {"blocks_per_row": 0}, {"blocks_per_row": -4}, {"blocks_per_row": 9}, {"blocks_per_row": 2 ** 60},
    {"quantisers": FLAT[:63]}, {"words": np.empty(20 * 16 - 1, np.int32)}, {"coefficients": np.empty(2047, np.int16)}])
def test_arrays_that_are_too_small_are_refused(change):
    """20 blocks in rows of 4: 2 groups of coefficients, and 5 rows. 33 would be 3 groups; rows of 9 would be 3 rows."""
    arguments = {"coefficients": np.zeros(2048, np.int16), "start": 0, "blocks": 20, "blocks_per_row": 4,
                 "quantisers": FLAT, "words": np.empty(20 * 16, np.int32)}
    inverse_dct(**arguments)
    with pytest.raises(ValueError, match="too small"):
        inverse_dct(**arguments | change)


def test_one_compilation_serves_all_planes():
    for columns in (3, 16):
        samples_of(np.zeros((2, columns, 64), np.int64), FLAT, 1024)
    assert len(inverse_dct.signatures) == 1
