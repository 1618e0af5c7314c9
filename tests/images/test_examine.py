"""What is found in a file's header, and what the dump then stores of it: the pixels of PIL, or a clear error."""
import io
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import dataflows.dump.prepare
from dataflows.dump.prepare import Preparation
from dataflows.errors import RecordError
from dataflows.images.codecs import decode
from dataflows.images.examine import LOSSY as LOSSY_FINDINGS
from dataflows.images.examine import digest, examine
from dataflows.jpeg.header import image_end
from dataflows.jpeg.tile import cut, read_tiles
from helpers.limits import limited_memory
from helpers.odd_files import BAD, IMAGE, JPEG, LOSSY, PHOTO, PLAIN, PNG, saved, segment, turned, with_segment
from helpers.photos import encode_jpeg, make_photo

DECIDED = ("converted to RGB", "flawed data", "encoded as JPEG")
FORMATS = pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
FIX = pytest.mark.parametrize("fix", [False, True], ids=["raise", "fix"])


def pil_pixels(content):
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        image.info.pop("transparency", None)  # for which convert would warn
        return np.array(image.convert("RGB"))


def stored_pixels(prepared):
    return prepared.image if isinstance(prepared.image, np.ndarray) else decode(prepared.image)


def difference(a, b):
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


# What is found.

@pytest.mark.parametrize("name", [*PLAIN, *LOSSY])
def test_what_is_found_in_a_header(name):
    content, findings = (PLAIN | LOSSY)[name]
    examined = examine(content, f"class/{name}")
    assert examined.findings == tuple(finding for finding in findings if finding not in DECIDED)
    assert set(LOSSY_FINDINGS) & set(findings) if name in LOSSY else not set(LOSSY_FINDINGS) & set(findings)
    with Image.open(io.BytesIO(content)) as image:  # which tells a turned TIFF's size before or after, by its version
        assert (examined.width, examined.height) == ((0, 0) if name == "header.jpg" else image.size)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_each_orientation_but_the_first_is_found(kind, orientation):
    found = examine(saved(IMAGE, kind, exif=turned(orientation))).findings
    assert found == (("EXIF orientation",) if orientation > 1 else ())


def exif(entries, order="<", at=8, count=None):
    """EXIF data of one directory: (tag, type, count, value) of each entry."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    rows = b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)
    return (b"Exif\0\0" + magic + struct.pack(f"{order}IH", at, len(entries) if count is None else count) + rows)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("other", [0, 3])
def test_the_orientation_may_be_anywhere_in_the_directory(order, other):
    data = exif([(0x0110, 2, 4, 1)] * other + [(0x0112, 3, 1, 6)], order)
    assert examine(with_segment(JPEG, 0xE1, data)).findings == ("EXIF orientation",)


@pytest.mark.parametrize("data", [
    b"", b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"http://ns.adobe.com/xap/1.0/\0",
    exif([(0x0112, 3, 1, 0)]), exif([(0x0112, 3, 1, 9)]), exif([(0x0112, 2, 1, 6)]), exif([], count=65535),
    exif([(1, 1, 1, 1)] * 5000, count=65535), exif([(0x0112, 3, 1, 6)], at=9), exif([(0x0112, 3, 1, 6)])[:-1]])
def test_exif_data_that_states_no_orientation(data):
    assert examine(with_segment(JPEG, 0xE1, data)).findings == ()


@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xE2, 0xE9, 0xEE, 0xFE])
@pytest.mark.parametrize("payload", [b"", b"Adobe", b"Exif\0\0", b"RSTINDEX v1\0", b"\xff\xd9" * 99, bytes(65533)],
                         ids=["empty", "Adobe", "Exif", "tiles", "ends", "full"])
def test_segments_that_mean_nothing_change_nothing(marker, payload):
    examined = examine(with_segment(JPEG, marker, payload))
    assert examined.findings == () and (examined.height, examined.width) == (36, 52)


@pytest.mark.parametrize("length", [0, 1, 65535])
def test_a_segment_of_a_wrong_length(length):
    content = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", length) + JPEG[2:]
    assert examine(content).findings == (("truncated",) if length == 65535 else ("unusual header",))


@given(st.integers(0, 40), st.integers(1, 60), st.sampled_from([{}, {"progressive": True}, {"quality": 100}]))
@settings(max_examples=40)
def test_a_jpeg_ends_where_its_encoder_ended_it(trailing, side, options):
    content = saved(Image.fromarray(make_photo(side, 61 - side, side)), "JPEG", **options)
    scan_at = content.index(b"\xff\xda")
    assert image_end(content, scan_at + 2 + int.from_bytes(content[scan_at + 2:scan_at + 4], "big")) == len(content)
    found = examine(content + b"\xff\xd9" * trailing).findings
    assert found == (("trailing bytes",) if trailing else ())


def test_what_looks_like_the_end_within_a_segment_between_two_scans_is_not_the_end():
    content = PLAIN["progressive.jpg"][0]
    at = content.index(b"\xff\xc4", content.index(b"\xff\xda"))
    content = content[:at] + segment(0xFE, b"\xff\xd9" * 3) + content[at:]
    assert examine(content).findings == () and examine(content + b"more").findings == ("trailing bytes",)
    assert examine(content[:-2]).findings == ("no end marker",)


def test_equal_contents_alone_share_a_digest():
    assert digest(JPEG) == digest(bytes(bytearray(JPEG))) and len(digest(b"")) == 16
    assert len({digest(JPEG[:i]) for i in range(len(JPEG))}) == len(JPEG)


# What is stored.

@FIX
@FORMATS
@pytest.mark.parametrize("name", PLAIN)
def test_what_rgb_holds_is_stored_in_every_mode(name, image_format, fix):
    content, findings = PLAIN[name]
    prepared = Preparation(image_format, fix=fix)(content, name)
    kept = examine(content).kind == "JPEG" and name != "header.jpg"
    assert prepared.findings == findings + (("encoded as JPEG",) if image_format == "jpeg" and not kept else ())
    pixels = stored_pixels(prepared)
    assert (prepared.height, prepared.width) == pixels.shape[:2]
    assert difference(pixels, pil_pixels(content)) <= (0 if kept or image_format == "uint8" else 4)


@FORMATS
@pytest.mark.parametrize("name", LOSSY)
def test_what_rgb_does_not_hold_is_an_error_or_fixed(name, image_format):
    content, findings = LOSSY[name]
    lossy = ", ".join(finding for finding in findings if finding in LOSSY_FINDINGS)
    with pytest.raises(RecordError, match=f"^{lossy}: .*on_error='fix'"):
        Preparation(image_format)(content, name)
    prepared = Preparation(image_format, fix=True)(content, name)
    assert prepared.findings == (*findings, "converted to RGB", *(["encoded as JPEG"] * (image_format == "jpeg")))
    assert difference(stored_pixels(prepared), pil_pixels(content)) <= (4 if image_format == "jpeg" else 0)


@pytest.mark.parametrize("name", [name for name in LOSSY if name not in ("ycck.jpg", "palette alpha.png",
                                                                          "gray alpha.png")])
def test_what_is_fixed_looks_like_the_photo(name):
    """Not only like what Pillow makes of it: inks that are read the wrong way round would show a negative."""
    assert np.abs(Preparation("uint8", fix=True)(LOSSY[name][0]).image.astype(int) - PHOTO).mean() < 5


@FORMATS
def test_fixed_images_are_shrunk_at_the_quality_asked_for(image_format):
    prepared = Preparation(image_format, max_side=26, quality=80, fix=True)(LOSSY["alpha.png"][0])
    assert (prepared.height, prepared.width) == (18, 26) == stored_pixels(prepared).shape[:2]


@FIX
@FORMATS
@pytest.mark.parametrize("name", BAD)
def test_what_has_no_pixels_to_trust_is_an_error_in_every_mode(name, image_format, fix):
    content, words = BAD[name]
    with limited_memory(), pytest.raises(RecordError, match=words):
        Preparation(image_format, fix=fix)(content, name)


def pil_pixels_or_none(content):
    try:
        return pil_pixels(content)
    except Exception:  # anything, as a damaged file can make Pillow raise it
        return None


def assert_stored_as_pil_shows_it(content, name, prepare):
    """Or refused, if PIL refuses it. Returns whether it is stored."""
    shown = pil_pixels_or_none(content)
    try:
        prepared = prepare(content, name)
    except RecordError:
        assert shown is None
        return False
    encoded = "encoded as JPEG" in prepared.findings
    assert difference(stored_pixels(prepared), shown) <= (4 if encoded else 0)
    assert "no end marker" in prepared.findings or not encoded or examine(content).kind != "JPEG"
    tiles = None if prepare.format == "uint8" or prepared.untiled else read_tiles(prepared.image)
    if tiles is not None:
        box = tiles.height // 3, tiles.width // 3, tiles.height // 2, tiles.width // 2
        small, (y, x) = cut(prepared.image, tiles, *box)
        found = decode(small)[box[0] - y:, box[1] - x:][:box[2], :box[3]]
        assert encoded or (found == shown[box[0]:, box[1]:][:box[2], :box[3]]).all()
    return True
@pytest.mark.parametrize("name", ["deep gray.png", "deep gray.tif", "deep gray.pgm", "12 bits.tif", "32 bits.tif",
                                  "float.tif"])
def test_what_the_error_says_makes_gray_of_8_bits(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BAD[name][0])
    with pytest.raises(RecordError, match="in Python: ") as info:
        Preparation()(path.read_bytes(), name)
    exec(str(info.value).split("in Python: ")[1], {"np": np, "Image": Image, "path": path})
    prepared = Preparation("uint8", fix=False)(path.read_bytes(), name)
    assert prepared.findings == ("grayscale",)
    values = prepared.image[:, :, 0].astype(int)
    if name == "12 bits.tif":
        assert values.tolist() == [list(range(0, 256, 4))]
    elif "deep gray" in name:
        assert (values == PHOTO[:, :, 0]).all()
    else:  # stretched
        gray = PHOTO[:, :, 0].astype(float)
        assert difference(values, 255 * (gray - gray.min()) / np.ptp(gray)) <= 1


@pytest.mark.parametrize("name", ["deep gray.png", "deep gray.tif", "deep gray.pgm", "12 bits.tif", "32 bits.tif"])
def test_image_folder_would_show_white_for_deep_gray(name):
    """Why these are refused: what ImageFolder does with them, in the version of Pillow that is installed."""
    with Image.open(io.BytesIO(BAD[name][0])) as image:
        values, shown = np.asarray(image), np.asarray(image.convert("RGB"))[..., 0]
    assert values.max() > 255 and (shown == np.minimum(values, 255)).all() and (shown == 255).mean() > 0.9


@FORMATS
@pytest.mark.parametrize("name", ["photo.JPEG", "progressive.jpg", "gray.jpg", "photo.png", "moves.png", "photo.bmp",
                                  "photo.ppm", "photo.TIFF", "photo.webp"])
def test_a_file_that_is_cut_off_anywhere_is_an_error_or_shown_by_pil(name, image_format):
    """PIL shows a PNG without its end, if all of its pixels are there."""
    content, _ = PLAIN[name]
    prepare = Preparation(image_format, tiles=False, fix=True)
    sizes = {*range(0, len(content), 1 + len(content) // 100), *range(len(content) - 40, len(content))}
    stored = [size for size in sizes
              if assert_stored_as_pil_shows_it(content[:size], name, prepare)]
    assert bool(stored) == (name in ("photo.png", "moves.png"))
    assert not stored or min(stored) > len(content) // 4  # frames after the first may be missing


PHOTO_JPEGS = {name: saved(image, "JPEG", **options) for name, image, options in [
    ("4:2:0", Image.fromarray(make_photo(120, 200, 3)), {}),
    ("4:4:4", Image.fromarray(make_photo(60, 80, 3)), {"subsampling": 0}), ("small", IMAGE, {"quality": 60}),
    ("wrapped", Image.fromarray(make_photo(40, 376, 3)), {"subsampling": 0}),
    ("restarts", Image.fromarray(make_photo(120, 200, 3)), {"restart_marker_rows": 1}),
    ("gray", Image.fromarray(make_photo(120, 200, 3)[:, :, 0]), {}),
    ("progressive", Image.fromarray(make_photo(60, 80, 3)), {"progressive": True})]}
ENDS = [b"", b"\0", b"\0\0", bytes(500), b"\xff", b"\xff\xff", b"\xff\0", b"what comes next on the disk",
        b"\xff\xd0", b"\xff\xd0" + bytes(99), b"\xff\xd8", b"\xff\xfe\0\4ab", b"\xff\x01", b"\xff\xc4\0\2" + bytes(99),
        np.random.default_rng(0).integers(0, 256, 1000, np.uint8).tobytes()]


@pytest.mark.parametrize("options", [{"format": "uint8"}, {}, {"tiles": False}, {"compare_pixels": False}], ids=str)
@pytest.mark.parametrize("kind", PHOTO_JPEGS)
def test_a_jpeg_without_its_end_is_stored_as_pil_shows_it(kind, options):
    jpeg, stored = PHOTO_JPEGS[kind], set()
    for missing in (2, 3, 5, 12, len(jpeg) // 3):
        for i, end in enumerate([*ENDS, bytes(len(jpeg))]):
            if assert_stored_as_pil_shows_it(jpeg[:-missing] + end, "a.jpg", Preparation(**options)):
                stored.add((missing, i))
    assert len(stored) > 10 if kind != "progressive" else not stored  # of scans libjpeg asks for the end


@pytest.mark.parametrize("end", [bytes(500), b"what comes next on the disk"])
def test_a_jpeg_without_its_end_gets_tiles_and_an_end_or_keeps_its_bytes(end):
    content = JPEG[:-2] + end
    prepared = Preparation()(content, "a.jpg")
    assert prepared.untiled is None and prepared.image == Preparation()(JPEG, "a.jpg").image
    assert Preparation(tiles=False)(content, "a.jpg") == (content, 36, 52, None, ("no end marker",))


@pytest.mark.parametrize("shown, stored, findings", [("whole", "whole", ("no end marker",)),
                                                     ("neither", "encoded", ("no end marker", "encoded as JPEG"))])
def test_loaders_get_a_form_that_they_decode_to_pils_pixels(monkeypatch, shown, stored, findings):
    """Should a decoder refuse what has no end, its end is appended; should it refuse that too, it is encoded anew."""
    content = JPEG[:-2] + bytes(500)
    readable = {"whole": [content + b"\xff\xd9"], "neither": []}[shown]
    monkeypatch.setattr(dataflows.dump.prepare, "_decodes", lambda jpeg, pixels: jpeg in readable)
    prepared = Preparation(tiles=False)(content, "a.jpg")
    assert prepared.findings == findings
    assert (prepared.image == content + b"\xff\xd9") == (stored == "whole")
    assert difference(stored_pixels(prepared), pil_pixels(content)) <= 4


@FORMATS
@given(st.sampled_from([*PHOTO_JPEGS]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=6)),
                                                 min_size=1, max_size=3), st.integers(0, 300))
@settings(max_examples=100)
def test_a_damaged_jpeg_is_stored_as_pil_shows_it_or_refused(image_format, kind, damages, zeros):
    content = bytearray(PHOTO_JPEGS[kind])
    scan_at = content.index(b"\xff\xda") + 14
    for where, without, new in damages:
        at = scan_at + int(where * (len(content) - scan_at))
        content[at:at + without] = new
    assert_stored_as_pil_shows_it(bytes(content) + bytes(zeros), "a.jpg", Preparation(image_format))


@pytest.mark.parametrize("content", [JPEG, PNG, PLAIN["header.jpg"][0], PLAIN["photo.tif"][0]],
                         ids=["JPEG", "PNG", "header", "TIFF"])
def test_max_pixels(content):
    assert Preparation(max_pixels=36 * 52)(content).height == 36
    with pytest.raises(RecordError, match="36 x 52 pixels, and max_pixels is 1,871: "):
        Preparation(max_pixels=36 * 52 - 1)(content)
    for value in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="max_pixels must be"):
            Preparation(max_pixels=value)


# Hostile files.

contents = st.sampled_from([content for content, _ in (PLAIN | LOSSY).values()])
changes = st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4)


def changed(content, changes):
    content = bytearray(content)
    for at, new in changes:
        content[at:at + len(new)] = new
    return bytes(content)


@given(contents, changes, st.integers(0, 3000))
@settings(max_examples=150)
def test_examining_a_changed_file_never_fails(content, changes, cut):
    for damaged in (changed(content, changes), changed(content, changes)[:cut]):
        kind, height, width, findings = examine(damaged, "a.jpg")
        assert height >= 0 and width >= 0 and len(set(findings)) == len(findings)


@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1", JPEG[:600], b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM",
                        b"RIFF\xff\xff\0\0WEBPVP8 ", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"P6 "]),
       st.binary(max_size=500))
@settings(max_examples=150)
def test_examining_any_bytes_never_fails(magic, data):
    examine(magic + data, "name")


@FORMATS
@given(content=contents, changes=changes)
@settings(max_examples=100)
def test_a_changed_file_is_stored_as_it_will_be_decoded_or_refused(image_format, content, changes):
    try:
        preparation = Preparation(image_format, fix=True, max_pixels=10**6, compare_pixels=False)
        prepared = preparation(changed(content, changes))
    except RecordError as error:
        assert re.search("[a-z]", str(error))
    else:
        assert stored_pixels(prepared).shape == (prepared.height, prepared.width, 3)


def test_a_jpeg_of_a_million_markers():
    content = JPEG[:-2] + segment(0xFE, b"")[:2] * 10**6 + JPEG[-2:]
    assert isinstance(examine(content).findings, tuple)


def test_a_large_photo_costs_no_findings():
    assert examine(encode_jpeg(make_photo(700, 900, 1), quality=95)).findings == ()
