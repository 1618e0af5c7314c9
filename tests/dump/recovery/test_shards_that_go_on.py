"""A dump into shards that was interrupted or killed: finished shards stay, and the files are those of one run."""
import hashlib
import signal
import subprocess
import sys

import pytest

from dataflows.dump import one_file, write
from dataflows.errors import Refused
from dump_imagenet import dump_split
from helpers.paths import ROOT


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch):
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", 10_000)


def dump(source, target, **options):
    return dump_split(source, target, "train", progress=False, **options)


def state(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


class Interrupted:
    """A function whose call number `after` is Ctrl-C."""

    def __init__(self, function, after):
        self._function, self._left = function, after

    def __call__(self, *arguments, **options):
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt
        return self._function(*arguments, **options)


def test_an_interrupted_dump_goes_on_shard_by_shard(photos, tmp_path, monkeypatch):
    dump(photos, tmp_path / "once", shards=4)
    for after in (1, 3, 4):
        interrupted = Interrupted(one_file.read_back, after)
        with monkeypatch.context() as patch:
            patch.setattr(one_file, "read_back", interrupted)
            with pytest.raises(KeyboardInterrupt):
                dump(photos, tmp_path / f"after {after}", shards=4)
        assert "train.manifest.json" not in state(tmp_path / f"after {after}")
        assert len([*(tmp_path / f"after {after}").glob("*.lmdb")]) == after - 1
        if after > 1:
            with pytest.raises(Refused, match=r"resume=True goes on with it, and overwrite=True replaces it"):
                dump(photos, tmp_path / f"after {after}", shards=4)
        summary = dump(photos, tmp_path / f"after {after}", shards=4, resume=True)
        assert summary.count == 23 and summary.resumed >= 5 * (after - 1)
        assert state(tmp_path / f"after {after}") == state(tmp_path / "once")
        assert not (tmp_path / f"after {after}" / "train.shards.partial").exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from dataflows.dump import one_file, write
from dump_imagenet import dump_split
write._TRANSACTION_BYTES = 10_000
calls, prepare = [], one_file.publish.prepare
def killed(*arguments):
    calls.append(arguments)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    prepare(*arguments)
one_file.publish.prepare = killed
dump_split(sys.argv[1], sys.argv[2], "train", shards=5, progress=False)
"""


def test_a_killed_dump_goes_on(photos, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(photos), str(tmp_path / "killed"), str(ROOT / "tests")],
                            cwd=ROOT, timeout=100, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    dump(photos, tmp_path / "once", shards=5)
    dump(photos, tmp_path / "killed", shards=5, resume=True)
    assert state(tmp_path / "killed") == state(tmp_path / "once")


def test_a_finished_shard_is_not_written_again(photos, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr("dataflows.dump.shards.chain.merge", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
        with pytest.raises(OSError, match="no disk"):
            dump(photos, tmp_path, shards=3)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.lmdb")}
    assert len(before) == 3 and (tmp_path / "train.shards.partial").exists()
    assert dump(photos, tmp_path, shards=3, resume=True).resumed == 23
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.lmdb")} == before
    assert not caplog.records and not (tmp_path / "train.shards.partial").exists()
