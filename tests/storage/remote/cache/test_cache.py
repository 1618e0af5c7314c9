"""Whole files of URLs in a folder: read by ranges until they are there, by no request then, and never wrong."""
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import pytest

from dataflows import RandomResizedCrop
from dataflows.storage.remote import connection
from dataflows.storage.remote.cache import fetching
from dataflows.storage.store import Store
from dump_imagenet import dump_split
from helpers.batches import frozen
from helpers.waiting import eventually
from helpers.web_server import WebServer
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

pytest.importorskip("aiohttp")
TIMEOUT_SECONDS = 60
CROP = RandomResizedCrop(16)


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    target = tmp_path_factory.mktemp("served")
    dump_split(photos, target, "train", shards=3, progress=False)
    return target


@pytest.fixture
def server(shards, monkeypatch):
    monkeypatch.setattr(connection, "PAUSE_SECONDS", 0.01)
    with WebServer(shards) as serving:
        yield serving


def complete(folder):
    """The entries that are whole."""
    return sorted(path for path in folder.glob("*.lmdb"))


def loader(server, folder, cls=LMDBLoader, **options):
    return cls(f"{server.url}/train.manifest.json", 4, transform=CROP, num_workers=2, cache_dir=folder, **options)


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_the_second_epoch_and_the_next_loader_read_by_no_request(server, shards, tmp_path, cls):
    with loader(server, tmp_path / "cache", cls) as far, \
            cls(shards / "train.manifest.json", 4, transform=CROP, num_workers=2) as near:
        assert frozen(far) == frozen(near)
        assert eventually(lambda: len(complete(tmp_path / "cache")) == 3)
        for part in far._reader.store._records._parts:
            assert eventually(lambda part=part: part._file._now() is part._file._local)
        before = server.gets(".lmdb")
        assert frozen(far) == frozen(near)
        assert server.gets(".lmdb") == before
    for entry, shard in zip(complete(tmp_path / "cache"), sorted(shards.glob("*.lmdb"))):
        assert entry.read_bytes() == shard.read_bytes()
    assert not list(tmp_path.glob("cache/*.partial"))
    with loader(server, tmp_path / "cache", cls) as far, \
            cls(shards / "train.manifest.json", 4, transform=CROP, num_workers=2) as near:
        before = server.gets(".lmdb")
        assert frozen(far) == frozen(near)
        assert server.gets(".lmdb") == before


def test_worker_processes_fetch_each_file_once(server, shards, tmp_path):
    with loader(server, tmp_path / "cache", worker_type="process") as far, \
            LMDBLoader(shards / "train.manifest.json", 4, transform=CROP, num_workers=2) as near:
        assert eventually(lambda: frozen(far) == frozen(near) and len(complete(tmp_path / "cache")) == 3)
    for entry, shard in zip(complete(tmp_path / "cache"), sorted(shards.glob("*.lmdb"))):
        assert entry.read_bytes() == shard.read_bytes()


def test_what_does_not_fit_is_read_by_ranges_and_nothing_is_removed_for_it(server, shards, tmp_path, caplog):
    sizes = [path.stat().st_size for path in sorted(shards.glob("*.lmdb"))]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mine.lmdb").write_bytes(b"mine")
    with loader(server, tmp_path / "cache", cache_bytes=sizes[0] + sizes[1]) as far, \
            LMDBLoader(shards / "train.manifest.json", 4, transform=CROP, num_workers=2) as near:
        for _ in range(2):
            assert frozen(far) == frozen(near)
            assert eventually(lambda: "does not fit into cache_bytes=" in caplog.text)
        assert eventually(lambda: len(complete(tmp_path / "cache")) in (2, 3))
    entries = [path for path in complete(tmp_path / "cache") if path.name != "mine.lmdb"]
    assert sum(path.stat().st_size for path in entries) <= sizes[0] + sizes[1]
    assert (tmp_path / "cache" / "mine.lmdb").read_bytes() == b"mine"


def test_fetching_ends_with_the_loader_and_goes_on_with_the_next_one(server, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "PART", 8192)
    file = sorted(shards.glob("*.lmdb"))[0]
    url, size = f"{server.url}/{file.name}", file.stat().st_size
    store = Store(url, cache_dir=tmp_path)
    server.delay = 0.05
    store.value(0)
    [partial] = list_when_there(tmp_path, "*.partial")
    assert eventually(lambda: partial.stat().st_size >= 3 * 8192)
    store.close()
    reached = partial.stat().st_size
    assert reached < size and not complete(tmp_path)
    server.delay = 0
    before = len(server.requests)
    store.value(1)  # which opens it again
    assert eventually(lambda: complete(tmp_path))
    asked = [int(wanted[6:].partition("-")[0]) for _, _, wanted in server.requests[before:] if wanted]
    assert min(at for at in asked if at % 8192 == 0) >= reached // 8192 * 8192
    store.close()
    assert complete(tmp_path)[0].read_bytes() == file.read_bytes()


def list_when_there(folder, pattern):
    assert eventually(lambda: list(folder.glob(pattern)))
    return list(folder.glob(pattern))


KILLED = """
import sys
from dataflows.storage.remote.cache import fetching
from dataflows.storage.store import Store
fetching.PART = 8192
store = Store(sys.argv[1], cache_dir=sys.argv[2])
store.value(0)
print("reading", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_was_fetching_is_taken_over(server, shards, tmp_path):
    server.delay = 0.05
    file = sorted(shards.glob("*.lmdb"))[0]
    child = subprocess.Popen([sys.executable, "-c", KILLED, f"{server.url}/{file.name}", tmp_path],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"reading\n"
        [partial] = list_when_there(tmp_path, "*.partial")
        assert eventually(lambda: partial.stat().st_size > 8192)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=TIMEOUT_SECONDS)
    assert not complete(tmp_path)
    server.delay = 0
    store = Store(f"{server.url}/{file.name}", cache_dir=tmp_path)
    store.value(0)
    assert eventually(lambda: complete(tmp_path))
    store.close()
    assert complete(tmp_path)[0].read_bytes() == file.read_bytes() and not list(tmp_path.glob("*.partial"))


def _read_all(url, folder, ready, sent):
    ready.wait(TIMEOUT_SECONDS)
    store = Store(url, cache_dir=folder)
    sent.send([store.value(i).tobytes() for i in range(len(store))])
    eventually(lambda: complete(folder))
    store.close()


def test_two_processes_fill_it_at_once(server, shards, tmp_path):
    file, context = sorted(shards.glob("*.lmdb"))[1], multiprocessing.get_context("fork")
    ready, pipes, children = context.Event(), [], []
    for _ in range(2):
        received, sent = context.Pipe(duplex=False)
        children.append(context.Process(target=_read_all, args=(f"{server.url}/{file.name}", tmp_path, ready, sent)))
        children[-1].start()
        pipes.append(received)
    ready.set()
    near = Store(file)
    for received in pipes:
        assert received.poll(TIMEOUT_SECONDS)
        assert received.recv() == [near.value(i).tobytes() for i in range(len(near))]
    for child in children:
        child.join(TIMEOUT_SECONDS)
        assert child.exitcode == 0
    assert [path.read_bytes() for path in complete(tmp_path)] == [file.read_bytes()]
    assert not list(tmp_path.glob("*.partial"))


def test_what_comes_damaged_is_not_kept(server, shards, tmp_path, caplog):
    served = tmp_path / "served"
    shutil.copytree(shards, served)
    file = sorted(served.glob("*.lmdb"))[0]
    near = Store(file)
    at = int(near.index.offset[1]) + 100  # of a record that opening does not look at
    server.folder = served
    with open(file, "r+b") as content:
        content.seek(at)
        byte = content.read(1)
        content.seek(at)
        content.write(bytes([byte[0] ^ 1]))
    store = Store(f"{server.url}/{file.name}", cache_dir=tmp_path / "cache")
    store.value(0)
    assert eventually(lambda: "is not what" in caplog.text and "should be by its index" in caplog.text)
    store.close()
    assert not complete(tmp_path / "cache") and not list((tmp_path / "cache").glob("*.partial"))


def test_an_entry_that_was_cut_off_or_is_of_an_older_dump_is_not_used(server, shards, tmp_path, photos):
    file = sorted(shards.glob("*.lmdb"))[0]
    store = Store(f"{server.url}/{file.name}", cache_dir=tmp_path)
    store.value(0)
    assert eventually(lambda: complete(tmp_path))
    store.close()
    [entry] = complete(tmp_path)
    os.truncate(entry, 4096)
    store = Store(f"{server.url}/{file.name}", cache_dir=tmp_path)
    assert store.value(0).tobytes() == Store(file).value(0).tobytes()
    assert eventually(lambda: entry.read_bytes() == file.read_bytes())  # it was fetched anew
    store.close()
    served = tmp_path / "served"
    dump_split(photos, served, "train", shards=3, quality=80, shorter_side=50, progress=False)
    server.folder = served
    store = Store(f"{server.url}/{file.name}", cache_dir=tmp_path)
    assert store.value(0).tobytes() == Store(served / file.name).value(0).tobytes()
    assert eventually(lambda: len(complete(tmp_path)) == 2)
    store.close()


def test_a_folder_that_cannot_be_written_is_said_and_ranges_go_on(server, shards, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    store = Store(f"{server.url}/{sorted(shards.glob('*.lmdb'))[0].name}", cache_dir=tmp_path / "file")
    near = Store(sorted(shards.glob("*.lmdb"))[0])
    assert all(store.value(i).tobytes() == near.value(i).tobytes() for i in range(len(near)))
    assert eventually(lambda: "is read by ranges, for it cannot be kept" in caplog.text)
    store.close()


def test_an_entry_that_is_gone_is_read_by_ranges(server, shards, tmp_path):
    file = sorted(shards.glob("*.lmdb"))[0]
    store = Store(f"{server.url}/{file.name}", cache_dir=tmp_path)
    store.value(0)
    assert eventually(lambda: complete(tmp_path))
    store.close()
    store = Store(f"{server.url}/{file.name}", cache_dir=tmp_path / "gone")
    shutil.copytree(tmp_path, tmp_path / "gone", ignore=shutil.ignore_patterns("gone"))
    near, part = Store(file), store._records
    assert part.value(1).tobytes() == near.value(1).tobytes()  # from the folder
    shutil.rmtree(tmp_path / "gone")
    assert part.value(2).tobytes() == near.value(2).tobytes()  # what is open stays
    store.close()
    assert store.value(3).tobytes() == near.value(3).tobytes()
    store.close()
