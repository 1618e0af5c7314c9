"""Reading a disk: whole pieces, past the page cache where that is possible, and saying so where it is not."""
import os
import time

import numpy as np
import pytest

from dataflows.tools.advise import disk
from dataflows.tools.advise.disk import Piece, Reading, drop, measure_storage, read
from dataflows.tools.advise.sources import Files, Records

MB = 2**20


@pytest.fixture
def file(tmp_path):
    """The path of a file of 20 MB that is on the disk."""
    path = tmp_path / "file"
    with open(path, "wb") as content:
        content.write(os.urandom(20 * MB))
        os.fsync(content.fileno())
    return str(path)


@pytest.fixture
def droppable(file):
    """The same, where the page cache can be dropped."""
    if not drop([Piece(file, 0, 20 * MB)]):
        pytest.skip("this file system keeps files in memory")
    return file


def pieces(path, nbytes=MB):
    return [Piece(path, at, nbytes) for at in range(0, 20 * MB, nbytes)]


def orders(source):
    """Some of it at random, and in order."""
    return [source.pieces(np.random.default_rng(1), 128 * MB, in_order=in_order) for in_order in (False, True)]


def test_all_pieces_are_read(file):
    assert read(pieces(file), 2, 60).nbytes == 20 * MB


def test_reading_ends_when_its_time_is_over(file):
    assert read(pieces(file, MB // 4), 2, 0).nbytes == 16 * MB  # the group that was begun


def test_many_small_pieces_are_read_in_groups_of_a_few_files(tmp_path):
    for i in range(300):
        (tmp_path / str(i)).write_bytes(b"content")
    found = [Piece(str(tmp_path / str(i)), 0, 7) for i in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    assert read(found, 2, 60).nbytes == 2100
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_dropped_comes_from_the_disk(droppable):
    assert drop(pieces(droppable))
    assert read(pieces(droppable), 2, 60).disk_bytes >= 19 * MB  # looking whether it is gone brought some pages
    assert read(pieces(droppable), 2, 60).disk_bytes < MB


def test_what_somebody_holds_in_memory_is_not_dropped(file):
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no file system in memory")
    path = f"/dev/shm/dataflows-test-{os.getpid()}"
    try:
        with open(path, "wb") as content:
            content.write(bytes(4 * MB))
        found = measure_storage([Piece(path, 0, 4 * MB)], [Piece(path, 0, 4 * MB)], 2, time.monotonic() + 60)
    finally:
        os.unlink(path)
    assert not found.cold
    assert "the rate of the disk is unknown" in found.about


def test_both_orders_of_a_source_are_measured(photos, tiled_lmdb):
    for source in (Files(str(photos), time.monotonic() + 60), Records(str(tiled_lmdb / "train.lmdb"))):
        found = measure_storage(*orders(source), 2, time.monotonic() + 60)
        assert found.sequential_mb_s > 0 and found.random_mb_s > 0 and found.cpu_s_per_mb >= 0
        assert ("page cache" in found.about) == found.cold
        source.close()


def test_each_order_is_measured_though_time_is_over(photos, monkeypatch):
    calls = []
    monkeypatch.setattr(disk, "read", lambda *arguments: calls.append(arguments) or Reading(MB, 0.5, 0.1, MB))
    found = measure_storage(*orders(Files(str(photos), time.monotonic() + 60)), 2, time.monotonic() - 10)
    assert len(calls) == 2
    assert found.sequential_mb_s == found.random_mb_s == pytest.approx(2 * MB / 1e6)
    assert found.cpu_s_per_mb == pytest.approx(0.1 / MB * 1e6)
