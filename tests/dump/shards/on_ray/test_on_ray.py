"""Shards as tasks of Ray: workers, machines and drivers are killed; nothing is lost, and nothing is left behind."""
import contextlib
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from dataflows.dump.shards.on_ray.running import running
from dataflows.errors import Refused
from helpers.dumps import WORK, dump, state
from helpers.object_storage import BUCKET, object_storage
from helpers.paths import ROOT
from helpers.photos import CLASSES, encode_jpeg, make_photo
from helpers.waiting import eventually

pytestmark = pytest.mark.clusters

SECONDS = 100
SHARDS = 6


def test_without_ray_the_remedy_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not os.path.isdir(os.path.join(path, "ray"))])
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(Refused, match="needs Ray, which is not installed here. Install it: pip install "
                                      "'imagenet-lmdb"):
        dump(photos, tmp_path / "new", shards=2, engine="ray")
    assert not (tmp_path / "new").exists()


def test_samples_of_a_program_are_refused(tmp_path):
    with pytest.raises(Refused, match="engine='ray' needs a source of files"):
        dump([(b"", 0)], tmp_path / "new", shards=1, classes=["a"], engine="ray")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"])
def test_an_address_at_which_nobody_listens(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(OSError, match=rf"cannot be reached at RAY_ADDRESS={re.escape(address)}: .* Correct it, or"):
        with running(1):
            pass


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Photos that take a while."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("large")
    for i, name in enumerate(CLASSES):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(4):
            (folder / "train" / name / f"{number}.jpg").write_bytes(encode_jpeg(make_photo(1200, 1500, 4 * i + number)))
    return folder


@pytest.fixture(scope="module")
def once(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("once")
    dump(source, folder, shards=SHARDS)
    return state(folder)


@pytest.fixture
def marked(monkeypatch):
    """The processes of this test, by a mark in their environment; those that are left are killed."""
    mark = secrets.token_hex(8)
    for name, value in {"OURS": mark, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def found():
        processes = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("OURS") == mark and process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
        return processes

    yield found
    for process in found():
        with contextlib.suppress(psutil.Error):
            process.kill()


@pytest.fixture
def short_folder(monkeypatch):
    """A folder for Ray's sockets, whose paths are long."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@contextlib.contextmanager
def driver(source, target, *options):
    command = [sys.executable, ROOT / "dump_imagenet.py", "--source", source, "--target", target, "--split", "train",
               "--shards", str(SHARDS), "--engine", "ray", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process):
    written = process.communicate(timeout=SECONDS)
    return process.returncode, *written


def kill_worker(found):
    """Kills one that is at a shard."""
    killed = []

    def kill():
        for process in [] if killed else found():
            with contextlib.suppress(psutil.Error):
                if not killed and "ray::dump" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process)
        return killed

    assert eventually(kill, SECONDS)


def facts(target):
    return sorted(path.name for path in (target / WORK).glob("*.facts"))


@pytest.mark.time_limit(400)
def test_on_this_machine(source, tmp_path, once, marked, short_folder):
    with driver(source, tmp_path) as process:
        assert eventually(lambda: facts(tmp_path), SECONDS)
        process.send_signal(signal.SIGKILL)
        end(process)
    assert eventually(lambda: not marked()), marked()
    left = {*short_folder.iterdir()}
    with driver(source, tmp_path) as process:
        code, told, shown = end(process)
    assert code == 0, shown
    assert "train.manifest.json: 12 images of 3 classes" in told
    assert "12/12 [" in shown and f"{SHARDS}/{SHARDS} shards" in shown
    assert state(tmp_path) == once and not (tmp_path / WORK).exists()
    assert eventually(lambda: not marked()), marked()
    assert {*short_folder.iterdir()} == left and not (Path.home() / ".ray" / "auth_token").exists()


@pytest.mark.time_limit(400)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # moto's own
def test_to_object_storage(source, tmp_path, once, marked, short_folder, monkeypatch):
    for package in ("moto", "s3fs", "boto3", "flask"):
        pytest.importorskip(package)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    scratch, there = tmp_path / "scratch", tmp_path / "there"
    with object_storage() as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        with driver(source, f"s3://{BUCKET}/ray", "--scratch", scratch) as process:
            kill_worker(marked)
            code, told, shown = end(process)
        assert code == 0, shown
        assert f"s3://{BUCKET}/ray/train.manifest.json: 12 images of 3 classes" in told
        there.mkdir()
        for key in storage.keys():
            storage.client().download_file(BUCKET, key, there / key.removeprefix("ray/"))
    assert state(there) == once and not [*scratch.iterdir()]
    assert eventually(lambda: not marked()), marked()


@pytest.mark.time_limit(400)
def test_on_several_machines(source, tmp_path, once, marked, short_folder, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with subprocess.Popen([sys.executable, ROOT / "tests/helpers/ray_cluster.py"], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as cluster:
        address = cluster.stdout.readline().strip()
        if not address:
            pytest.skip("Ray did not start: it gives each machine 30 s for that")
        monkeypatch.setenv("RAY_ADDRESS", address)
        with driver(source, tmp_path / "many") as process:
            kill_worker(marked)
            assert eventually(lambda: facts(tmp_path / "many"), SECONDS)
            process.kill()  # and the same command again
            end(process)
        with driver(source, tmp_path / "many") as process:
            kill_worker(marked)
            cluster.stdin.write("a machine\n")
            cluster.stdin.flush()
            assert cluster.stdout.readline() == "killed\n"
            code, told, shown = end(process)
        assert code == 0, shown
        assert state(tmp_path / "many") == once and not (tmp_path / "many" / WORK).exists()
        bad = source / "train" / CLASSES[0] / "bad.jpg"
        bad.write_bytes(b"no image")
        with driver(source, tmp_path / "bad") as process:
            code, told, shown = end(process)
        bad.unlink()
        assert code == 1 and "1 of 6 shards failed: train-0000" in shown and f"{bad}: " in shown, shown
        assert len(facts(tmp_path / "bad")) == SHARDS - 1  # all others are done
        assert len([*(tmp_path / "bad" / WORK).glob("*.count")]) == SHARDS  # and it was not tried again
        cluster.stdin.close()
        assert cluster.wait(SECONDS) == 0
    assert eventually(lambda: not marked()), marked()
