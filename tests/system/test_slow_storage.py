"""Loaders on a file system that takes its time, as a network's does: what it is asked for, in what
order, and how much at once.

Nothing is timed: the file system of slow_file_system.py keeps a list of its requests, and how many it had at a time.
"""
import json
import multiprocessing
import os
from types import SimpleNamespace

import pytest
import torch

from dataflows import CenterCrop
from dataflows.storage.paged_file import PAGE, on_network
from dataflows.storage.store import Store
from dump_imagenet import dump_split
from helpers.fuse import mounted
from helpers.photos import write_photos
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

LATENCY_SECONDS = 0.02
TIMEOUT_SECONDS = 30
NOBODY = 65534
TRANSFORM = CenterCrop(32, resize=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dump of 90 photos as pixels, on the local disk."""
    photos, folder = tmp_path_factory.mktemp("more-photos"), tmp_path_factory.mktemp("slow")
    write_photos(photos / "train", (30, 30, 30))
    dump_split(photos, folder, "train", format="uint8", progress=False)
    return folder


@pytest.fixture
def slow(folder, tmp_path):
    """.path of the same LMDB on a slow file system, mounted read-only; .requests() of its bytes so far."""
    log = tmp_path / "requests"
    with mounted("slow_file_system.py", folder, log, LATENCY_SECONDS) as mountpoint:
        yield SimpleNamespace(path=os.path.join(mountpoint, "train.lmdb"), requests=lambda: requests(log))


def requests(log):
    """(offset, bytes, how many were being served) of each request for the LMDB's bytes."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [tuple(row[1:]) for row in rows if row[0] == "train.lmdb"]


def page_bytes(store, numbers=None):
    """Of the pages that these records take, all by default."""
    nbytes = store.index.nbytes if numbers is None else store.index.nbytes[numbers]
    return int((-(-nbytes // PAGE) * PAGE).sum())


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
def test_many_requests_are_under_way_at_once_and_little_is_read_twice(slow, folder, cls, io):
    with cls(folder / "train.lmdb", 10, transform=TRANSFORM) as local:
        expected = list(local)
    with cls(slow.path, 10, transform=TRANSFORM, io=io, num_workers=2) as loader:
        for (images, labels), (other, other_labels) in zip(loader, expected, strict=True):
            assert torch.equal(images, other) and torch.equal(labels, other_labels)
    made = slow.requests()
    # Two threads that wait for what they need would have two requests under way.
    assert sum(serving > 4 for _, _, serving in made) > len(made) / 2
    assert sum(nbytes for _, nbytes, _ in made) < 1.2 * page_bytes(Store(folder / "train.lmdb")) + 256 * 1024


def test_records_are_copied_where_a_page_fault_is_a_message(slow, folder):
    assert on_network(slow.path) and not on_network(str(folder / "train.lmdb"))
    for io, copies in (("auto", True), ("pread", True), ("mmap", False)):
        value = Store(slow.path, io=io).value(3)
        assert isinstance(value.base, bytes) == copies and not value.flags.writeable


def test_the_file_is_read_from_its_start_to_its_end(slow):
    """Those that are under way together may arrive in any order: FUSE lets 12 wait, and serves them by threads."""
    with LMDBIterLoader(slow.path, 10, transform=TRANSFORM, order="sequential") as loader:
        before = len(slow.requests())
        list(loader)
    offsets = [offset for offset, _, _ in slow.requests()[before:]]
    places = {offset: place for place, offset in enumerate(sorted(offsets))}
    assert len(offsets) > 20 and max(abs(places[offset] - place) for place, offset in enumerate(offsets)) <= 16


@pytest.mark.parametrize("cls, in_order", [(LMDBIterLoader, True), (LMDBLoader, False)])
def test_a_local_shuffle_reads_in_the_order_of_the_file(slow, cls, in_order):
    """But for the first batch, which comes before the rest of what enters the buffer with it."""
    with cls(slow.path, 5, transform=TRANSFORM) as loader:
        before = len(slow.requests())
        list(loader)
    offsets = [offset for offset, _, _ in slow.requests()[before:]]
    places = {offset: place for place, offset in enumerate(sorted(offsets))}
    displacement = max(abs(places[offset] - place) for place, offset in enumerate(offsets))
    assert len(offsets) >= 40, offsets
    assert (displacement <= 24) == in_order, displacement  # 12 that wait together, some of the first batch


def test_the_first_batch_does_not_wait_for_the_shuffle_buffer(slow):
    with LMDBIterLoader(slow.path, 2, transform=TRANSFORM, shuffle_buffer=50_000, prefetch=1, num_workers=1) as loader:
        batches = iter(loader)
        next(batches)
        asked = sum(nbytes for _, nbytes, _ in slow.requests())
        batches.close()
    assert asked < page_bytes(Store(slow.path)) / 2


def _as_nobody(path, results):
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        seen = [len(LMDBDataset(path))]
        for cls in (LMDBLoader, LMDBIterLoader):
            with cls(path, 10, transform=TRANSFORM, num_workers=1) as loader:
                seen.append(sum(len(labels) for _, labels in loader))
        results.send((seen, os.access(os.path.dirname(path), os.W_OK)))
    except BaseException as error:
        results.send(repr(error))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become another user")
def test_nothing_is_written_and_no_right_to_write_is_needed(slow, folder):
    before = sorted(os.listdir(folder))
    context = multiprocessing.get_context("fork")
    received, sent = context.Pipe(duplex=False)
    child = context.Process(target=_as_nobody, args=(slow.path, sent))
    child.start()
    try:
        assert received.poll(TIMEOUT_SECONDS), "the child gave no answer"
        assert received.recv() == ([90, 90, 90], False)
    finally:
        child.kill()
        child.join()
    assert sorted(os.listdir(folder)) == before
    with pytest.raises(OSError, match="Read-only"):
        open(os.path.join(os.path.dirname(slow.path), "lock.mdb"), "w")


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_the_loader_says_that_it_waits_for_storage(slow, io):
    with LMDBLoader(slow.path, 10, transform=TRANSFORM, io=io, num_workers=1) as loader:
        list(loader)
        stats = loader.stats()
    assert (stats.images, stats.limit) == (90, "storage"), str(stats)
