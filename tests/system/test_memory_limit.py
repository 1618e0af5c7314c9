"""cache="drop": a file that is larger than memory takes little of it, and evicts nothing else."""
import contextlib
import multiprocessing
import os
import pathlib
import tempfile
import time

import numpy as np
import pytest

from dataflows.load.meter import Meter
from dataflows.load.prefetch import PrefetchPages
from dataflows.order.epoch import Epoch
from dataflows.order.pointers import ShuffledKeys
from dataflows.storage.paged_file import PAGE
from dataflows.storage.store import Store
from dataflows.tensorpack import BatchData
from dump_imagenet import dump_split
from helpers.page_cache import resident_pages
from helpers.photos import CLASSES, encode_jpeg, make_photo

MB = 2**20
RECORDS = 40  # of 3 MB each
AHEAD_BYTES = 12 * MB
LIMIT_BYTES = 72 * MB  # of the control group, for a file of 120 MB
SMALL_BYTES = 40 * MB  # what reading it may take: what is read ahead, the batch at hand, and what the kernel adds
TIMEOUT_SECONDS = 60


def leave_page_cache(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    photos, folder = tmp_path_factory.mktemp("large-photos"), tmp_path_factory.mktemp("large")
    (photos / "train" / CLASSES[0]).mkdir(parents=True)
    jpeg = encode_jpeg(make_photo(1000, 1000, seed=0))
    for number in range(RECORDS):
        (photos / "train" / CLASSES[0] / f"{number}.jpg").write_bytes(jpeg)
    dump_split(photos, folder, "train", format="uint8", progress=False)
    return folder / "train.lmdb"


@pytest.fixture
def cold(path):
    leave_page_cache(path)
    if len(resident_pages(path)) * PAGE > MB:
        pytest.skip("this file system keeps files in memory")
    return path


def read(path, cache, each=lambda: None):
    """An epoch of bytes, as the loaders have them."""
    store = Store(path, cache=cache)
    ds = PrefetchPages(BatchData(ShuffledKeys(store, Epoch()), 2, use_list=True), store, Meter(), AHEAD_BYTES)
    for numbers, _ in ds:
        for number in numbers:
            store.value(number)[::PAGE].sum()
        store.release(numbers)
        each()


def test_what_is_in_memory_at_any_time_is_a_small_part_of_the_file(cold):
    sizes = []
    read(cold, "drop", lambda: sizes.append(len(resident_pages(cold)) * PAGE))
    assert max(sizes) < SMALL_BYTES and sizes[-1] < 8 * MB
    read(cold, "keep")
    assert len(resident_pages(cold)) * PAGE > 0.9 * os.path.getsize(cold)


class Group:
    """A control group of memory with a limit, of either version; removed with `close`."""

    def __init__(self, parent, version):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="test-drop-", dir=parent))
        self._version = version
        self._file("memory.limit_in_bytes", "memory.max").write_text(str(LIMIT_BYTES))

    def _file(self, *names):
        return self.folder / names[self._version - 1]

    def join(self):
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def cached(self):
        stat = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        return int(stat[("cache", "file")[self._version - 1]])

    def refused(self):
        """How many times the limit was in the way."""
        if self._version == 1:
            return int((self.folder / "memory.failcnt").read_text())
        return int(dict(line.split() for line in (self.folder / "memory.events").read_text().splitlines())["max"])

    def close(self):
        give_up = time.monotonic() + 30
        while True:
            try:
                return self.folder.rmdir()
            except OSError:  # its last process is still being taken down
                assert time.monotonic() < give_up
                time.sleep(0.02)


def own_groups():
    """(folder, version) of this process's control groups that may have children with a limit of their own."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in ("memory", ""):
                root = "/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup"
                yield root + name, 1 if controllers else 2


@pytest.fixture
def group():
    reasons = []
    for parent, version in own_groups():
        try:
            group = Group(parent, version)
        except OSError as error:
            reasons.append(str(error))
            continue
        yield group
        group.close()
        return
    pytest.skip(f"no control group of memory can be made: {'; '.join(reasons) or 'there are none'}")


def _child(group, path, other, cache, results):
    group.join()
    pathlib.Path(other).read_bytes()
    read(path, cache)
    results.send((group.cached(), group.refused(), len(resident_pages(path)) * PAGE))


def in_group(group, path, other, cache):
    """(bytes of page cache that the group has after an epoch, how often its limit was met, bytes of the file there)."""
    context = multiprocessing.get_context("fork")
    received, sent = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(group, path, other, cache, sent))
    child.start()
    sent.close()
    try:
        assert received.poll(TIMEOUT_SECONDS), "the child gave no answer"
        return received.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("cache", ["drop", "keep"])
def test_the_limit_of_a_container_is_not_met(group, cold, tmp_path, cache):
    other = tmp_path / "other"  # read once, before, by the same container
    other.write_bytes(np.random.default_rng(0).bytes(16 * MB))
    leave_page_cache(other)
    cached, refused, _ = in_group(group, cold, other, cache)
    kept = len(resident_pages(other)) * PAGE
    if cache == "drop":
        assert refused == 0 and cached < 16 * MB + 8 * MB and kept == 16 * MB
    else:  # what it is good for: the file fills the container, and what was there before is gone
        assert refused > 0 and cached > LIMIT_BYTES / 2 and kept < 8 * MB
