"""The open LMDB of a process: which files it refuses, and what threads, forks, pickles and views may do."""
import contextlib
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
from conftest import make_photo
from tensorpack.dataflow import DataFromList

from dataflows.index import index_path
from dataflows.quiet import DataFlow, LMDBSerializer  # noqa: F401  (imports tensorpack without its output)
from dataflows.store import Store
from dump_imagenet import dump_split

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
    give_up = time.monotonic() + 15
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
