"""A dump to object storage by its own API: parts of large files, credentials, and what is there then."""
import logging
import os

import numpy as np
import pytest

import dump_imagenet
from dataflows import RandomResizedCrop
from dataflows.storage.remote import backend, connection
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.upload import put_file
from dump_imagenet import dump_split
from helpers.batches import frozen
from helpers.object_storage import BUCKET, object_storage
from uint_lmdb_loader import LMDBLoader

for package in ("moto", "s3fs", "boto3", "flask"):
    pytest.importorskip(package)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # botocore's and moto's own


@pytest.fixture(scope="module")
def storage():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with object_storage() as serving:
        yield serving


@pytest.fixture(autouse=True)
def fresh_connections(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(connection, "_connections", {})


def test_a_data_set_goes_there_and_is_read_from_there(storage, photos, tmp_path):
    near = dump_split(photos, tmp_path / "near", "train", shards=3, progress=False)
    far = dump_split(photos, f"s3://{BUCKET}/in-shards", "train", shards=3, storage_options=storage.options,
                     progress=False)
    found = {key: size for key, size in storage.keys().items() if key.startswith("in-shards/")}
    assert found == {f"in-shards/{path.name}": path.stat().st_size for path in (tmp_path / "near").iterdir()}
    crop = RandomResizedCrop(16)
    with LMDBLoader(far.path, 4, transform=crop, num_workers=2, storage_options=storage.options) as there, \
            LMDBLoader(near.path, 4, transform=crop, num_workers=2) as here:
        assert frozen(there) == frozen(here)


def test_the_commands_take_credentials_of_the_environment(storage, photos, monkeypatch, capsys):
    from dataflows.__main__ import main

    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/command"
    assert dump_imagenet.main(["--source", os.fspath(photos), "--target", url, "--split", "val", "--no-progress"]) == 0
    assert main(["verify", f"{url}/val.lmdb", "--no-progress"]) == 0
    assert "all as they were written" in capsys.readouterr().out


@pytest.mark.parametrize("package, megabytes", [("obstore", 12), ("s3fs", 1)])
def test_files_arrive_whole_also_in_parts(storage, tmp_path, monkeypatch, package, megabytes):
    pytest.importorskip(package)
    monkeypatch.setattr(backend, "_has", lambda name: name in ("fsspec", package))
    content = np.random.default_rng(0).bytes(megabytes * 2**20 + 1)
    (tmp_path / "large").write_bytes(content)
    url, options = f"s3://{BUCKET}/large-{package}", RemoteOptions(storage.options)
    put_file(os.fspath(tmp_path / "large"), url, options)
    assert connection.connect(url, options).whole(url) == content
    etag = storage.client().head_object(Bucket=BUCKET, Key=f"large-{package}")["ETag"]
    assert ("-" in etag) == (megabytes > 10)  # it came in parts
