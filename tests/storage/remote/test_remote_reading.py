"""Data sets at URLs: the same records, batches and states as of local files, by few requests."""
import gc
import multiprocessing
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from dataflows import RandomResizedCrop
from dataflows.errors import NoChecksums
from dataflows.storage.remote import backend, pool
from dataflows.storage.remote.urls import is_url
from dataflows.storage.store import Store
from dump_imagenet import dump_split
from helpers.batches import frozen
from helpers.waiting import eventually
from helpers.web_server import WebServer
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

pytest.importorskip("aiohttp")
TIMEOUT_SECONDS = 60
CROP = RandomResizedCrop(16)


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
    """train.lmdb, and the same in three shards, with their manifest."""
    target = tmp_path_factory.mktemp("served")
    for shards in (None, 3):
        dump_split(photos, target, "train", shards=shards, progress=False)
    return target


@pytest.fixture
def server(folder):
    with WebServer(folder) as serving:
        yield serving


def test_every_record_is_that_of_the_file(server, folder):
    far, near = Store(f"{server.url}/train.lmdb"), Store(folder / "train.lmdb")
    assert [far.value(i).tobytes() for i in range(len(far))] == [near.value(i).tobytes() for i in range(len(near))]
    assert far.fingerprint() == near.fingerprint()
    assert far.index_path == f"{server.url}/train.lmdb.index.npz" and far.files == [far.path]
    value = far.value(0)
    assert value.dtype == np.uint8 and not value.flags.writeable


@pytest.mark.parametrize("path", ["train.lmdb", "train.manifest.json", "list"])
@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_batches_and_states_are_those_of_the_local_file(server, folder, cls, path):
    def loader(root):
        names = [f"train-{k:05d}-of-00003.lmdb" for k in range(3)]
        return cls([f"{root}/{name}" for name in names] if path == "list" else f"{root}/{path}", 4, transform=CROP,
                   num_workers=2, seed=3)

    with loader(server.url) as far, loader(folder) as near:
        for _ in range(2):
            assert frozen(far) == frozen(near)
        for _, _ in zip(range(3), zip(far, near)):
            assert far.state_dict() == near.state_dict()
        state = far.state_dict()
    with loader(server.url) as far, loader(folder) as near:  # what was interrupted there goes on here, and back
        far.load_state_dict(state), near.load_state_dict(state)
        assert frozen(far) == frozen(near)


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_worker_processes_give_the_batches_of_threads(server, folder, cls):
    with cls(folder / "train.lmdb", 4, transform=CROP, num_workers=2) as near:
        expected = frozen(near)
    with cls(f"{server.url}/train.lmdb", 4, transform=CROP, num_workers=2, worker_type="process") as far:
        assert frozen(far) == expected


@pytest.mark.parametrize("cls, method", [(LMDBDataset, "fork"), (LMDBIterDataset, "fork"), (LMDBDataset, "spawn")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_of_a_data_loader_read_after_their_parent_has(server, folder, cls, method):
    def targets(path, method):
        dataset = cls(path, transform=CROP)
        next(iter(dataset))
        loader = torch.utils.data.DataLoader(dataset, 4, num_workers=2, multiprocessing_context=method,
                                             timeout=TIMEOUT_SECONDS)
        return [labels.tolist() for _, labels in loader]

    assert targets(f"{server.url}/train.lmdb", method) == targets(os.fspath(folder / "train.lmdb"), "fork")


FORKED = """
import sys, torch
from dataflows.storage.remote import backend
from uint_lmdb_loader import LMDBDataset

class Names(LMDBDataset):
    def __getitems__(self, numbers):
        super().__getitems__(numbers)
        from dataflows.storage.remote import connection
        return [{type(one._filesystem).__name__ for one in connection._connections.values()} for _ in numbers]

dataset = Names(sys.argv[1])
if sys.argv[2] == "read":
    dataset[0]
found = set.union(*(names for batch in torch.utils.data.DataLoader(dataset, 4, num_workers=2, collate_fn=list,
    timeout=50, multiprocessing_context="fork") for names in batch))
print(*found)
"""


@pytest.mark.parametrize("parent, expected", [("opened", "FsspecStore"), ("read", "HTTPFileSystem")])
def test_forked_workers_use_obstore_unless_their_parent_has(server, parent, expected):
    pytest.importorskip("obstore")
    done = subprocess.run([sys.executable, "-c", FORKED, f"{server.url}/train.lmdb", parent], text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.stdout.split(), done.returncode) == ([expected], 0), done.stderr


def test_a_forked_process_without_another_package_is_told_so_at_once(monkeypatch):
    monkeypatch.setattr(backend, "_lost", True)
    monkeypatch.setattr(backend, "_has", lambda package: package in ("obstore", "fsspec"))
    with pytest.raises(ImportError, match="forked from one that has used obstore.*pip install s3fs.*spawn"):
        backend.open_filesystem("s3://bucket/train.lmdb", {}, opening=False)


def test_neighbours_come_by_one_request_and_are_asked_for_once(server):
    store = Store(f"{server.url}/train.lmdb")
    before = server.gets(".lmdb")
    numbers = list(range(len(store)))
    store.will_need(numbers)
    assert sum(len(value) for value in store.values(numbers)) == store.index.nbytes.sum()
    store.will_need(numbers)  # they are here
    assert server.gets(".lmdb") == before + 1
    store.close()


def test_what_waits_in_memory_is_bounded_and_what_was_given_up_is_read_all_the_same(server, folder, monkeypatch):
    store = Store(f"{server.url}/train.lmdb")
    small = pool.Pool(2 * int(store.index.nbytes.max()))
    monkeypatch.setattr("dataflows.storage.remote.remote_file.pool", lambda: small)
    numbers = list(range(len(store)))
    store.will_need(numbers)
    assert small._nbytes <= small.capacity
    near = Store(folder / "train.lmdb")
    assert all((far == value).all() for far, value in zip(store.values(numbers), near.values(numbers)))
    store.close()
    assert small._nbytes == 0


def test_iterations_that_end_early_leave_nothing_in_memory(server):
    loader = LMDBLoader(f"{server.url}/train.lmdb", 4, transform=CROP, num_workers=2)
    next(iter(loader))
    loader.close()
    assert pool.pool()._nbytes == 0


def test_a_copy_in_another_process_reads_with_its_own_connection(server, folder):
    store = Store(f"{server.url}/train.lmdb", storage_options={"headers": {"X-Name": "value"}})
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.value(3) == store.value(3)).all()
    context = multiprocessing.get_context("fork")
    received, sent = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sent.send(store.value(5).tobytes()))
    child.start()
    assert received.poll(TIMEOUT_SECONDS) and received.recv() == Store(folder / "train.lmdb").value(5).tobytes()
    child.join(TIMEOUT_SECONDS)


def test_damage_is_found_as_in_local_files(server, folder, tmp_path):
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    server.folder = tmp_path
    with open(tmp_path / "train.lmdb", "r+b") as file:
        file.truncate(os.path.getsize(tmp_path / "train.lmdb") - 4096)
    with pytest.raises(ValueError, match="train.lmdb is truncated"):
        Store(f"{server.url}/train.lmdb")
    (tmp_path / "train.lmdb").write_bytes(bytes(100_000))
    with pytest.raises(ValueError, match="does not start like a file of LMDB"):
        Store(f"{server.url}/train.lmdb")
    (tmp_path / "train.lmdb").write_bytes((folder / "train.lmdb").read_bytes())
    content = bytearray((folder / "train.lmdb.index.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "train.lmdb.index.npz").write_bytes(content)
    with pytest.raises(ValueError, match="index.npz is not a readable index"):
        Store(f"{server.url}/train.lmdb")
    (tmp_path / "train.lmdb.index.npz").unlink()
    with pytest.raises(NoChecksums, match=r"train.lmdb has no index http.*read by its index alone"):
        Store(f"{server.url}/train.lmdb")
    (tmp_path / "train.lmdb").unlink()
    with pytest.raises(FileNotFoundError, match="train.lmdb"):
        Store(f"{server.url}/train.lmdb")


def test_wrong_paths_and_options_are_refused_without_a_secret_in_the_message(server):
    with pytest.raises(ValueError, match="has a user or a password") as refused:
        Store("https://me:secret@example.com/train.lmdb")
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="signed URL is of one file") as refused:
        Store("https://example.com/train.lmdb?X-Amz-Signature=secret")
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="is a pattern, and files at URLs are not listed"):
        Store(f"{server.url}/train-*.lmdb")
    with pytest.raises(FileNotFoundError, match="s3:/bucket/train.lmdb: a URL has two slashes.*Give it as a text"):
        Store(pathlib.Path("s3://bucket/train.lmdb"))
    with pytest.raises(TypeError, match="storage_options must be a mapping"):
        Store("s3://bucket/train.lmdb", storage_options=["secret"])
    with pytest.raises(ValueError, match="give cache_dir, too"):
        Store("s3://bucket/train.lmdb", cache_bytes=5)
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        Store("nowhere://bucket/train.lmdb")


def test_any_protocol_of_fsspec_is_read(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        memory.pipe_file(f"/far/{name}", (folder / name).read_bytes())
    try:
        with LMDBLoader("memory://far/train.lmdb", 4, transform=CROP, num_workers=2) as far, \
                LMDBLoader(folder / "train.lmdb", 4, transform=CROP, num_workers=2) as near:
            assert frozen(far) == frozen(near)
    finally:
        memory.rm("/far", recursive=True)


def test_which_paths_are_urls():
    assert all(map(is_url, ("s3://b/k", "gs://b/k", "http://h/p", "memory://x")))
    assert not any(map(is_url, ("train.lmdb", "/a://b", "C://x", "a/s3://b", 5)))


def test_what_nobody_holds_any_more_leaves_memory(server):
    store = Store(f"{server.url}/train.lmdb")
    store.will_need(list(range(len(store))))
    assert pool.pool()._nbytes
    del store
    gc.collect()
    assert eventually(lambda: not pool.pool()._nbytes)


def test_reading_in_order_takes_few_requests(server, folder):
    """Records enter the shuffle in the order of the file, so neighbours come together."""
    with LMDBIterLoader(f"{server.url}/train.lmdb", 4, transform=CROP, num_workers=2, shuffle_buffer=8) as loader:
        before = server.gets(".lmdb")
        assert sum(len(labels) for _, labels in loader) == 23
        assert server.gets(".lmdb") - before <= 12  # and not 23: those of the first batches come one by one
