"""Whether a tiled JPEG has the coefficients of another one: only of its own original, to the last bit."""
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.images.codecs import decode_perfect
from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.header import parse_header
from dataflows.jpeg.tile import same_coefficients, tile
from helpers.jpegs import FACTORS, encode
from helpers.memory_checks import checked

SAMPLINGS = st.sampled_from(["gray", *FACTORS])


@given(st.integers(1, 90), st.integers(1, 140), SAMPLINGS, st.integers(1, 100), st.integers(0, 1),
       st.sampled_from([1, 8, 24, 32, 64, 2**16]), st.integers(0, 3))
def test_a_tiled_form_is_the_same(height, width, sampling, quality, optimize, interval_px, seed):
    jpeg = encode(height, width, sampling, quality=quality, optimize=optimize, seed=seed)
    assert same_coefficients(jpeg, tile(jpeg, interval_px=interval_px))


@given(SAMPLINGS, st.integers(0, 3), st.data())
def test_no_changed_pixel_is_missed(sampling, seed, data):
    """Bytes of the tiled form are changed: it is not the same then, unless it still has the pixels."""
    jpeg = encode(40, 75, sampling, quality=[60, 97][seed % 2], optimize=seed // 2, seed=seed)
    tiled = bytearray(tile(jpeg))
    for _ in range(data.draw(st.integers(1, 3))):
        tiled[data.draw(st.integers(0, len(tiled) - 1))] ^= data.draw(st.integers(1, 255))
    if same_coefficients(jpeg, bytes(tiled)):
        assert np.array_equal(decode_perfect(bytes(tiled)), decode_perfect(jpeg))


@pytest.mark.parametrize("sampling", ["gray", *FACTORS])
def test_each_bit_of_the_data_counts(sampling):
    jpeg = encode(24, 40, sampling, quality=90)
    tiled = tile(jpeg)
    tiles, found = read_tiles(tiled), 0
    for at in range(tiles.scan_at, len(tiled) - 2):
        for bit in range(8):
            changed = bytearray(tiled)
            changed[at] ^= 1 << bit
            if same_coefficients(jpeg, bytes(changed)):  # a bit that fills the last byte of an interval
                assert at + 1 in tiles.scan_at + tiles.offsets[1:] - 2, (at, bit)
                assert np.array_equal(decode_perfect(bytes(changed)), decode_perfect(jpeg))
            else:
                found += 1
    assert found > 7 * (len(tiled) - tiles.scan_at - 3 * len(tiles.lengths))


@pytest.mark.parametrize("marker, at", [
    (b"\xff\xdb", 10), (b"\xff\xc0", 6), (b"\xff\xc0", 8), (b"\xff\xc0", 11), (b"\xff\xc4", 6), (b"\xff\xda", 6),
    (b"\xff\xdd", 5)], ids=str)
def test_another_header_is_not_the_same(marker, at):
    jpeg = encode(40, 75, "4:2:0", optimize=1)
    tiled = bytearray(tile(jpeg))
    tiled[tiled.index(marker, tiled.index(b"\xff\xdd\0\4")) + at] ^= 1
    assert not same_coefficients(jpeg, bytes(tiled))


def test_another_image_is_not_the_same():
    images = [encode(40, 75, sampling, seed=seed) for sampling in FACTORS for seed in range(3)]
    tiled = list(map(tile, images))
    assert all(same_coefficients(one, other) == (i == j)
               for i, one in enumerate(images) for j, other in enumerate(tiled))


@pytest.mark.parametrize("odd", ["a restart marker in the original", "other colors", "no tiles", "cut off"])
def test_what_is_not_decoded_here_is_not_called_the_same(odd):
    jpeg = encode(40, 75, "4:4:4", restart=int("restart" in odd))
    if odd == "other colors":  # of which names and no JFIF say that they are RGB
        jfif = 4 + int.from_bytes(jpeg[4:6], "big")
        names = re.search(rb"\xff\xc0\0\x11.{6}", jpeg, re.DOTALL).end()
        scan = jpeg.index(b"\xff\xda") + 5
        changed = bytearray(jpeg)
        for i, name in enumerate(b"RGB"):
            changed[names + 3 * i] = changed[scan + 2 * i] = name
        jpeg = bytes(changed[:2] + changed[jfif:])
    tiled = {"no tiles": lambda: jpeg, "cut off": lambda: tile(jpeg)[:-1]}.get(odd, lambda: tile(jpeg))()
    assert not same_coefficients(jpeg, tiled)


def test_a_table_that_changed_a_code_is_not_the_same():
    """A code's symbol is another one, in the table and in nothing else: the bits of the data are equal."""
    jpeg = encode(40, 75, "gray", optimize=1)
    tiled = bytearray(tile(jpeg))
    [table] = [table.at for table in parse_header(bytes(tiled)).ac]
    for place in range(table + 17, table + 17 + sum(tiled[table + 1:table + 17])):
        changed = bytearray(tiled)
        changed[place] ^= 0x10  # of the run
        assert not same_coefficients(jpeg, bytes(changed))


HOSTILE = """
import sys
import numpy as np
from dataflows.errors import UnsupportedJPEG
from dataflows.jpeg.tile import same_coefficients, tile
from helpers.jpegs import FACTORS, damaged, encode
tiled = same = 0
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    rng = np.random.default_rng(seed)
    jpeg = encode(40, 75, ["gray", *FACTORS][seed % 6], optimize=seed // 6 % 2, restart=int(seed % 7 == 6), seed=seed)
    good = tile(jpeg, interval_px=[8, 32, 48][seed // 12 % 3])
    for _ in range(30):
        one, other = damaged(jpeg, rng), damaged(good, rng)
        for pair in ((jpeg, other), (one, good), (one, other)):
            try:
                same += same_coefficients(*pair)
            except UnsupportedJPEG:
                pass
        try:
            tile(one)
            tiled += 1
        except UnsupportedJPEG:
            pass
print(tiled, same)
"""


@pytest.mark.parametrize("first", range(0, 72, 24))
def test_hostile_data_touch_no_other_memory(first):
    done = checked(HOSTILE, str(first), str(first + 24))
    assert done.returncode == 0, done.stderr
    tiled, same = map(int, done.stdout.split())
    assert 0 < tiled < 24 * 30 and same < 24 * 90
