"""Servers that fail, stall, or send half of an answer: requests are repeated, and what stays wrong is an error."""
import time

import pytest

from dataflows import RandomResizedCrop
from dataflows.errors import RecordError
from dataflows.storage.remote import connection
from dataflows.storage.store import Store
from helpers.batches import frozen
from helpers.web_server import WebServer
from uint_lmdb_loader import LMDBLoader

pytest.importorskip("aiohttp")
CROP = RandomResizedCrop(16)
SOON_SECONDS = 30  # an error comes within the time-outs, on a busy machine


@pytest.fixture(params=["aiohttp", "obstore"])
def backend(request, monkeypatch):
    """Each package that serves http."""
    pytest.importorskip(request.param)
    from dataflows.storage.remote import backend

    monkeypatch.setattr(backend, "_has", lambda package: package in ("fsspec", request.param))
    for module in (connection,):
        monkeypatch.setattr(module, "_connections", {})
    monkeypatch.setattr(connection, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def server(tiled_lmdb, backend):
    with WebServer(tiled_lmdb) as serving:
        yield serving


@pytest.mark.parametrize("fault", [503, 500, 429, "reset", "short"])
def test_what_fails_for_a_while_is_asked_for_again(server, tiled_lmdb, fault):
    with LMDBLoader(f"{server.url}/train.lmdb", 4, transform=CROP, num_workers=2) as far, \
            LMDBLoader(tiled_lmdb / "train.lmdb", 4, transform=CROP, num_workers=2) as near:
        server.faults.extend([fault, fault, "", fault])
        assert frozen(far) == frozen(near)
        assert not server.faults


@pytest.mark.parametrize("fault", [503, "reset", "short"])
def test_opening_asks_again_too(server, fault):
    server.faults.extend([fault, "", fault, fault])
    assert len(Store(f"{server.url}/val.lmdb")) == 10


@pytest.mark.parametrize("fault", [503, "reset", "short"])
def test_what_keeps_failing_is_an_error_with_url_key_and_remedy(server, fault):
    with LMDBLoader(f"{server.url}/train.lmdb", 4, transform=CROP, num_workers=2, shuffle=False) as loader:
        server.always = fault
        with pytest.raises(RecordError, match=rf"{server.url}/train.lmdb, key 0000000\d: it cannot be read: the "
                                              r"request failed in 4 attempts .*Check the URL, the network"):
            next(iter(loader))
        server.always = ""
        assert len(list(loader)) == len(loader)  # and later it is there again


def test_a_stalled_server_is_an_error_after_the_time_out(server, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT_SECONDS", 0.3)
    store = Store(f"{server.url}/train.lmdb")
    server.always, started = "stall", time.monotonic()
    store.will_need([0, 1, 2])
    with pytest.raises(RecordError, match=r"failed in 4 attempts \(TimeoutError: no answer within 0.3 s\)"):
        store.value(1)
    with pytest.raises(OSError, match="no answer within 0.3 s"):
        Store(f"{server.url}/val.lmdb")
    assert time.monotonic() - started < SOON_SECONDS
    server.ended.set()
    store.close()


@pytest.mark.parametrize("status, error, words", [(404, FileNotFoundError, "no such file"),
                                                  (403, PermissionError, "may not be read"),
                                                  (401, PermissionError, "Check the credentials")])
def test_what_another_attempt_does_not_mend_is_asked_for_once(server, status, error, words):
    server.always = status
    with pytest.raises(error, match=words):
        Store(f"{server.url}/val.lmdb")
    assert server.gets() == 1


def test_a_server_without_ranges_is_refused(server):
    server.ranges = False
    with pytest.raises(OSError, match="does not serve ranges|Range request not supported"):
        Store(f"{server.url}/train.lmdb")


def test_nobody_listens(backend):
    with WebServer("/nowhere") as server:
        url = server.url
    with pytest.raises(OSError, match=rf"the request failed in 4 attempts.*{url}"):
        Store(f"{url}/val.lmdb")


def test_a_time_out_is_no_answer_to_who_is_behind_it(server, tiled_lmdb, monkeypatch):
    """A stretch that fails is asked for anew by whoever reads it next."""
    store, near = Store(f"{server.url}/train.lmdb"), Store(tiled_lmdb / "train.lmdb")
    server.always = 503
    store.will_need([0])
    with pytest.raises(RecordError):
        store.value(0)
    server.always = ""
    assert (store.value(0) == near.value(0)).all()
    store.close()
