"""Pages are asked for ahead of their decoding, within bounds, and none of it shows in the batches."""
import itertools
import os
import shutil
import time

import numpy as np
import pytest
import torch

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.load.chain import batches_of, prefetched
from dataflows.load.meter import Meter
from dataflows.load.prefetch import PrefetchPages
from dataflows.order.epoch import Epoch
from dataflows.order.local_shuffle import FiniteLocallyShuffleData
from dataflows.order.parts import Slice
from dataflows.order.pointers import SequentialKeys, ShuffledKeys
from dataflows.storage import store as store_module
from dataflows.storage.index import load_index
from dataflows.storage.paged_file import PAGE
from dataflows.storage.store import Store
from dataflows.tensorpack import BatchData
from helpers.page_cache import resident_pages
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader


class Recorded(Store):
    """A Store that remembers what was asked for."""

    def __init__(self, path):
        super().__init__(path)
        self.fetched, self.own, self.entering = [], [], []  # all numbers; those of batches; those that enter a shuffle

    def will_need(self, numbers, **options):
        self.fetched += numbers
        (self.entering if options else self.own).append(numbers)
        return super().will_need(numbers, **options)


def chain(store, ahead_bytes):
    batches = BatchData(ShuffledKeys(store, Epoch()), 2, remainder=True, use_list=True)
    return PrefetchPages(batches, store, Meter(), ahead_bytes)


def test_batches_pass_unchanged_and_each_record_is_asked_for_once(uint8_lmdb):
    store = Recorded(uint8_lmdb / "train.lmdb")
    ds = chain(store, 2**20)
    assert list(ds) == list(ds.ds) and len(ds) == len(ds.ds)
    assert sorted(store.fetched) == list(range(len(store)))


def test_the_first_batch_waits_for_its_own_pages_only(uint8_lmdb):
    store = Recorded(uint8_lmdb / "train.lmdb")
    batches = iter(chain(store, 2**30))
    [numbers, _] = next(batches)
    assert store.fetched == numbers
    next(batches)
    assert len(store.fetched) == 6  # three batches
    batches.close()


def test_it_looks_ahead_by_as_many_bytes_as_it_may(uint8_lmdb):
    store = Recorded(uint8_lmdb / "train.lmdb")
    largest = int(store.index.nbytes.max())
    for yielded, _ in enumerate(chain(store, 6 * largest), 1):
        ahead = store.fetched[2 * yielded:]
        assert store.index.nbytes[ahead].sum() <= 6 * largest


def shuffled_chain(store, buffer_size, *, batch_size=3, epoch=None, start=0, step=1):
    """What an LMDBIterLoader, or one of its worker processes, has below its decoding."""
    epoch = epoch or Epoch()
    shuffle = FiniteLocallyShuffleData(SequentialKeys(store, epoch), buffer_size, epoch)
    return prefetched(Slice(batches_of(shuffle, epoch, batch_size), start, step), shuffle, store, Meter(), step)


@pytest.mark.parametrize("buffer_size", [1, 4, 8, 100])
def test_pages_are_asked_for_in_the_order_of_the_file_as_records_enter_the_shuffle(uint8_lmdb, buffer_size):
    store = Recorded(uint8_lmdb / "train.lmdb")
    ds = shuffled_chain(store, buffer_size)
    batches = list(ds)
    assert batches == list(ds.ds)  # pure: it asks for nothing
    assert store.own == [numbers for numbers, _ in batches]
    assert list(itertools.chain.from_iterable(store.entering)) == list(range(len(store)))
    for number, [numbers, _] in enumerate(batches):  # each record has entered when its batch leaves
        assert set(numbers) <= set(itertools.chain.from_iterable(store.entering[:number + 1]))


def test_an_epoch_that_is_resumed_does_not_read_what_was_had(uint8_lmdb):
    store, epoch = Recorded(uint8_lmdb / "train.lmdb"), Epoch()
    epoch.go_to(0, (), 12)
    list(shuffled_chain(store, 4, epoch=epoch))
    assert list(itertools.chain.from_iterable(store.entering)) == list(range(16, len(store)))  # 12 had, 4 in the buffer


def test_every_worker_asks_for_its_own_batches_and_for_what_enters_until_its_next(uint8_lmdb):
    for start in (0, 1):
        store = Recorded(uint8_lmdb / "train.lmdb")
        batches = list(shuffled_chain(store, 4, start=start, step=2))
        assert store.own[0] == batches[0][0]
        assert store.entering[0] == list(range(6 + 4))  # two batches of three, and the buffer


def test_without_memory_for_the_buffer_records_are_asked_for_as_they_leave_it(uint8_lmdb, monkeypatch):
    store = Recorded(uint8_lmdb / "train.lmdb")
    needed = 2 * 8 * int(store.index.nbytes.mean())
    for memory, asks_twice in ((needed + 100, True), (needed - 100, False)):
        store.entering.clear()
        monkeypatch.setattr(store_module, "available_memory", lambda memory=memory: memory)
        list(shuffled_chain(store, 8))
        assert bool(store.entering) == asks_twice


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
@pytest.mark.parametrize("options", [{"io": "pread"}, {"io": "mmap"}, {"cache": "drop"},
                                     {"io": "pread", "cache": "drop"}], ids=str)
@pytest.mark.parametrize("fixture", ["uint8_lmdb", "tiled_lmdb"])
def test_batches_do_not_depend_on_how_bytes_are_read(fixture, cls, options, request):
    path = request.getfixturevalue(fixture) / "train.lmdb"
    for transform in (RandomResizedCrop(40), None):
        with cls(path, 7, transform=transform) as plain, cls(path, 7, transform=transform, **options) as loader:
            for _ in range(2):
                for (images, labels), (others, other_labels) in zip(plain, loader, strict=True):
                    assert torch.equal(labels, other_labels)
                    assert all(torch.equal(a, b) for a, b in zip(images, others, strict=True))


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_dropped_records_are_not_in_memory_after_an_epoch(uint8_lmdb, tmp_path, io):
    path = tmp_path / "train.lmdb"
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        shutil.copy(uint8_lmdb / name, tmp_path / name)
    with LMDBLoader(path, 8, transform=CenterCrop(32, resize=40), io=io, cache="drop") as loader:
        index = load_index(str(path), str(path))
        # LMDB reads the start when it opens a file, two records are compared with the index, and the kernel adds some.
        loader.dataflow.ds._store.release(list(range(index.count)))
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if index.offset[index.count // 2] // PAGE in resident_pages(path):
            pytest.skip("this file system keeps files in memory")
        pages = {page for start, nbytes in zip(index.offset, index.nbytes)
                 for page in range(start // PAGE, (start + nbytes) // PAGE)}
        assert [images.shape[1:] for images, _ in loader] == [(3, 32, 32)] * len(loader)
        assert not {page for page in resident_pages(path) & pages if page >= 64}  # before, LMDB's own pages hold folios


def test_what_is_missing_is_found_among_what_is_in_memory(uint8_lmdb, tmp_path):
    """A batch is not taken to be in memory because most of it is: each page that is missed costs a wait of its own."""
    path = tmp_path / "train.lmdb"
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        shutil.copy(uint8_lmdb / name, tmp_path / name)
    numbers = list(range(len(store := Store(path))))
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    wait_for_pages(store, path, numbers)
    for missing in (len(numbers) // 2, len(numbers) // 2 + 1):
        dropping = Store(path, cache="drop")
        dropping.value(missing)
        dropping.release([missing])
        if pages_of(store, missing) & resident_pages(path):
            pytest.skip("this file system keeps files in memory")
        wait_for_pages(store, path, numbers)


def pages_of(store, number):
    start, nbytes = store.index.offset[number], store.index.nbytes[number]
    return set(range(start // PAGE, (start + nbytes - 1) // PAGE + 1))


def wait_for_pages(store, path, numbers):
    """Asks for the records, again and again, for the kernel may pass a request over; fails unless all pages come."""
    wanted, deadline = set().union(*(pages_of(store, number) for number in numbers)), time.monotonic() + 30
    while not wanted <= resident_pages(path):
        assert time.monotonic() < deadline, "not asked for"
        store.will_need(numbers)
        time.sleep(0.01)


def test_without_an_index_offsets_are_learned_as_records_are_read(uint8_lmdb, tmp_path):
    shutil.copy(uint8_lmdb / "train.lmdb", tmp_path / "train.lmdb")
    known, store = Store(uint8_lmdb / "train.lmdb"), Store(tmp_path / "train.lmdb")
    assert store.index is None and store.will_need([3, 4]) == (0, False)
    assert np.array_equal(store.value(3), known.value(3))
    if store._records._environment.base is None:
        pytest.skip("this system does not tell where a file is mapped")
    assert store.will_need([3, 4])[0] == known.index.nbytes[3]
    for number in range(len(store)):
        store.value(number)
    assert np.array_equal(store._records._learned, [known.index.offset, known.index.nbytes])
    with LMDBLoader(tmp_path / "train.lmdb", 8, transform=CenterCrop(32, resize=40)) as loader:
        first = [images for images, _ in loader]
        loader.set_epoch(0)
        assert all(torch.equal(a, b) for a, b in zip(first, loader, strict=False) if isinstance(b, torch.Tensor))


@pytest.mark.parametrize("options, message", [({"io": "direct"}, "io must be .auto., .mmap. or .pread., not"),
                                              ({"cache": "evict"}, "cache must be .keep. or .drop., not")])
def test_wrong_options_are_named(uint8_lmdb, options, message):
    with pytest.raises(ValueError, match=message):
        LMDBLoader(uint8_lmdb / "train.lmdb", 8, **options)


@pytest.mark.parametrize("options", [{"io": "pread"}, {"cache": "drop"}], ids=str)
def test_options_that_need_an_index_say_so(uint8_lmdb, tmp_path, options):
    shutil.copy(uint8_lmdb / "train.lmdb", tmp_path / "train.lmdb")
    with pytest.raises(ValueError, match="has no index"):
        LMDBLoader(tmp_path / "train.lmdb", 8, **options)


def test_a_folder_without_write_access_is_enough(uint8_lmdb, tmp_path):
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        shutil.copy(uint8_lmdb / name, tmp_path / name)
        os.chmod(tmp_path / name, 0o444)
    before = sorted(os.listdir(tmp_path))
    os.chmod(tmp_path, 0o555)
    try:
        assert len(LMDBDataset(tmp_path / "train.lmdb")[0][0].shape) == 3
        with LMDBIterLoader(tmp_path / "train.lmdb", 8, transform=RandomResizedCrop(16)) as loader:
            list(loader)
        assert sorted(os.listdir(tmp_path)) == before
    finally:
        os.chmod(tmp_path, 0o755)
