"""Tiled JPEG: same image, same pixels in every box, and no input that breaks it.

Pixels are judged by OpenCV, coefficients by jpegtran (Debian: libjpeg-turbo-progs), an implementation we share nothing
with.
"""

import io
import os
import pickle
import shutil
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataflows.errors import UnsupportedJPEG
from dataflows.jpeg.header import Table, parse_header, segments
from dataflows.jpeg.huffman import code_words, widen
from dataflows.jpeg.tile import choose_interval, cut, jpeg_size, read_tiles, tile
from helpers.jpegs import FACTORS, damaged, encode, picture
from helpers.memory_checks import checked
from helpers.odd_files import segment
from helpers.paths import ROOT

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
needs_jpegtran = pytest.mark.skipif(shutil.which("jpegtran") is None,
                                    reason="jpegtran (libjpeg-turbo-progs) is not installed")


def decode(jpeg) -> np.ndarray:
    """The pixels, 3-D; None if OpenCV gives up."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def region(data, tiles, top: int, left: int, height: int, width: int) -> np.ndarray:
    small, (y, x) = cut(data, tiles, top, left, height, width)
    return decode(small)[top - y:top - y + height, left - x:left - x + width]


def jpegtran(jpeg: bytes, *options: str) -> bytes:
    command = ["jpegtran", "-copy", "none", *options]
    return subprocess.run(command, input=jpeg, capture_output=True, check=True, timeout=60).stdout


def check_boxes(jpeg: bytes, boxes, interval_px: int) -> None:
    data = tile(jpeg, interval_px=interval_px)
    whole, tiles = decode(jpeg), read_tiles(data)
    np.testing.assert_array_equal(decode(data), whole)
    for top, left, height, width in boxes:
        np.testing.assert_array_equal(region(data, tiles, top, left, height, width),
                                      whole[top:top + height, left:left + width], str((top, left, height, width)))


# ---- the same pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_px", [8, 16, 24, 40, 64])
@pytest.mark.parametrize("sampling", [*FACTORS, "gray"])
def test_boxes_at_and_around_every_edge(sampling, interval_px):
    height, width = 101, 187
    edges = [(a, b) for a in (0, 1, 15, 16, 17, 31, 32) for b in (1, 2, 16, 17, 33)]
    boxes = [(top, left, h, w) for top, h in edges[::3] for left, w in edges]
    boxes += [(height - h, width - w, h, w) for h in (1, 5, 6, 17, 101)
              for w in (1, 2, 3, 10, 11, 12, 13, 27, 28, 29, 187)]
    boxes += [(0, 0, height, w) for w in range(1, width, 13)]
    boxes += [(0, left, height, 8) for left in range(0, width - 8, 5)]
    check_boxes(encode(height, width, sampling), boxes, interval_px)


@pytest.mark.parametrize("interval", [2, 3, 5, 7])
@pytest.mark.parametrize("sampling", [*FACTORS, "gray"])
def test_intervals_out_of_step_with_the_rows(sampling, interval, monkeypatch, capfd):
    """11, 22 or 43 columns of MCUs, and a last interval that is short: it has to go on with blank MCUs."""
    monkeypatch.setattr("dataflows.jpeg.tile.choose_interval", lambda columns, wanted: min(interval, columns))
    height, width = 75, 338
    rng = np.random.default_rng(interval)
    spans = [np.sort(rng.choice(size + 1, (80, 2)), axis=1) for size in (height, width)]
    boxes = [(int(a), int(c), int(b - a), int(d - c)) for (a, b), (c, d) in zip(*spans) if a < b and c < d]
    boxes += [(top, left, height - top, width - left) for top in (0, 1, 40, 74) for left in (0, 1, 9, 100, 300, 337)]
    boxes += [(height - h, left, h, 20) for h in (1, 30, 75) for left in range(0, width - 20, 9)]
    check_boxes(encode(height, width, sampling, optimize=1), boxes, 32)
    assert capfd.readouterr().err == ""  # libjpeg would complain about data that is missing or left over


@pytest.mark.parametrize("sampling", [*FACTORS, "gray"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 5), (8, 8), (9, 17), (17, 33), (16, 36), (33, 65),
                                  (70, 34)])
def test_odd_sizes(size, sampling):
    height, width = size
    starts = [(y, x) for y in {0, height // 2, height - 1} for x in {0, width // 2, width - 1}]
    check_boxes(encode(height, width, sampling), [(y, x, height - y, width - x) for y, x in starts] +
                [(y, x, 1, 1) for y, x in starts] + [(0, 0, y + 1, x + 1) for y, x in starts], 16)


@pytest.mark.parametrize("factors", ["3x1,1x1,1x1", "1x3,1x1,1x1", "2x2,2x1,2x1", "2x2,1x2,1x2", "2x2,2x2,1x1",
                                     "1x1,2x2,2x2", "2x1,2x1,2x1", "4x2,1x1,1x1", "1x4,1x1,1x1"])
@pytest.mark.skipif(shutil.which("cjpeg") is None, reason="cjpeg (libjpeg-turbo-progs) is not installed")
def test_unusual_sampling_factors(factors):
    stream = io.BytesIO()
    Image.fromarray(picture(90, 150)).save(stream, "ppm")
    jpeg = subprocess.run(["cjpeg", "-sample", factors], input=stream.getvalue(), capture_output=True,
                          check=True).stdout
    check_boxes(jpeg, [(y, x, h, w) for y in (0, 7, 31, 45) for x in (0, 13, 47, 63, 96)
                       for h, w in ((1, 1), (40, 50))] +
                [(0, 0, 90, 150), (50, 100, 40, 50), (89, 149, 1, 1)], 16)


@SETTINGS
@given(st.data())
def test_any_box_of_any_image(data):
    sampling = data.draw(st.sampled_from([*FACTORS, "gray"]))
    height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 260))
    jpeg = encode(height, width, sampling, quality=data.draw(st.sampled_from([1, 30, 75, 95, 100])),
                  optimize=data.draw(st.integers(0, 1)), restart=data.draw(st.sampled_from([0, 0, 1, 3, 7])))
    boxes = []
    for _ in range(8):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        boxes.append((top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))))
    check_boxes(jpeg, boxes, data.draw(st.integers(1, 120)))


@pytest.mark.parametrize("save", [{"optimize": True}, {"subsampling": 0}, {"subsampling": 1, "quality": 30},
                                  {"comment": b"x"}, {"restart_marker_blocks": 5}, {"restart_marker_rows": 1},
                                  {"icc_profile": b"p" * 100_000}, {"keep_rgb": True}, {"exif": TURNED}],
                         ids=lambda save: "+".join(save))
def test_pillow_files(save):
    stream = io.BytesIO()
    Image.fromarray(picture(120, 200)).save(stream, "JPEG", **save)
    check_boxes(stream.getvalue(), [(10, 20, 50, 60), (0, 0, 120, 200), (100, 150, 20, 50)], 32)
    data = tile(stream.getvalue())
    kept = [bytes(data[a:b]) for marker, a, b in segments(data) if marker in (0xE1, 0xE2, 0xFE)]
    assert kept == [stream.getvalue()[a:b] for marker, a, b in segments(stream.getvalue())
                    if marker in (0xE1, 0xE2, 0xFE)]
    small, _ = cut(data, read_tiles(data), 10, 20, 50, 60)
    assert len(small) < 15_000  # neither EXIF nor ICC profile


@needs_jpegtran
@pytest.mark.parametrize("options", [["-optimize"], ["-restart", "3B"], ["-restart", "1"], ["-grayscale"],
                                     ["-rotate", "90"], ["-optimize", "-restart", "2B"]], ids=" ".join)
def test_jpegtran_files(options):
    jpeg = jpegtran(encode(120, 203), *options)
    height, width = jpeg_size(jpeg)
    check_boxes(jpeg, [(10, 20, 50, 60), (0, 0, height, width), (height - 9, width - 40, 9, 40)], 32)


# What libjpeg may look at to tell Y, Cb, Cr from R, G, B, and what only looks like it.
HEADS = {name: segment(marker, payload) for name, marker, payload in [
    ("JFIF", 0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"), ("JFIF and more", 0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1\1\2\3"),
    ("too short a JFIF", 0xE0, b"JFIF\0\1\1\0\0\1\0\1\0"), ("JFXX", 0xE0, b"JFXX\0\x13\1\1\1\2\3\4\5\6"),
    ("AVI1", 0xE0, b"AVI1" + bytes(12)), ("empty APP0", 0xE0, b""), ("RGB", 0xEE, b"Adobe\0d\0\0\0\0\0"),
    ("YCbCr", 0xEE, b"Adobe\0d\0\0\0\0\1"), ("YCCK", 0xEE, b"Adobe\0d\0\0\0\0\2"),
    ("RGB and more", 0xEE, b"Adobe\0d\0\0\0\0\0more"), ("too short an RGB", 0xEE, b"Adobe\0d\0\0\0\0"),
    ("another APP14", 0xEE, b"Ducky\0d\0\0\0\0\0"), ("EXIF", 0xE1, TURNED), ("comment", 0xFE, b"JFIF\0Adobe")]}
BARE = encode(40, 200, "4:4:4")
BARE = BARE[:2] + b"".join(BARE[a:b] for marker, a, b in segments(BARE) if marker != 0xE0) + BARE[
    parse_header(BARE).scan_at:]


def with_heads(heads, ids: bytes) -> bytes:
    """BARE with segments in front of others of its own: `heads` are (which of its own, name of HEADS)."""
    pieces = [bytearray(BARE[a:b]) for _, a, b in segments(BARE)]
    for piece in pieces:
        if piece[1] == 0xC0:
            piece[10::3] = ids
        if piece[1] == 0xDA:
            piece[5:10:2] = ids
    placed = [b"".join(HEADS[name] for at, name in heads if at == i) + bytes(piece) for i, piece in enumerate(pieces)]
    return BARE[:2] + b"".join(placed) + BARE[parse_header(BARE).scan_at:]


def check_colors(jpeg: bytes, data: bytes) -> None:
    whole = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    np.testing.assert_array_equal(decode(jpeg)[:, :, ::-1], whole)
    np.testing.assert_array_equal(decode(data)[:, :, ::-1], whole)
    np.testing.assert_array_equal(region(data, read_tiles(data), 9, 70, 20, 50)[:, :, ::-1], whole[9:29, 70:120])


@settings(SETTINGS, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len([*segments(BARE)]) - 1), st.sampled_from([*HEADS])), max_size=5),
       st.sampled_from([b"\1\2\3", b"RGB", b"\0\1\2", b"rgb"]))
@pytest.mark.parametrize("older", [False, True])
def test_a_cut_has_the_colors_of_the_whole_whatever_its_header_says(older, heads, ids):
    """JFIF, Adobe and ids, in any order and number; also in files of older dumps, whose cuts lost a later JFIF."""
    with pytest.MonkeyPatch.context() as patch:
        if older:
            patch.setattr("dataflows.jpeg.tile.is_jfif", lambda segment: False)
        check_colors(with_heads(heads, ids), tile(with_heads(heads, ids)))


@pytest.mark.parametrize("older", [False, True])
def test_a_jfif_segment_behind_an_adobe_one(older, monkeypatch):
    if older:
        monkeypatch.setattr("dataflows.jpeg.tile.is_jfif", lambda segment: False)
    for before in (0, 1, 5):
        jpeg = with_heads([(0, "RGB"), (before, "JFIF")], b"\1\2\3")
        assert np.abs(decode(jpeg).astype(int) - decode(BARE)).max() == 0  # Y, Cb, Cr: JFIF says more than Adobe
        data = tile(jpeg)
        assert (data.index(b"JFIF") < read_tiles(data).scan_at) and data.count(b"JFIF\0") == 1
        check_colors(jpeg, data)


# ---- the same coefficients -------------------------------------------------------------------------------------------


@needs_jpegtran
@pytest.mark.parametrize("optimize", [0, 1])
@pytest.mark.parametrize("restart", [0, 5])
@pytest.mark.parametrize("interval_px", [8, 24, 48, 10_000])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0", "gray"])
def test_jpegtran_sees_the_same_coefficients(sampling, interval_px, restart, optimize):
    jpeg = encode(150, 376, sampling, optimize=optimize, restart=restart)
    data = tile(jpeg, interval_px=interval_px)
    assert jpegtran(data, "-optimize", "-restart", "0") == jpegtran(jpeg, "-optimize", "-restart", "0")


@needs_jpegtran
@pytest.mark.parametrize("interval", [1, 2, 4, 8])
def test_same_scan_as_jpegtran_writes(interval):
    """Where no table had to grow, there is only one right result, to the byte."""
    jpeg = encode(120, 256)
    ours, theirs = tile(jpeg, interval_px=16 * interval), jpegtran(jpeg, "-restart", f"{interval}B")
    assert ours[parse_header(ours).scan_at:] == theirs[parse_header(theirs).scan_at:]


@SETTINGS
@given(st.integers(1, 80), st.integers(1, 200), st.sampled_from([*FACTORS, "gray"]), st.integers(0, 1),
       st.integers(1, 100))
def test_tiling_again_changes_nothing(height, width, sampling, optimize, interval_px):
    data = tile(encode(height, width, sampling, optimize=optimize), interval_px=interval_px)
    assert tile(data, interval_px=interval_px) == data


def test_flat_image_lacks_nearly_every_code():
    jpeg = cv2.imencode(".jpg", np.full((64, 376, 3), 90, np.uint8), [cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1].tobytes()
    for interval_px in (16, 40, 48):
        check_boxes(jpeg, [(3, 5, 20, 100), (30, 300, 34, 76)], interval_px)


def test_files_grow_little():
    jpeg = encode(375, 500, quality=92)
    assert len(tile(jpeg)) < 1.05 * len(jpeg)
    assert len(tile(jpeg, interval_px=64)) < 1.03 * len(jpeg)
    assert len(tile(jpeg, interval_px=10_000)) < 1.005 * len(jpeg)


def test_a_table_grows_in_the_free_code_only():
    table = Table(bytes([0, 1, 1, 1]) + bytes(12), bytes([4, 5, 6]), 0, 0)
    words = code_words(*widen(table, {0, 4, 9})[:2])
    assert words == {4: (0b00, 2), 5: (0b010, 3), 6: (0b0110, 4), 0: (0b0111, 4), 9: (0b1000, 4)}
    with pytest.raises(UnsupportedJPEG, match="full Huffman table"):
        widen(Table(bytes([2]) + bytes(15), bytes([4, 5]), 0, 0), {0})


def test_what_follows_the_image_is_dropped():
    jpeg = encode(50, 50)
    assert tile(jpeg + b"\xff\xff\0more\xff") == tile(jpeg)


def test_fill_bytes_are_skipped():
    jpeg = encode(50, 90, restart=2)
    padded = jpeg[:2] + b"\xff\xff" + jpeg[2:-2].replace(b"\xff\xd0", b"\xff\xff\xff\xd0") + b"\xff\xff\xd9"
    assert tile(padded) == tile(jpeg)


@pytest.mark.parametrize("columns, wanted, interval", [(32, 2, 2), (63, 4, 3), (47, 4, 3), (31, 2, 1), (24, 2, 2),
                                                       (1, 4, 1), (3, 9.5, 3), (61, 8, 6), (10, 0.1, 1)])
def test_interval(columns, wanted, interval):
    assert choose_interval(columns, wanted) == interval


# ---- what cannot be tiled, and damage --------------------------------------------------------------------------------


def pillow_jpeg(mode: str = "RGB", **save) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(40, 60)).convert(mode).save(stream, "JPEG", **save)
    return stream.getvalue()


def patched(jpeg: bytes, old: bytes, new: bytes) -> bytes:
    assert jpeg.count(old) == 1
    return jpeg.replace(old, new)


@pytest.mark.parametrize("make, reason", [
    (lambda: b"", "not a JPEG"),
    (lambda: b"\x89PNG\r\n\x1a\n" + bytes(50), "not a JPEG"),
    (lambda: pillow_jpeg(progressive=True), "progressive"),
    (lambda: pillow_jpeg("CMYK"), "CMYK"),
    (lambda: encode(40, 60)[:300], "truncated"),
    (lambda: encode(40, 60)[:-2], "truncated"),
    (lambda: encode(40, 60)[:-40] + b"\xff\xd9", "corrupt entropy data"),
    (lambda: patched(encode(40, 60), b"\xff\xc0\0\x11\x08", b"\xff\xc9\0\x11\x08"), "arithmetic"),
    (lambda: patched(encode(40, 60), b"\xff\xc0\0\x11\x08", b"\xff\xc3\0\x11\x08"), "lossless"),
    (lambda: patched(encode(40, 60), b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "12-bit"),
    (lambda: patched(encode(40, 60), b"\x08\0\x28\0\x3c\x03", b"\x08\0\0\0\x3c\x03"), "height after the scan"),
    (lambda: patched(encode(40, 60), b"\x08\0\x28\0\x3c\x03", b"\x08\xff\xff\xff\xff\x03"), "truncated"),
    (lambda: patched(encode(40, 60), b"\x08\0\x28\0\x3c\x03\x01\x22", b"\x08\0\x28\0\x3c\x03\x01\x02"),
     "corrupt header"),
    (lambda: patched(encode(40, 60), b"\xff\xda\0\x0c\x03\x01\0", b"\xff\xda\0\x0c\x03\x01\x22"),
     "missing Huffman table"),
])
def test_reasons(make, reason):
    with pytest.raises(UnsupportedJPEG) as caught:
        tile(make())
    assert caught.value.reason == reason
    assert isinstance(caught.value, ValueError) and pickle.loads(pickle.dumps(caught.value)).reason == reason


@needs_jpegtran
@pytest.mark.parametrize("options, reason", [(["-progressive"], "progressive"), (["-arithmetic"], "arithmetic")])
def test_jpegtran_files_that_cannot_be_tiled(options, reason):
    with pytest.raises(UnsupportedJPEG) as caught:
        tile(jpegtran(encode(40, 60), *options))
    assert caught.value.reason == reason


@needs_jpegtran
def test_multiple_scans(tmp_path):
    (tmp_path / "scans").write_text("0; 1; 2;")
    jpeg = jpegtran(encode(40, 60), "-scans", str(tmp_path / "scans"))
    assert decode(jpeg) is not None
    with pytest.raises(UnsupportedJPEG, match="multi-scan"):
        tile(jpeg)


@pytest.mark.parametrize("sampling", ["4:2:0", "4:4:4", "gray"])
def test_damaged_files_raise_or_keep_their_pixels(sampling):
    tiled = 0
    for seed in range(250):
        jpeg = damaged(encode(70, 120, sampling, optimize=seed % 2, restart=seed % 3), np.random.default_rng(seed))
        try:
            data = tile(jpeg, interval_px=24)
        except UnsupportedJPEG:
            continue
        whole = decode(jpeg)
        if whole is None:  # OpenCV is stricter: nonsense in tables that we leave alone
            continue
        tiled += 1
        np.testing.assert_array_equal(decode(data), whole, f"seed {seed}")
        height, width = whole.shape[:2]
        part = region(data, read_tiles(data), height // 3, width // 3, height // 2, width // 2)
        np.testing.assert_array_equal(part, whole[height // 3:height // 3 + height // 2,
                                                  width // 3:width // 3 + width // 2])
    assert tiled > 20


FUZZ = """
import sys
import numpy as np
from dataflows.errors import UnsupportedJPEG
from dataflows.jpeg.tile import tile
from helpers.jpegs import damaged, encode
counts = [0, 0]
for seed in range(int(sys.argv[1])):
    sampling = ["4:2:0", "4:4:4", "4:1:1", "gray"][seed % 4]
    size = int(sys.argv[2])
    options = dict(quality=[20, 90][seed % 2], optimize=int(seed % 3 == 0), restart=seed % 5, seed=seed)
    jpeg = encode(size, 2 * size, sampling, **options)
    try:
        tile(damaged(jpeg, np.random.default_rng(seed)) if seed % 8 else jpeg, interval_px=16)
        counts[0] += 1
    except UnsupportedJPEG:
        counts[1] += 1
print(*counts)
"""


def test_no_index_is_out_of_range(tmp_path):
    """numba checks every index of the kernels: an IndexError would end the process with a traceback."""
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path),
           "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    run = subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", FUZZ, "800", "60"], env=env,
                         capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert all(int(number) > 80 for number in run.stdout.split())


def test_no_other_memory_is_touched():
    """The C library checks what has no index: a write beside an array would end the process."""
    run = checked(FUZZ, "800", "60")
    assert run.returncode == 0, run.stderr
    assert all(int(number) > 80 for number in run.stdout.split())


# ---- reading: the hot path -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer(wrap):
    jpeg = encode(100, 200)
    data = wrap(tile(jpeg))
    np.testing.assert_array_equal(region(data, read_tiles(data), 20, 30, 40, 50), decode(jpeg)[20:60, 30:80])
    assert jpeg_size(data) == (100, 200)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"RIFF", bytes(100), encode(40, 60)])
def test_no_tiles(data):
    assert read_tiles(data) is None


@pytest.mark.parametrize("make", [encode, lambda h, w: pillow_jpeg(progressive=True)])
def test_size(make):
    assert jpeg_size(make(40, 60)) == (40, 60)
    assert jpeg_size(b"not a JPEG") is None


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (0, -1, 5, 5), (98, 0, 3, 5),
                                 (0, 198, 5, 3)])
def test_boxes_outside(box):
    data = tile(encode(100, 200))
    with pytest.raises(ValueError, match="box"):
        cut(data, read_tiles(data), *box)


@pytest.mark.parametrize("interval_px", [16, 24])  # 47 columns of MCUs: in step, and out of step
def test_hostile_lists(interval_px):
    """Whatever the list says: ValueError, or a cut no larger than the data and a few blank MCUs."""
    data = bytearray(tile(encode(64, 376, "4:4:4"), interval_px=interval_px))
    assert bool(read_tiles(data).blank_bits) == (interval_px == 24)
    start = data.index(b"RSTINDEX")
    stop = parse_header(bytes(data)).scan_at
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        hostile = data.copy()
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(start + 12, start + 30)) if rng.random() < 0.5 else int(rng.integers(start - 4, stop))
            hostile[at] = rng.choice([0, 1, 255, rng.integers(256)])
        try:
            tiles = read_tiles(hostile)
            if tiles is None:
                continue
            small, _ = cut(hostile, tiles, 5, tiles.width // 3, 1, tiles.width // 2 + 1)
            assert len(small) < 3 * len(data)
        except ValueError:
            refused += 1
    assert refused > 1000


def test_list_of_another_file():
    data = tile(encode(64, 128))
    for changed in (data[:-2], data[:-3] + data[-2:], data[:-40] + bytes(3) + data[-40:]):
        with pytest.raises(ValueError, match="damaged tiled JPEG"):
            read_tiles(changed)


@pytest.mark.parametrize("interval_px", [16, 24])
def test_data_of_another_file(interval_px):
    data = tile(encode(64, 376, "4:4:4"), interval_px=interval_px)
    for other in (data[:-500], bytes(len(data)), b""):
        with pytest.raises(ValueError, match="does not end with a marker"):
            cut(other, read_tiles(data), 40, 200, 24, 176)


def test_lengths_that_only_sum_up():
    data = bytearray(tile(encode(64, 128)))
    at = data.index(b"RSTINDEX") + 24
    size = data[at]
    data[at + 4 + size] += 1
    data[at + 4 + 2 * size] -= 1
    with pytest.raises(ValueError, match="does not end with a marker"):
        cut(data, read_tiles(data), 0, 0, 10, 10)


@needs_jpegtran
def test_list_that_a_tool_left_in_a_changed_file():
    data = tile(encode(64, 128))
    changed = subprocess.run(["jpegtran", "-copy", "all", "-optimize", "-restart", "0"], input=data,
                             capture_output=True).stdout
    assert b"RSTINDEX" in changed
    with pytest.raises(ValueError, match="damaged tiled JPEG"):
        read_tiles(changed)
    np.testing.assert_array_equal(decode(tile(changed)), decode(data))


def test_long_lists_span_segments():
    image = np.zeros((4096, 8192), np.uint8)
    image[:, ::64] = 255
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    data = tile(jpeg, interval_px=8)
    assert sum(data[a + 4:b].startswith(b"RSTINDEX") for _, a, b in segments(data)) > 1
    np.testing.assert_array_equal(region(data, read_tiles(data), 2000, 5000, 50, 60),
                                  decode(jpeg)[2000:2050, 5000:5060])


def test_map_is_small_and_pickles():
    data = tile(encode(375, 500))
    tiles = read_tiles(data)
    copy = pickle.loads(pickle.dumps(tiles))
    assert len(pickle.dumps(tiles)) < 8000
    assert bytes(cut(data, copy, 9, 9, 99, 99)[0]) == bytes(cut(data, tiles, 9, 9, 99, 99)[0])


def test_threads():
    jpegs = [encode(90, 150, seed=seed, optimize=1) for seed in range(8)]
    expected = [tile(jpeg) for jpeg in jpegs]
    results = [None] * 8

    def work(i):
        results[i] = [tile(jpegs[i]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[data] * 20 for data in expected]


def test_reading_needs_no_numba():
    code = """if True:
        import sys
        from dataflows.jpeg.tile import cut, jpeg_size, read_tiles
        data = sys.stdin.buffer.read()
        cut(data, read_tiles(data), 1, 2, 3, 4), jpeg_size(data)
        assert "numba" not in sys.modules and "cv2" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", code], input=tile(encode(40, 60)), check=True, timeout=60, cwd=ROOT)
