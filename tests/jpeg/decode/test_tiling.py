"""The list of intervals as a kernel reads it: what cut.read_tiles reads, wherever the kernel says anything."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.decode.tiling import NO_TILING, read_offsets, read_tiling
from dataflows.jpeg.tile import tile
from helpers.jpegs import FACTORS, encode


def agrees(data):
    """Whether there is a Tiling, with offsets, after comparing it with the TileMap."""
    data = np.array(data)
    found = read_tiling(data)
    if found == NO_TILING:
        return False
    offsets = read_offsets(data, found)
    if not len(offsets):
        return False
    tiles = read_tiles(data)
    assert found[:9] == tiles[:9] and found.scan == tiles.scan_at
    np.testing.assert_array_equal(offsets, tiles.offsets)
    assert len(data[:found.front]) + found.scan - found.core == len(tiles.header)
    return True


def tiled(height, width, sampling, interval_px=32, **options):
    return np.frombuffer(tile(encode(height, width, sampling, **options), interval_px=interval_px), np.uint8)


@settings(max_examples=100, deadline=None)
@given(sampling=st.sampled_from(["gray", *FACTORS]), height=st.integers(1, 130), width=st.integers(1, 130),
       interval_px=st.sampled_from([8, 32, 48, 64, 200]), quality=st.sampled_from([1, 85, 100]))
def test_it_is_what_read_tiles_reads(sampling, height, width, interval_px, quality):
    assert agrees(tiled(height, width, sampling, interval_px, quality=quality))


def test_intervals_of_one_two_and_four_bytes():
    sizes = set()
    for data in (tiled(20, 20, "gray", quality=10), tiled(90, 90, "4:4:4", quality=100),
                 tiled(24, 8000, "4:4:4", 8000, quality=100)):
        assert agrees(data)
        sizes.add(read_tiling(data.copy()).length_bytes)
    assert sizes == {1, 2, 4}


@pytest.mark.parametrize("data", [encode(64, 64), b"", b"\xff\xd8\xff", bytes(500)])
def test_what_is_not_tiled_has_no_tiling(data):
    assert read_tiling(np.frombuffer(data, np.uint8).copy()) == NO_TILING


def test_a_list_of_several_segments_is_left_to_read_tiles():
    data = tiled(2700, 2700, "4:4:4", 8, quality=1)
    assert read_tiling(data.copy()) == NO_TILING and read_tiles(data).height == 2700


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["gray", "4:2:0", "4:4:4"]), st.integers(0, 2**32))
def test_mutated_lists_are_read_as_read_tiles_reads_them_or_not_at_all(sampling, seed):
    rng, data = np.random.default_rng(seed), tiled(48, 130, sampling)
    scan = read_tiling(data.copy()).scan
    for _ in range(100):
        changed = data.copy()
        for at in rng.integers(2, scan, rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256)
        agrees(changed)
        agrees(data[:rng.integers(0, len(data))])
