"""Data sets at gs:// and az://, in emulators of Google's and Microsoft's object storage on this machine.

They need gcsfs and gcp-storage-emulator (pip), and adlfs (pip) and azurite (npm). CI has none of them.
"""
import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys

import pytest

from dataflows import RandomResizedCrop
from dataflows.storage.remote import connection
from helpers.batches import frozen
from helpers.waiting import eventually
from uint_lmdb_loader import LMDBLoader

TIMEOUT_SECONDS = 60
CROP = RandomResizedCrop(16)
pytestmark = pytest.mark.filterwarnings("ignore")  # of these packages
ACCOUNT = "devstoreaccount1"  # Azurite's own, with the key that its documentation publishes
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextlib.contextmanager
def running(*command):
    """A server that is told a free port, in place of PORT, while the body runs: the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([word.replace("PORT", str(port)) for word in command], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: _listens(port), TIMEOUT_SECONDS)
        yield port
    finally:
        server.kill()
        server.wait()


def _listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def google(monkeypatch):
    if not all(map(importlib.util.find_spec, ("gcsfs", "gcp_storage_emulator"))):
        pytest.skip("needs gcsfs and gcp-storage-emulator")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # which asks by gRPC, and the emulator has none
    with running(sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", "--port=PORT",
                 "--in-memory", "--default-bucket=bucket") as port:
        yield "gs", {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"}


@pytest.fixture
def microsoft(tmp_path):
    azurite = shutil.which("azurite-blob")
    if azurite is None or importlib.util.find_spec("adlfs") is None:
        pytest.skip("needs adlfs and azurite")
    with running(azurite, "--blobHost", "127.0.0.1", "--blobPort", "PORT", "--location", str(tmp_path),
                 "--skipApiVersionCheck") as port:
        yield "az", {"connection_string": f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
                                          f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"}


def put(protocol, options, folder):
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem(protocol, **options, skip_instance_cache=True)
    if protocol == "az":
        files.mkdir("bucket")
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        files.put_file(str(folder / name), f"bucket/data/{name}")
    return f"{protocol}://bucket/data/train.lmdb"


@pytest.mark.parametrize("cloud", ["google", "microsoft"])
def test_batches_are_those_of_the_local_file(cloud, request, tiled_lmdb, monkeypatch):
    monkeypatch.setattr(connection, "_connections", {})
    protocol, options = request.getfixturevalue(cloud)
    url = put(protocol, options, tiled_lmdb)
    with LMDBLoader(url, 4, transform=CROP, num_workers=2, storage_options=options) as far, \
            LMDBLoader(tiled_lmdb / "train.lmdb", 4, transform=CROP, num_workers=2) as near:
        assert frozen(far) == frozen(near)


def test_obstore_reads_by_the_environment(microsoft, tiled_lmdb, monkeypatch):
    pytest.importorskip("obstore")
    monkeypatch.setattr(connection, "_connections", {})
    protocol, options = microsoft
    url = put(protocol, options, tiled_lmdb)
    endpoint = options["connection_string"].split("BlobEndpoint=")[1].rstrip(";")
    for name, value in {"AZURE_STORAGE_CONNECTION_STRING": options["connection_string"],
                        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY,
                        "AZURE_STORAGE_ENDPOINT": endpoint, "AZURE_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    with LMDBLoader(url, 4, transform=CROP, num_workers=2) as far, \
            LMDBLoader(tiled_lmdb / "train.lmdb", 4, transform=CROP, num_workers=2) as near:
        assert frozen(far) == frozen(near)
    assert "FsspecStore" in {type(one._filesystem).__name__ for one in connection._connections.values()}
