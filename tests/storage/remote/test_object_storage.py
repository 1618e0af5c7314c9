"""Data sets in object storage, by its own API: with obstore and with s3fs, and with credentials of either kind."""
import logging
import os
import pickle
import subprocess
import sys

import pytest

from dataflows import RandomResizedCrop
from dataflows.dump.verify import verify
from dataflows.storage.remote import backend, connection
from dataflows.storage.store import Store
from dataflows.tools.advise import measure
from dataflows.tools.advise.advise import advise
from dataflows.tools.info.facts import describe
from dataflows.tools.sheet.page import write_page
from dataflows.tools.sheet.picture import contact_sheet
from helpers.batches import frozen
from helpers.object_storage import SECRET, object_storage
from uint_lmdb_loader import LMDBLoader

for package in ("moto", "s3fs", "boto3", "flask"):
    pytest.importorskip(package)

TIMEOUT_SECONDS = 60
CROP = RandomResizedCrop(16)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # botocore's and moto's own


@pytest.fixture(scope="module")
def storage():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with object_storage() as serving:
        yield serving


@pytest.fixture(scope="module")
def url(storage, tiled_lmdb):
    return storage.put(tiled_lmdb, "data")


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(connection, "_connections", {})
    monkeypatch.setattr(connection, "PAUSE_SECONDS", 0.01)


def used():
    return {opening: type(one._filesystem).__name__ for (_, _, opening), one in connection._connections.items()}


@pytest.mark.parametrize("package", ["obstore", "s3fs"])
def test_batches_are_those_of_the_local_file(storage, url, tiled_lmdb, monkeypatch, package):
    if package == "s3fs":
        monkeypatch.setattr(backend, "_has", lambda package: package != "obstore")
    else:
        pytest.importorskip("obstore")
    with LMDBLoader(f"{url}/train.lmdb", 4, transform=CROP, num_workers=2, storage_options=storage.options) as far, \
            LMDBLoader(tiled_lmdb / "train.lmdb", 4, transform=CROP, num_workers=2) as near:
        assert frozen(far) == frozen(near)
    assert used() == {True: "S3FileSystem", False: {"obstore": "FsspecStore", "s3fs": "S3FileSystem"}[package]}


def test_credentials_of_the_environment_are_used_and_go_into_no_pickle(storage, url, monkeypatch):
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    store = Store(f"{url}/val.lmdb")
    content = pickle.dumps(store)
    assert SECRET.encode() not in content
    assert len(pickle.loads(content).value(3)) == store.index.nbytes[3]
    store.close()


def test_tools_take_the_options_that_loaders_take(storage, url, tiled_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_WINDOW_S", 0.0)
    monkeypatch.setattr(measure, "_TURNS", 1)
    monkeypatch.setattr(connection, "TIMEOUT_SECONDS", 5)
    far, near, options = f"{url}/val.lmdb", tiled_lmdb / "val.lmdb", {"storage_options": storage.options}
    assert contact_sheet(far, count=2, **options).tobytes() == contact_sheet(near, count=2).tobytes()
    assert os.path.getsize(write_page(far, tmp_path / "page", count=2, **options))
    assert verify(far, progress=False, **options).records == describe(far, **options)["records"] == 10
    assert advise(far, num_workers=1, **options).measurements.images == 10


OBSTORE_ALONE = """
import sys
sys.modules["s3fs"] = None
from dataflows.storage.remote import backend
backend._has = lambda package: package != "s3fs"
from dataflows.storage.store import Store
store = Store(sys.argv[1])
print(len(store), len(store.value(3)))
"""


def test_obstore_alone_suffices(storage, url, tiled_lmdb):
    pytest.importorskip("obstore")
    done = subprocess.run([sys.executable, "-c", OBSTORE_ALONE, f"{url}/val.lmdb"], text=True, capture_output=True,
                          env={**os.environ, **storage.environment}, timeout=TIMEOUT_SECONDS)
    near = Store(tiled_lmdb / "val.lmdb")
    assert (done.returncode, done.stdout.split()) == (0, ["10", str(near.index.nbytes[3])]), done.stderr


def test_missing_credentials_are_said(storage, url):
    with pytest.raises(PermissionError, match=r"may not be read \(NoCredentialsError.*Check the credentials.*s3://bucke"):
        Store(f"{url}/val.lmdb", storage_options={"endpoint_url": storage.endpoint})


def test_errors_name_bucket_and_key_and_no_secret(storage, url):
    for path in ("s3://bucket/none.lmdb", "s3://nobucket/val.lmdb"):
        with pytest.raises(FileNotFoundError, match=path):
            Store(path, storage_options=storage.options)
    wrong = storage.options | {"endpoint_url": f"http://127.0.0.1:9/{SECRET}"}
    with pytest.raises(OSError, match="s3://bucket/data/val.lmdb") as failed:
        Store(f"{url}/val.lmdb", storage_options=wrong)
    assert SECRET not in str(failed.value)


def test_options_that_a_package_does_not_know_are_refused(storage, url):
    with pytest.raises((ValueError, OSError), match="secrte"):
        Store(f"{url}/val.lmdb", storage_options=storage.options | {"secrte": "x"})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(backend, "_has", lambda package: package == "fsspec")
    with pytest.raises(ImportError, match=r"reading s3:// needs s3fs.*pip install 'imagenet-lmdb\[remote\]'"):
        Store("s3://bucket/val.lmdb")


@pytest.mark.parametrize("options, understood", [
    ({}, True), ({"key": "a", "secret": "b", "token": "c"}, True), ({"anon": True}, True),
    ({"client_kwargs": {"region_name": "eu-west-1", "endpoint_url": "https://x"}}, True),
    ({"profile": "mine"}, False), ({"client_kwargs": {"verify": False}}, False)])
def test_which_options_obstore_gets(options, understood):
    pytest.importorskip("obstore")
    assert (backend._for_obstore("s3", options) is not None) == understood


@pytest.mark.parametrize("options, environment, found", [
    ({}, {}, False), ({"key": "a"}, {}, False), ({}, {"AWS_REGION": "eu-west-1"}, False),
    ({"key": "a", "endpoint_url": "https://x"}, {}, True), ({"anon": True}, {"AWS_DEFAULT_REGION": "eu-west-1"}, True),
    ({"client_kwargs": {"region_name": "eu-west-1"}}, {"AWS_ACCESS_KEY_ID": "a"}, True)])
def test_what_obstore_would_not_find_is_left_to_who_does(monkeypatch, options, environment, found):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert backend._finds_all("s3", options) == found
