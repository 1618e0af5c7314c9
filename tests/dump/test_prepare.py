"""What the dump stores of an image: how large, the file's own bytes or the pixels of PIL, and nothing damaged."""
import io

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

import dataflows.dump.prepare
from dataflows.dump.prepare import Preparation
from dataflows.errors import RecordError
from dataflows.jpeg.tile import read_tiles, tile
from helpers.photos import encode_jpeg, make_photo

PHOTO = make_photo(120, 160, seed=1)
JPEG = encode_jpeg(PHOTO)


def decoded(content):
    from PIL import Image
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


# Sizes are (height, width).

@pytest.mark.parametrize("limits, size, stored", [
    ({}, (375, 500), (375, 500)),
    (dict(max_side=500), (375, 500), (375, 500)),
    (dict(max_side=400), (375, 500), (300, 400)),
    (dict(max_side=400), (500, 375), (400, 300)),
    (dict(max_side=100), (333, 1000), (33, 100)),
    (dict(max_side=10), (1, 1000), (1, 10)),
    (dict(max_side=1), (50, 60), (1, 1)),
    (dict(max_side=400), (401, 401), (400, 400)),
    (dict(max_side=400), (100, 399), (100, 399)),
    (dict(shorter_side=256), (375, 500), (256, 341)),  # 341.33 truncated, as torchvision's Resize truncates
    (dict(shorter_side=256), (500, 375), (341, 256)),
    (dict(shorter_side=256), (300, 599), (256, 511)),  # 511.1
    (dict(shorter_side=256), (256, 2000), (256, 2000)),
    (dict(shorter_side=256), (200, 2000), (200, 2000)),
    (dict(shorter_side=256), (300, 300), (256, 256)),
    (dict(shorter_side=256, max_side=500), (375, 500), (256, 341)),
    (dict(shorter_side=256, max_side=500), (300, 900), (166, 500)),  # 256 x 768 first
    (dict(shorter_side=256, max_side=500), (200, 900), (111, 500)),
    (dict(shorter_side=256, max_side=200), (400, 400), (200, 200)),
])
def test_stored_size(limits, size, stored):
    assert Preparation(**limits).stored_size(*size) == stored


sides = st.integers(1, 3000)


@given(sides, sides, st.none() | sides, st.none() | sides)
def test_limits_hold_and_nothing_is_enlarged(height, width, max_side, shorter_side):
    stored = Preparation(max_side=max_side, shorter_side=shorter_side).stored_size(height, width)
    assert 1 <= stored[0] <= height and 1 <= stored[1] <= width
    assert max_side is None or max(stored) <= max_side
    assert shorter_side is None or min(stored) <= shorter_side
    assert (stored[0] >= stored[1]) or (height <= width)
    assert Preparation(max_side=max_side, shorter_side=shorter_side).stored_size(width, height) == stored[::-1]


@pytest.mark.parametrize("name, value", [("format", "png"), ("format", None), ("max_side", 0), ("max_side", -1),
                                         ("shorter_side", 0),
                                         ("quality", 0), ("quality", 101)])
def test_options_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} .*not {value!r}"):
        Preparation(**{name: value})


# Contents.

@pytest.mark.parametrize("limits", [{}, dict(max_side=160), dict(shorter_side=120),
                                    dict(max_side=1000, shorter_side=1000)])
def test_jpeg_keeps_the_bytes_of_what_needs_no_shrinking(limits):
    assert Preparation("jpeg", tiles=False, **limits)(JPEG) == (JPEG, 120, 160, None, ())


@pytest.mark.parametrize("extension", [".png", ".bmp", ".webp", ".tif", ".ppm"])
@pytest.mark.parametrize("tiles", [True, False])
def test_other_formats_become_jpegs_of_the_best_quality(extension, tiles):
    content = cv2.imencode(extension, PHOTO)[1].tobytes()
    prepared = Preparation("jpeg", tiles=tiles)(content)
    assert prepared[1:] == (120, 160, None, ("encoded as JPEG",)) and (read_tiles(prepared.image) is not None) == tiles
    assert np.abs(decoded(prepared.image).astype(int) - decoded(content)).max() <= 4
    assert simplejpeg.decode_jpeg_header(prepared.image)[2:] == ("YCbCr", "444")
    pixels = Preparation("uint8")(content)
    assert pixels.findings == () and (pixels.image == decoded(content)).all()


def test_a_jpeg_is_too_small_for_some_images():
    content = cv2.imencode(".png", np.zeros((1, 70_000, 3), np.uint8))[1].tobytes()
    with pytest.raises(RecordError, match="JPEG does not hold 1 x 70,000 pixels; max_side=N"):
        Preparation("jpeg")(content)
    assert Preparation("uint8")(content).width == 70_000
    assert Preparation("jpeg", max_side=500)(content).width == 500


@pytest.mark.parametrize("image", [PHOTO, PHOTO[:, :, 0], make_photo(61, 83, 2)], ids=["colour", "gray", "odd sides"])
@pytest.mark.parametrize("subsampled", [True, False])
def test_uint8_stores_the_pixels_that_pil_decodes(image, subsampled):
    content = encode_jpeg(image, subsampled=subsampled)
    pixels, height, width, *_ = Preparation("uint8")(content)
    assert pixels.dtype == np.uint8 and pixels.shape == (height, width, 3) == (*image.shape[:2], 3)
    assert (pixels == decoded(content)).all()


def test_red_is_the_first_channel():
    red = np.zeros((40, 40, 3), np.uint8)
    red[:, :, 0] = 255
    for shrunk in ({}, dict(max_side=20)):
        for image_format in ("uint8", "jpeg"):
            image = Preparation(image_format, **shrunk)(encode_jpeg(red))[0]
            pixels = decoded(image) if image_format == "jpeg" else image
            assert pixels[..., 0].min() > 240 and pixels[..., 1:].max() < 15


@pytest.mark.parametrize("size, limits", [((120, 160), dict(max_side=100)), ((120, 160), dict(shorter_side=31)),
                                          ((199, 64), dict(max_side=150)), ((97, 131), dict(max_side=1)),
                                          ((500, 375), dict(shorter_side=256, max_side=300)),
                                          ((9, 300), dict(max_side=30))])
def test_shrinking_is_pils_antialiased_bilinear_within_one_level(size, limits):
    from PIL import Image
    content = encode_jpeg(make_photo(*size, seed=5))
    pixels, height, width, *_ = Preparation("uint8", **limits)(content)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    assert pixels.shape == (height, width, 3) and max(height, width) < max(size)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_jpegs_that_are_shrunk_are_encoded_anew_at_the_quality():
    pixels = Preparation("uint8", max_side=80)(JPEG)[0]
    sizes = []
    for quality in (30, 90, 100):
        content, height, width, *_ = Preparation("jpeg", max_side=80, quality=quality)(JPEG)
        assert isinstance(content, bytes) and content[:2] == b"\xff\xd8" and (height, width) == (60, 80)
        assert decoded(content).shape == (60, 80, 3)
        assert np.abs(decoded(content).astype(int) - pixels).mean() < (3 if quality >= 90 else 12)
        sizes.append(len(content))
    assert sizes == sorted(set(sizes))


def test_an_exif_orientation_does_not_turn_the_image():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = JPEG[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + JPEG[2:]
    assert Preparation("jpeg", tiles=False)(turned) == (turned, 120, 160, None, ("EXIF orientation",))
    assert (Preparation("uint8")(turned)[0] == decoded(JPEG)).all()


# Tiles.

@pytest.mark.parametrize("limits", [{}, dict(max_side=80)])
@pytest.mark.parametrize("compare_pixels", [True, False])
def test_tiles_change_no_pixel(limits, compare_pixels):
    plain = Preparation(tiles=False, **limits)(JPEG)
    tiled = Preparation(compare_pixels=compare_pixels, **limits)(JPEG)
    assert read_tiles(tiled.image) is not None and read_tiles(plain.image) is None
    assert (decoded(tiled.image) == decoded(plain.image)).all() and tiled[1:] == plain[1:]


def test_what_cannot_be_tiled_keeps_its_bytes_and_says_why():
    progressive = cv2.imencode(".jpg", PHOTO, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert Preparation()(progressive) == (progressive, 120, 160, "progressive", ())


@pytest.mark.parametrize("compare_pixels, untiled", [(True, "its tiled form has other pixels"), (False, None)])
def test_tiles_are_compared_with_the_original_unless_trusted(monkeypatch, compare_pixels, untiled):
    other = encode_jpeg(make_photo(120, 160, seed=2))
    monkeypatch.setattr(dataflows.dump.prepare, "tile", lambda content: other)
    prepared = Preparation(compare_pixels=compare_pixels)(JPEG)
    assert prepared.untiled == untiled and prepared.image == (JPEG if untiled else other)


@pytest.mark.parametrize("columns", [10, 11, 47])  # 47 columns of MCUs: intervals wrap around
@pytest.mark.parametrize("what", ["header", "lengths"])
def test_a_cut_is_compared_too_unless_trusted(monkeypatch, what, columns):
    """A header without the quantisation tables, and a list whose lengths only sum up: the whole image is right."""
    jpeg = encode_jpeg(make_photo(64, 8 * columns, seed=1), subsampled=False)

    def spoiled(content):
        tiled = bytearray(tile(content))
        tiles = read_tiles(bytes(tiled))
        if what == "header":
            start, core_at = tiled.index(b"RSTINDEX") - 4, tiled.index(b"\xff\xdd\0\4")
            end = core_at + 6 + 2 * 69  # DRI, and two tables of 69 bytes each
            tables = tiled[core_at + 6:end]
            assert tables[:2] == b"\xff\xdb" and tiled[end:end + 2] == b"\xff\xc0"
            tiled[core_at:end] = tables + tiled[core_at:core_at + 6]
            tiled[start + 16:start + 20] = (end - 6).to_bytes(4, "little")
        else:
            sizes, = {np.dtype(f"<u{n}") for n in (1, 2, 4) if tiles.lengths.astype(f"<u{n}").tobytes() in tiled}
            at = tiled.index(tiles.lengths.astype(sizes).tobytes())
            lengths = tiles.lengths.copy()
            lengths[-2:] += (-1, 1)
            tiled[at:at + lengths.size * sizes.itemsize] = lengths.astype(sizes).tobytes()
        assert np.array_equal(decoded(bytes(tiled)), decoded(content)) and read_tiles(bytes(tiled)) is not None
        return bytes(tiled)

    monkeypatch.setattr(dataflows.dump.prepare, "tile", spoiled)
    prepared = Preparation()(jpeg)
    assert prepared.image == jpeg and "cut" in prepared.untiled
    assert Preparation(compare_pixels=False)(jpeg).untiled is None


def test_cuts_that_are_compared_are_right_for_images_of_any_size():
    for height, width in [(1, 1), (1, 300), (300, 1), (8, 8), (9, 17), (16, 752), (33, 376), (65, 376)]:
        for subsampled in (False, True):
            for image in (make_photo(height, width, 1), make_photo(height, width, 1)[:, :, 0]):
                prepared = Preparation()(encode_jpeg(image, subsampled=subsampled))
                assert prepared.untiled is None and read_tiles(prepared.image) is not None


# Damaged files.

@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
@pytest.mark.parametrize("content", [b"", b"x", b"not an image" * 100, bytes(5000), JPEG[:2], JPEG[:100], JPEG[:-2],
                                     JPEG[:-40],
                                     JPEG[:len(JPEG) // 2], JPEG[1:], cv2.imencode(".png", PHOTO)[1].tobytes()[:2000]])
def test_empty_foreign_and_truncated_files_are_refused(content, image_format):
    with pytest.raises(RecordError, match="the file is empty|damaged"):
        Preparation(image_format)(content)


def test_the_content_is_left_alone():
    content = bytearray(JPEG)
    Preparation("uint8", max_side=50)(bytes(content))
    assert content == JPEG
