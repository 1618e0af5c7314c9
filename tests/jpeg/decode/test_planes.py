"""Planes of tiled JPEGs, judged by libjpeg; and data that are damaged, or made to do harm."""
import io
import itertools

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.decode import entropy
from dataflows.jpeg.decode.colors import to_rgb
from dataflows.jpeg.decode.planes import MOST_PIXELS
from dataflows.jpeg.tile import tile
from helpers.jpegs import FACTORS, encode, picture
from helpers.kernels import planes_of

JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
SAMPLINGS = ["gray", *FACTORS]


def tiled(*args, interval_px=32, **options):
    data = np.frombuffer(tile(encode(*args, **options), interval_px=interval_px), np.uint8)
    return data, read_tiles(data)


def decode(image, tiles, row, row_end, column, column_end):
    """(planes, their factors) of these rows and columns of MCUs, or None."""
    height, width = tiles.mcu_height, tiles.mcu_width
    top, left = row * height, column * width
    region = [top, left, min((row_end - row) * height, tiles.height - top),
              min((column_end - column) * width, tiles.width - left)]
    found = planes_of(image, region)
    if found is None:
        return None
    assert found[2] == (top, left)
    return found[:2]


def rgb(found, tiles, row, column):
    """The planes as libjpeg shows them: all of their pixels that are in the image."""
    (luma, *chroma), factors = found
    top, left = row * tiles.mcu_height, column * tiles.mcu_width
    height, width = min(luma.shape[0], tiles.height - top), min(luma.shape[1], tiles.width - left)
    if not chroma:
        return np.repeat(luma[:height, :width, None], 3, 2)
    down, across = (factors[0][i] // factors[1][i] for i in range(2))
    out = np.zeros((3, height * luma.shape[1]), np.uint8)
    rows, columns = -(-(tiles.height - top) // down), -(-(tiles.width - left) // across)
    to_rgb(luma.ravel(), luma.shape[1], chroma[0].ravel(), chroma[1].ravel(), chroma[0].shape[1],
           min(chroma[0].shape[0], rows), min(chroma[0].shape[1], columns), across, down, 0, 0, height, width, *out)
    return out.reshape(3, height, -1)[:, :, :width].transpose(1, 2, 0)


def interior(tiles, row, row_end, column, column_end):
    """Of a part's pixels, those whose chroma has its neighbours in the part."""
    return (slice(tiles.margin_y * (row > 0), -1 if tiles.margin_y and row_end < tiles.rows else None),
            slice(tiles.margin_x * (column > 0), -1 if tiles.margin_x and column_end < tiles.columns else None))


@settings(max_examples=80, deadline=None)
@given(sampling=st.sampled_from(["gray", "4:4:4", "4:2:2", "4:2:0", "4:4:0"]), height=st.integers(1, 90),
       width=st.integers(5, 130), quality=st.sampled_from([1, 30, 75, 95, 100]), optimize=st.integers(0, 1),
       interval_px=st.sampled_from([8, 32, 48, 64, 200]), data=st.data())
def test_planes_are_what_libjpeg_shows(sampling, height, width, quality, optimize, interval_px, data):
    image, tiles = tiled(height, width, sampling, quality=quality, optimize=optimize, interval_px=interval_px)
    row = data.draw(st.integers(0, tiles.rows - 1))
    row_end = data.draw(st.integers(row + 1, tiles.rows))
    column = data.draw(st.integers(0, tiles.columns - 1))
    column_end = data.draw(st.integers(column + 1, tiles.columns))
    box = (row, row_end, column, column_end)
    found = rgb(decode(image, tiles, *box), tiles, row, column)
    expected = simplejpeg.decode_jpeg(image.tobytes(), "RGB")[row * tiles.mcu_height:, column * tiles.mcu_width:]
    inside = interior(tiles, *box)
    np.testing.assert_array_equal(found[inside], expected[:found.shape[0], :found.shape[1]][inside])


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (8, 8), (3, 40), (90, 4), (33, 47 * 16)])
def test_luma_of_any_sampling_and_size(sampling, height, width):
    image, tiles = tiled(height, width, sampling, interval_px=48)
    found = decode(image, tiles, 0, tiles.rows, 0, tiles.columns)[0][0][:height, :width]
    gray = cv2.imdecode(image, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)  # libjpeg's luma as it is
    np.testing.assert_array_equal(found, gray)


def test_intervals_that_go_over_the_ends_of_rows_are_met():
    _, tiles = tiled(33, 47 * 16, "4:2:0", interval_px=48)
    assert tiles.columns % tiles.interval


def test_a_box_that_is_too_large_is_left_to_others():
    side = int(MOST_PIXELS ** 0.5)
    image, tiles = tiled(side + 8, side, "gray")
    assert decode(image, tiles, 0, tiles.rows, 0, tiles.columns) is None
    assert decode(image, tiles, 0, tiles.rows - 1, 0, tiles.columns) is not None


def test_damaged_data_are_left_to_others():
    image, tiles = tiled(64, 64)
    box = (0, tiles.rows, 0, tiles.columns)
    assert decode(image, tiles, *box) is not None
    end = tiles.scan_at + int(tiles.offsets[3])  # of an interval in the middle
    for at, byte in ((end - 2, 0x12), (end - 1, 0xC4), (end - 6, 0xFF)):
        changed = image.copy()
        changed[at] = byte
        assert decode(changed, tiles, *box) is None
    assert decode(image[:end], tiles, *box) is None


@pytest.mark.parametrize("factors", [b"\xff\x11\x11", b"\x44\x44\x44", b"\x00\x11\x11", b"\x42\x21\x11",
                                     b"\x11\x11\x11"])
def test_sampling_factors_beyond_the_standard_are_left_to_others(factors):
    image, tiles = tiled(64, 64, "4:2:0")
    changed = image.copy()
    frame = image.tobytes().index(b"\xff\xc0")
    changed[frame + 11:frame + 20:3] = np.frombuffer(factors, np.uint8)
    assert decode(changed, tiles, 0, 4, 0, 4) is None


def test_one_stream_and_two_give_the_same():
    """A box of one interval is decoded by one stream, the whole by two."""
    image, tiles = tiled(64, 256, "4:2:0")
    whole = decode(image, tiles, 0, tiles.rows, 0, tiles.columns)[0]
    for row, first in itertools.product(range(tiles.rows), range(0, tiles.columns, tiles.interval)):
        part = decode(image, tiles, row, row + 1, first, first + tiles.interval)
        for plane, all_of_it in zip(part[0], whole):
            height, width = plane.shape
            top, left = row * height, first // tiles.interval * width
            np.testing.assert_array_equal(plane, all_of_it[top:top + height, left:left + width])


def test_padding_is_longer_than_any_block():
    assert entropy.PAD >= (16 + 11 + 63 * (16 + 10)) / 8 + 16


@pytest.mark.parametrize("front, decoded", [(b"", False), (JFIF, True)], ids=["Adobe alone", "JFIF besides"])
def test_colors_that_are_not_ycbcr_are_left_to_others(front, decoded):
    """An Adobe mark says that components are R, G and B; with JFIF's, libjpeg takes them for Y, Cb and Cr anyway."""
    file = io.BytesIO()
    Image.fromarray(picture(40, 48)).save(file, "JPEG", keep_rgb=True)
    jpeg = file.getvalue()
    assert b"Adobe" in jpeg and b"JFIF" not in jpeg
    data = np.frombuffer(tile(jpeg[:2] + front + jpeg[2:]), np.uint8)
    tiles = read_tiles(data)
    found = decode(data, tiles, 0, tiles.rows, 0, tiles.columns)
    assert (found is not None) == decoded
    if decoded:
        np.testing.assert_array_equal(rgb(found, tiles, 0, 0), cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


def test_components_that_are_named_rgb_are_left_to_others():
    data = bytearray(encode(40, 48, "4:4:4"))
    for marker in (b"\xff\xc0", b"\xff\xda"):
        at = data.index(marker)
        step, first = (3, at + 10) if marker == b"\xff\xc0" else (2, at + 5)
        data[first:first + 3 * step:step] = b"RGB"
    jfif = data.index(b"\xff\xe0")
    del data[jfif:jfif + 18]
    image = np.frombuffer(tile(bytes(data)), np.uint8)
    tiles = read_tiles(image)
    assert "JFIF" not in str(tiles.header) and decode(image, tiles, 0, 1, 0, 1) is None
