"""The open LMDB of a process: which files it refuses, and what threads, forks, pickles and views may do."""
import contextlib
import copy
import dataclasses
import gc
import os
import pickle
import re
import shutil
import signal
import sys
import threading
import time

import lmdb
import msgpack
import numpy as np
import pytest
from tensorpack.dataflow import DataFromList
from torch.utils.data import DataLoader

from dataflows import CenterCrop
from dataflows.dump.verify import verify
from dataflows.errors import RecordError
from dataflows.storage import index, paged_file
from dataflows.storage.index import Index, index_path, load_index, write_index
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow, LMDBSerializer  # noqa: F401  (imports tensorpack without its output)
from dataflows.tools.info.facts import describe
from dump_imagenet import dump_split
from helpers.fuse import mounted
from helpers.limits import limited_memory
from helpers.photos import make_photo
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

PACKED = [msgpack.packb([b"image %d" % i * 500, i]) for i in range(12)]
KEYS = [b"%08d" % i for i in range(len(PACKED))]


def write_lmdb(path, entries, *, keys=..., subdir=False):
    """An LMDB with these entries, and with `keys` under __keys__ unless they are None."""
    with lmdb.open(str(path), subdir=subdir, map_size=2**24) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                transaction.put(key, value)
            if keys is not None:
                transaction.put(b"__keys__", msgpack.packb(list(entries) if keys is ... else keys))
    os.unlink(path / "lock.mdb" if subdir else f"{path}-lock")
    return str(path)


@pytest.fixture
def foreign(tmp_path):
    """An LMDB as tensorpack writes it, without an index."""
    return write_lmdb(tmp_path / "foreign.lmdb", dict(zip(KEYS, PACKED)))


@pytest.fixture
def ours(uint8_lmdb, tmp_path):
    """A copy of a dumped LMDB and its index."""
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(uint8_lmdb / name, tmp_path / name)
    return str(tmp_path / "val.lmdb")


def contents(store):
    return [store.value(i).tobytes() for i in range(len(store))]


def in_child(check):
    """Runs `check` in a forked child: 0 if it is true; -9 if it hangs, and less than 0 if another signal ends it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if check() else 2
        os._exit(code)
    give_up = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > give_up:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])


# Reading.

def test_records_come_in_the_order_of_their_keys(foreign):
    store = Store(foreign)
    assert len(store) == 12 and store.index is None
    assert contents(store) == PACKED and [store.key(i) for i in range(12)] == KEYS


def test_a_dumped_file_brings_its_index(ours):
    store = Store(ours)
    assert len(store) == store.index.count == 10 and store.key(3) == b"00000003"


def test_the_same_records_without_the_index(ours):
    expected = contents(Store(ours))
    os.unlink(index_path(ours))
    assert Store(ours).index is None and contents(Store(ours)) == expected


def test_values_are_views_of_the_map_and_read_only(foreign):
    store = Store(foreign)
    value = store.value(0)
    assert value.dtype == np.uint8 and value.ndim == 1 and not value.flags.writeable
    assert np.shares_memory(value, store.value(0)) and np.shares_memory(value, Store(foreign).value(0))


@pytest.mark.parametrize("subdir", [False, True])
def test_stock_files_and_folders(tmp_path, subdir):
    path = str(tmp_path / "stock.lmdb")
    if subdir:
        os.mkdir(path)
    LMDBSerializer.save(DataFromList([[b"abc", 1], [b"def", 2]], shuffle=False), path)
    assert [pickle.loads(value) for value in contents(Store(path))] == [[b"abc", 1], [b"def", 2]]


def test_a_folder_and_the_file_in_it_are_one_lmdb(tmp_path):
    path = write_lmdb(tmp_path / "folder", dict(zip(KEYS, PACKED)), subdir=True)
    folder, file = Store(path), Store(os.path.join(path, "data.mdb"))
    assert contents(folder) == contents(file) == PACKED


def test_keys_of_another_writer(tmp_path):
    entries = {b"n01/b.jpg": b"2", b"n01/a.jpg": b"1", b"n02/a.jpg": b"3"}
    store = Store(write_lmdb(tmp_path / "a.lmdb", entries))
    assert contents(store) == [b"1", b"2", b"3"] and store.key(1) == b"n01/b.jpg"


def test_without_a_list_of_keys_all_are_read_with_one_warning(tmp_path, caplog):
    store = Store(write_lmdb(tmp_path / "a.lmdb", dict(zip(KEYS, PACKED)), keys=None))
    assert contents(store) == PACKED
    warning, = caplog.records
    assert warning.levelname == "WARNING" and store.path in warning.getMessage() and "__keys__" in warning.getMessage()


# Refusals.

def refused(path, *words, error=ValueError):
    with pytest.raises(error) as info:
        Store(path)
    for word in (str(path), *words):
        assert word in str(info.value)


@pytest.mark.parametrize("name", ["missing.lmdb", "folder", "folder/missing.lmdb"])
def test_a_missing_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    refused(str(tmp_path / name), "there is no LMDB file", "dump_imagenet.py", error=FileNotFoundError)


@pytest.mark.parametrize("content", [b"", b"x", b"hello\n" * 5000, bytes(20_000), os.urandom(20_000)],
                         ids=["empty", "short", "text", "zeros", "noise"])
@pytest.mark.parametrize("subdir", [False, True])
def test_what_is_not_an_lmdb(tmp_path, content, subdir):
    path = tmp_path / "a.lmdb"
    if subdir:
        path.mkdir()
    (path / "data.mdb" if subdir else path).write_bytes(content)
    refused(str(path), "cannot be read as an LMDB file", "dump_imagenet.py")


def test_a_truncated_file_at_every_length(foreign):
    with open(foreign, "rb") as file:
        content = file.read()
    assert len(content) > 40_000
    for length in [152, 4095, 4096, 4097, *range(8191, len(content), 4096), len(content) - 1]:
        os.truncate(foreign, length)
        refused(foreign, "truncated" if length >= 8191 else "cannot be read")
        with open(foreign, "wb") as file:
            file.write(content)
    assert contents(Store(foreign)) == PACKED


@pytest.mark.parametrize("keys", [..., [], None])
def test_no_records(tmp_path, keys):
    refused(write_lmdb(tmp_path / "a.lmdb", {}, keys=keys), "holds no records")


@pytest.mark.parametrize("keys", [KEYS[:-1], KEYS + [b"00000012"], []])
def test_a_list_of_keys_of_another_length(tmp_path, keys):
    refused(write_lmdb(tmp_path / "a.lmdb", dict(zip(KEYS, PACKED)), keys=keys), f"lists {len(keys)} keys and holds 12")


def test_a_list_that_names_a_key_twice(tmp_path):
    refused(write_lmdb(tmp_path / "a.lmdb", dict(zip(KEYS, PACKED)), keys=[KEYS[0], *KEYS[:-1]]), "key")


def test_a_list_that_names_a_key_that_is_not_there(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", dict(zip(KEYS, PACKED)), keys=[*KEYS[:-1], b"another"])
    with pytest.raises(ValueError, match=f"{re.escape(path)} has no key b'another'"):
        contents(Store(path))


@pytest.mark.parametrize("keys", [5, "text", {"a": 1}, [1] * 12, [None] * 12])
def test_a_list_of_keys_that_is_none(tmp_path, keys):
    refused(write_lmdb(tmp_path / "a.lmdb", dict(zip(KEYS, PACKED)), keys=keys), "__keys__")


def test_the_index_of_a_file_of_another_size(ours, jpeg_lmdb):
    shutil.copy(jpeg_lmdb / "val.lmdb.index.npz", index_path(ours))
    refused(ours, index_path(ours), "another file", "Remove it")


@pytest.mark.parametrize("where", [0, 3])
def test_the_index_of_another_file_of_the_same_size(tmp_path, where):
    import cv2
    for name in ("a", "b"):
        folder = tmp_path / "photos" / name / "class"
        folder.mkdir(parents=True)
        for i in range(4):
            seed = 99 if (name, i) == ("b", where) else i
            cv2.imwrite(str(folder / f"{i}.png"), make_photo(40, 50, seed))
        dump_split(tmp_path / "photos", tmp_path, name, format="uint8", shuffle=False, progress=False)
    ours, theirs = str(tmp_path / "a.lmdb"), str(tmp_path / "b.lmdb")
    assert os.path.getsize(ours) == os.path.getsize(theirs)
    shutil.copy(index_path(theirs), index_path(ours))
    refused(ours, index_path(ours), "another file", "Remove it")


def test_an_index_beside_a_file_of_another_kind(ours, jpeg_lmdb, tmp_path):
    shutil.move(index_path(ours), tmp_path / "foreign.lmdb.index.npz")
    refused(write_lmdb(tmp_path / "foreign.lmdb", dict(zip(KEYS, PACKED))), "another file", "Remove it")


@pytest.mark.parametrize("with_index", [True, False])
def test_a_number_out_of_range(ours, with_index):
    if not with_index:
        os.unlink(index_path(ours))
    store = Store(ours)
    for number in (10, 10**9):
        with pytest.raises((ValueError, IndexError)):
            store.value(number)


# The life of a Store.

def test_views_outlive_close_and_the_store(foreign):
    store = Store(foreign)
    views = [store.value(i) for i in range(12)]
    parts = [view[:100] for view in views]
    store.close()
    store.close()
    assert [view.tobytes() for view in views] == PACKED
    del store, views
    gc.collect()
    assert [part.tobytes() for part in parts] == [value[:100] for value in PACKED]


def test_a_closed_store_opens_again(foreign):
    store = Store(foreign)
    store.close()
    assert contents(store) == PACKED


def test_the_file_is_let_go_with_the_last_store_and_view(foreign):
    def is_open():
        return any(os.path.realpath(f"/proc/self/fd/{fd}") == os.path.realpath(foreign)
                   for fd in os.listdir("/proc/self/fd"))

    store, other = Store(foreign), Store(foreign)
    view = store.value(0)
    assert is_open()
    store.close()
    del other
    assert is_open() and view.tobytes() == PACKED[0]
    del view
    assert not is_open()
    with lmdb.open(foreign, subdir=False, readonly=True, lock=False) as environment:
        assert environment.stat()["entries"] == 13


@pytest.mark.parametrize("link", [os.symlink, os.link, None])
def test_two_stores_on_one_file(foreign, tmp_path, link):
    other = str(tmp_path / "other.lmdb") if link else os.path.join(os.path.dirname(foreign), ".", "foreign.lmdb")
    if link:
        link(foreign, other)
    first, second = Store(foreign), Store(other)
    assert contents(first) == contents(second) == PACKED
    first.close()
    assert contents(second) == PACKED


def test_a_file_that_is_replaced_stays_what_it_was_for_those_who_have_it_open(foreign, tmp_path):
    store = Store(foreign)
    os.replace(write_lmdb(tmp_path / "new.lmdb", {b"00000000": b"new"}), foreign)
    assert contents(store) == PACKED and contents(Store(foreign)) == [b"new"]


@pytest.mark.parametrize("fixture", ["foreign", "ours"])
def test_pickling(fixture, request):
    store = Store(request.getfixturevalue(fixture))
    expected = contents(store)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert contents(pickle.loads(pickle.dumps(store, protocol))) == expected
    assert contents(store) == expected


@pytest.fixture
def large(ours, monkeypatch):
    """What opens as a file of 1.28 million records, whose columns take 90 MB."""
    count = 1_280_000
    small = Store(ours)._records
    names = np.full(count, b"n00000000/n00000000_0000000.JPEG")
    columns = {name: np.arange(count, dtype=dtype) for name, dtype in index._DTYPES.items()}
    small.index = Index(**columns, name=names, meta=small.index.meta)
    monkeypatch.setattr("dataflows.storage.store._open_records", lambda *_: small)
    return ours


@pytest.mark.parametrize("make", [
    Store, LMDBDataset, LMDBIterDataset, lambda path: LMDBLoader(path, 4), lambda path: LMDBIterLoader(path, 4),
    lambda path: LMDBIterLoader(path, 4, worker_type="process", num_workers=2, transform=CenterCrop(8))],
    ids=["Store", "LMDBDataset", "LMDBIterDataset", "LMDBLoader", "LMDBIterLoader", "processes"])
def test_a_pickle_is_small_whatever_the_file(large, make):
    one = make(large)
    for name in ("classes", "targets", "labels", "dataflow"):
        getattr(one, name, None)  # what was read once is not sent either
    assert len(pickle.dumps(one)) < 10_000
    assert len(pickle.loads(pickle.dumps(one))) == len(one) >= 320_000


@pytest.mark.parametrize("fixture", ["foreign", "ours"])
def test_a_copy_shares_what_was_read(fixture, request, monkeypatch):
    store = Store(request.getfixturevalue(fixture))
    expected = contents(store)
    monkeypatch.setattr("dataflows.storage.store._open_records", None)
    monkeypatch.setattr("dataflows.storage.records.check_tree", None)
    for other in (copy.deepcopy(store), copy.copy(store)):
        store.close()
        assert contents(other) == expected and other.index is store.index
        other.close()
        assert contents(store) == contents(other) == expected


@pytest.fixture
def another(uint8_lmdb, tmp_path):
    """A function that puts another file, or another index, in a file's place."""
    def put(path, what):
        if what == "no index":
            os.unlink(index_path(path))
        elif what == "index":
            found = load_index(path, path)
            label = found.label.copy()
            label[3] += 1
            os.replace(write_index(dataclasses.replace(found, label=label), path), index_path(path))
        else:
            for name in ("train.lmdb", "train.lmdb.index.npz"):
                shutil.copy(uint8_lmdb / name, tmp_path)
            os.replace(tmp_path / "train.lmdb.index.npz", index_path(path))
            os.replace(tmp_path / "train.lmdb", path)
    return put


@pytest.mark.parametrize("what", ["file", "index", "no index"])
def test_another_file_where_a_pickle_is_loaded_is_refused(ours, another, what):
    pickled = pickle.dumps(Store(ours))
    another(ours, what)
    store = pickle.loads(pickled)
    assert len(store) == 10
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{ours}, or its index, is not what it was.* again"):
            store.value(0)


def test_another_file_without_an_index_is_refused(foreign, tmp_path):
    pickled = pickle.dumps(Store(foreign))
    os.replace(write_lmdb(tmp_path / "new.lmdb", dict(zip(KEYS, PACKED[::-1]))), foreign)
    with pytest.raises(ValueError, match="is not what it was"):
        contents(pickle.loads(pickled))


def test_a_worker_says_that_the_file_is_another_one(ours, another):
    dataset = LMDBDataset(ours)
    another(ours, "file")
    batches = iter(DataLoader(dataset, num_workers=1, multiprocessing_context="spawn"))
    with pytest.raises(ValueError, match="is not what it was"):
        next(batches)
    batches._shutdown_workers()  # the error's traceback holds them


def test_the_warning_of_a_file_without_a_list_is_not_repeated_by_its_pickle(tmp_path, caplog):
    store = Store(write_lmdb(tmp_path / "a.lmdb", dict(zip(KEYS, PACKED)), keys=None))
    assert contents(pickle.loads(pickle.dumps(store))) == PACKED and len(caplog.records) == 1


# Threads and forks.

def run_threads(work, count=4):
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


@pytest.fixture
def eager_threads():
    """Threads that take turns as often as the interpreter can."""
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(previous)


def test_threads_share_a_store(foreign, eager_threads):
    store = Store(foreign)

    def read():
        for _ in range(20):
            assert contents(store) == PACKED

    run_threads(read)
    assert contents(store) == PACKED


def test_threads_open_and_close_as_they_like(foreign, eager_threads):
    def open_and_read():
        for _ in range(150):
            store = Store(foreign)
            assert store.value(3).tobytes() == PACKED[3]
            store.close()

    run_threads(open_and_read)


def test_views_outlive_the_thread_that_made_them(foreign):
    store, views = Store(foreign), []
    run_threads(lambda: views.extend(store.value(i) for i in range(12)), count=2)
    store.close()
    assert sorted(view.tobytes() for view in views) == sorted(PACKED * 2)


def test_a_fork_reads_as_its_parent_does(foreign):
    store = Store(foreign)
    expected = contents(store)
    assert in_child(lambda: contents(store) == expected) == 0
    assert contents(store) == expected
    assert in_child(lambda: contents(Store(foreign)) == expected and contents(store) == expected) == 0
    assert in_child(lambda: in_child(lambda: contents(store) == expected) == 0 and contents(store) == expected) == 0
    assert contents(store) == expected


def test_views_taken_before_a_fork_stay_valid_on_both_sides(foreign):
    store = Store(foreign)
    views = [store.value(i) for i in range(12)]
    values = PACKED

    def read_both():
        return [view.tobytes() for view in views] == values and contents(store) == values

    assert in_child(lambda: [view.tobytes() for view in views] == values) == 0
    assert in_child(read_both) == 0
    assert read_both()


def test_a_fork_while_threads_read(foreign):
    store, done = Store(foreign), threading.Event()

    def read():
        while not done.is_set():
            contents(store)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(30):
            assert in_child(lambda: contents(store) == PACKED and contents(Store(foreign)) == PACKED) == 0
    finally:
        done.set()
        thread.join()


# Without a map.

def mapped(path):
    with open("/proc/self/maps", errors="replace") as maps:
        return os.path.realpath(path) in maps.read()


def test_with_an_index_pread_maps_nothing(ours):
    expected = contents(Store(ours))
    gc.collect()
    store = Store(ours, io="pread", verify=True)
    store.will_need([1, 2])
    assert contents(store) == expected and not mapped(ours)
    mapping = Store(ours, io="mmap")
    assert contents(mapping) == expected and mapped(ours)


def test_with_an_index_a_file_may_be_open_elsewhere_in_this_process(ours):
    """liblmdb, which refuses that, is not asked."""
    with lmdb.open(ours, subdir=False, readonly=True, lock=False) as environment:
        assert len(contents(Store(ours))) == environment.stat()["entries"] - 1


@pytest.fixture
def huge(ours):
    """The same records in a file of 64 GB, nearly all of it a hole, so that memory has no room for its map."""
    os.truncate(ours, 64 * 2**30)
    index = load_index(ours, "none")
    meta = dataclasses.replace(index.meta, file_size=os.path.getsize(ours))
    os.replace(write_index(dataclasses.replace(index, meta=meta), ours), index_path(ours))
    return ours


def test_a_limit_on_memory_that_a_map_does_not_fit_into(huge, caplog):
    with limited_memory():
        assert Store(huge, io="pread").value(3).nbytes == Store(huge).index.nbytes[3]
        caplog.clear()
        paged_file._unmapped.clear()
        store = Store(huge)
        assert [len(value) for value in contents(store)] == store.index.nbytes.tolist()
        store.close()
        assert store.value(3).nbytes and Store(huge).value(4).nbytes
        [said] = [entry.getMessage() for entry in caplog.records]
        assert huge in said and "Cannot allocate memory" in said and "io='pread'" in said
        with pytest.raises(OSError, match=f"{re.escape(huge)} cannot be mapped .*Leave io='mmap' out.*ulimit -v"):
            Store(huge, io="mmap")
    assert len(contents(Store(huge, io="mmap"))) == 10


@pytest.mark.parametrize("method", ["value", "values"])
@pytest.mark.parametrize("verify", [False, True])
def test_a_record_that_the_file_no_longer_has_is_named(ours, method, verify):
    store = Store(ours, io="pread", verify=verify)
    end = int(np.sort(store.index.offset)[-1])
    last = int(np.argmax(store.index.offset))
    os.truncate(ours, end + 5)
    with pytest.raises(RecordError, match=f"{re.escape(ours)}, key {last:08d}: it cannot be read: the file ends at "
                                          f"byte {end + 5:,}.*copy the file again") as info:
        [*store.values([last])] if method == "values" else store.value(last)
    assert isinstance(info.value.__cause__, OSError)
    assert store.value(0).nbytes  # the others are there


def test_a_bad_place_of_the_disk_is_named_by_key(uint8_lmdb):
    index = load_index(*[str(uint8_lmdb / "train.lmdb")] * 2)
    bad = int(index.offset[7]) + 100
    with mounted("failing_file_system.py", uint8_lmdb, bad, bad + 1) as mountpoint:
        path = os.path.join(mountpoint, "train.lmdb")
        message = f"{re.escape(path)}, key 00000007: it cannot be read: Input/output error"
        store = Store(path)  # by FUSE, without a map
        with pytest.raises(RecordError, match=message):
            store.value(7)
        assert store.value(12).nbytes == index.nbytes[12]
        assert store.will_need(list(range(23)))[0] == index.nbytes.sum()  # leaves it to those who read
        for options in ({}, {"worker_type": "process", "num_workers": 2}):
            with LMDBLoader(path, 5, transform=CenterCrop(32), **options) as loader:
                with pytest.raises(RecordError, match=message):
                    list(loader)
        [unreadable] = describe(path)["sample"]["unreadable"]
        assert unreadable["key"] == "00000007" and re.match(message, unreadable["error"])
        [line] = verify(path, progress=False).bad
        assert line.startswith("key 00000007") and "Input/output error" in line
        with pytest.raises(OSError, match="cannot be mapped into memory: No such device"):
            Store(path, io="mmap")
    with mounted("failing_file_system.py", uint8_lmdb, 4096, 4100) as mountpoint:
        path = os.path.join(mountpoint, "train.lmdb")
        with pytest.raises(OSError, match=f"Input/output error: '{re.escape(path)}'"):
            Store(path)


# What an index and its file have to do with each other.

@pytest.mark.parametrize("open_it", [Store, describe, lambda path: verify(path, progress=False)],
                         ids=["Store", "info", "verify"])
def test_the_index_is_found_beside_the_file_that_a_link_leads_to(ours, tmp_path, open_it):
    (tmp_path / "links").mkdir()
    link, second = tmp_path / "links" / "a.lmdb", tmp_path / "links" / "b.lmdb"
    os.symlink("../val.lmdb", link)
    os.symlink("a.lmdb", second)
    folder = tmp_path / "links" / "folder"
    folder.mkdir()
    os.symlink(ours, folder / "data.mdb")
    linked = tmp_path / "linked"
    os.symlink(folder, linked)
    for path in (link, second, folder, linked):
        found = open_it(path)
        if open_it is Store:
            assert found.index_path == index_path(ours) and contents(found) == contents(Store(ours))
        elif open_it is describe:
            assert found["index"] == index_path(ours) and found["records"] == 10
        else:
            assert found.records == 10 and not found.bad


def test_an_index_beside_the_link_is_the_first_choice(ours, tmp_path, jpeg_lmdb):
    link = str(tmp_path / "a.lmdb")
    os.symlink(ours, link)
    shutil.copy(index_path(ours), index_path(link))
    assert Store(link).index_path == index_path(link)
    shutil.copy(jpeg_lmdb / "val.lmdb.index.npz", index_path(link))
    refused(link, index_path(link), "another file")
    os.unlink(index_path(link))
    os.symlink("nowhere", index_path(link))
    refused(link, index_path(link), "is a link to", "nowhere, which is not there")


def test_a_folder_has_its_index_beside_it(ours, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.move(ours, folder / "data.mdb")
    shutil.move(index_path(ours), index_path(str(folder)))
    os.symlink(folder, tmp_path / "link")
    for path in (folder, tmp_path / "link"):
        assert Store(path).index.count == 10


def test_a_truncated_file_with_an_index_is_called_truncated(ours):
    size = os.path.getsize(ours)
    for length in (8192, size // 2, size - 1):
        os.truncate(ours, length)
        refused(ours, f"is truncated: it has {length:,} bytes and LMDB's header states {size:,}")
        with pytest.raises(ValueError, match=f"truncated: it has {length:,} bytes .* states {size:,}"):
            verify(ours, progress=False)
    os.truncate(ours, 0)
    refused(ours, "it has 0 bytes, which is shorter than LMDB's header")


def test_a_file_that_became_longer(ours):
    size = os.path.getsize(ours)
    with open(ours, "ab") as file:
        file.write(bytes(5000))
    refused(ours, f"is longer than it was: it has {size + 5000:,} bytes, and {size:,}", f"truncate -s {size}")
    os.truncate(ours, size)
    assert len(Store(ours)) == 10


def test_a_file_that_was_written_to_after_its_index(ours):
    with lmdb.open(ours, subdir=False, map_size=2**26) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000010", b"x" * 100_000)
    os.utime(index_path(ours), (1, 1))  # by hand: a file system may count its times in steps
    refused(ours, index_path(ours), "another file", "the LMDB is the newer one", "Remove it")
    os.utime(index_path(ours))
    refused(ours, index_path(ours), "another file", "the index is the newer one", "Remove it")


def test_another_number_of_records(ours):
    index = load_index(ours, ours)
    fewer = Index(**{field.name: getattr(index, field.name)[:9] for field in dataclasses.fields(Index)
                     if field.name != "meta"}, meta=index.meta)
    os.replace(write_index(fewer, ours), index_path(ours))
    refused(ours, "another file", "the file holds 10 records, and the index 9")


def test_a_first_record_that_was_damaged(ours):
    with open(ours, "rb+") as file:
        file.seek(int(load_index(ours, ours).offset[0]) + 50)
        file.write(b"damage")
    refused(ours, "another file", "record 00000000 has another checksum", "dataflows verify")
    assert [line[:12] for line in verify(ours, progress=False).bad] == ["key 00000000"]


@pytest.mark.parametrize("version, words", [(1, "an older"), (4, "a newer one. Update this package"), ("x", "older")])
def test_an_index_of_another_version(ours, monkeypatch, version, words):
    index = load_index(ours, ours)
    monkeypatch.setattr("dataflows.storage.index.VERSION", version)
    os.replace(write_index(index, ours), index_path(ours))
    monkeypatch.undo()
    refused(ours, index_path(ours), f"of version {version!r}, and this package reads versions 2 and 3", words,
            "Remove it")


def test_an_index_that_may_not_be_read_is_not_called_damaged(ours):
    """Removing it, as the error of a damaged one says, would be wrong."""
    with mounted("failing_file_system.py", os.path.dirname(ours), 0, 1, ".npz") as mountpoint:
        path = os.path.join(mountpoint, "val.lmdb")
        with pytest.raises(OSError, match=f"Input/output error: '{re.escape(index_path(path))}'"):
            Store(path)
