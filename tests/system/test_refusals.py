"""Dumps onto file systems that refuse precautions, such as flushes and locks. The work is done all the same.

The file system of refusing_file_system.py answers as others do: CIFS and 9p with EINVAL to a flushed folder, Lustre
without its option flock with ENOSYS to a lock.
"""
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys

import pytest

import dump_imagenet
from dataflows.dump.recovery.journal import Journal
from dataflows.dump.verify import verify
from dataflows.errors import Locked
from dataflows.storage.flush import flush
from helpers.fuse import mounted
from helpers.paths import ROOT
from helpers.waiting import eventually

FINAL = {"val.lmdb", "val.lmdb.index.npz"}


@contextlib.contextmanager
def refusing(folder, **refusals):
    with mounted("refusing_file_system.py", folder, json.dumps(refusals)) as mountpoint:
        yield pathlib.Path(mountpoint)


def run(photos, target, *more):
    command = [sys.executable, "dump_imagenet.py", "--source", str(photos), "--target", str(target), "--split", "val",
               "--no-progress", *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("refusals, told", [
    ({}, ""), (dict(fsyncdir="EINVAL"), ""), (dict(fsyncdir="EOPNOTSUPP"), ""), (dict(statfs="unknown"), ""),
    (dict(statfs="EOPNOTSUPP"), ""), (dict(fsync="EINVAL"), "refuses to flush files"),
    (dict(fsync="EOPNOTSUPP", fsyncdir="EINVAL"), "refuses to flush files"),
    (dict(flock="ENOSYS"), "has no locks (flock: Function not implemented)"),
    (dict(flock="EOPNOTSUPP"), "has no locks (flock: Operation not supported)"),
    (dict(flock="ENOLCK"), "has no locks (flock: No locks available)"),
    (dict(flock="ENOSYS", fsync="EINVAL", fsyncdir="EINVAL", statfs="unknown"), "has no locks")], ids=str)
def test_a_precaution_that_is_refused_is_no_failure(photos, tiled_lmdb, tmp_path, refusals, told):
    with refusing(tmp_path, **refusals) as target:
        done = run(photos, target)
        assert done.returncode == 0, done.stderr
        assert len(done.stderr.splitlines()) == len({"flock", "fsync"} & {*refusals}) and told in done.stderr
        assert names(target) == FINAL
        assert verify(target / "val.lmdb", progress=False).bad == []
    assert (tmp_path / "val.lmdb").read_bytes() == (tiled_lmdb / "val.lmdb").read_bytes()


def test_parts_need_no_locks_and_no_flushes(photos, tmp_path):
    """Each has a folder of its own, so nothing is to be warned of but flushes; what is left is begun anew."""
    with refusing(tmp_path, flock="ENOSYS", fsync="EINVAL", fsyncdir="EINVAL", statfs="unknown") as target:
        for part, code in (("0/2", 0), ("1/2", 0), ("1/2", 0)):
            done = run(photos, target, "--shards", "3", "--part", part)
            assert done.returncode == code and "locks" not in done.stderr, done.stderr
        left = target / "val.shards.partial" / "00000.left"
        left.mkdir()
        (left / "val-00000-of-00003.lmdb.partial").write_bytes(b"what a killed part has left")
        assert dump_imagenet.merge_shards(target, "val").count == 10
        assert len(names(target)) == 7 and verify(target / "val.manifest.json", progress=False).bad == []


@pytest.mark.parametrize("refusals", [dict(fsync="EIO"), dict(fsync="ENOSPC"), dict(fsyncdir="EIO"), dict(flock="EIO")],
                         ids=str)
def test_a_disk_that_fails_is_a_failure(photos, tmp_path, refusals):
    with refusing(tmp_path, **refusals) as target:
        done = run(photos, target)
        assert done.returncode in (1, 2) and os.strerror(getattr(errno, [*refusals.values()][0])) in done.stderr
        at = target if "fsyncdir" in refusals else target / "val.lmdb"  # what failed is named
        assert f": '{at}" in done.stderr, done.stderr
        assert not FINAL & names(target)
        if "fsyncdir" not in refusals:  # which comes when all is written
            assert names(target) == set()
    if "fsyncdir" in refusals:
        assert "what was written is kept" in done.stderr
        assert run(photos, tmp_path, "--resume").returncode == 0
    assert names(tmp_path) == (FINAL if "fsyncdir" in refusals else set())


def test_a_dump_without_locks_goes_on_where_it_was_interrupted(photos, tiled_lmdb, tmp_path):
    with refusing(tmp_path, flock="ENOSYS", fsyncdir="EIO") as target:
        assert run(photos, target).returncode == 1
        assert names(target) == {"val.lmdb.partial", "val.lmdb.index.npz.partial", "val.lmdb.journal"}
    with refusing(tmp_path, flock="ENOSYS", fsyncdir="EINVAL") as target:
        done = run(photos, target, "--resume")
        assert done.returncode == 0 and "going on from there" in done.stderr and names(target) == FINAL
    assert (tmp_path / "val.lmdb").read_bytes() == (tiled_lmdb / "val.lmdb").read_bytes()


def test_locks_that_work_keep_a_second_dump_out_there_too(photos, tmp_path):
    with refusing(tmp_path) as target:
        journal = Journal(str(target / "val.lmdb"))
        done = run(photos, target)
        assert done.returncode == 2 and "another dump writes this file" in done.stderr
        journal.close()
        # FUSE hides a file that is removed while it is open, until the kernel has told that it is closed.
        assert eventually(lambda: names(target) == set())


def test_a_lock_that_is_refused_as_cifs_does_is_held_by_another(tmp_path):
    with refusing(tmp_path, flock="EACCES") as target, pytest.raises(Locked, match="another dump writes this file"):
        Journal(str(target / "val.lmdb"))


def test_a_journal_that_cannot_be_locked_is_not_left_behind(tmp_path, monkeypatch):
    path = tmp_path / "val.lmdb.journal"

    def failing(fd, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(OSError, match="Input/output error"):
        Journal(str(tmp_path / "val.lmdb"))
    assert not path.exists()
    path.write_text("[1]\n")
    with pytest.raises(OSError, match="Input/output error"):
        Journal(str(tmp_path / "val.lmdb"))
    assert path.read_text() == "[1]\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_folder_that_may_be_written_but_not_read_is_not_flushed(tmp_path):
    code = "import os; from dataflows.storage.flush import flush; os.setuid(65534); print(flush('.'))"
    tmp_path.chmod(0o333)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=60)
    tmp_path.chmod(0o755)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_flush_says_whether_it_did(tmp_path):
    (tmp_path / "a").write_text("a")
    assert flush(str(tmp_path)) and flush(str(tmp_path / "a"))
    with pytest.raises(FileNotFoundError):
        flush(str(tmp_path / "b"))
