"""Verifying a dump: any byte that changed is found, what it belongs to is named, and truncated files are refused."""
import errno
import os
import shutil
import subprocess
import sys
from zlib import crc32

import numpy as np
import pytest

from dataflows.__main__ import main
from dataflows.dump import verify as verifying
from dataflows.dump.verify import OUTSIDE, checksums, verify
from dataflows.errors import NoChecksums
from dataflows.storage.btree import locate, read_header
from dataflows.storage.environment import open_environment
from dataflows.storage.index import index_path, load_index
from dataflows.storage.store import Store
from dump_imagenet import dump_split
from helpers.paths import ROOT
from helpers.photos import encode_jpeg, make_photo


@pytest.fixture
def dumped(tiled_lmdb, tmp_path):
    """A copy of a dump, to be damaged."""
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(tiled_lmdb / name, tmp_path)
    return tmp_path / "val.lmdb"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A dump of two images, one of which is small enough to lie within a page of LMDB's tree."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "val" / "class").mkdir(parents=True)
    for i, side in enumerate((8, 90)):
        (folder / "val" / "class" / f"{i}.jpg").write_bytes(encode_jpeg(make_photo(side, side, i)))
    dump_split(folder, folder, "val", progress=False)
    return folder / "val.lmdb"


def flip(path, position, bits=1):
    with open(path, "rb+") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ bits]))


def check(path, **options):
    return verify(path, progress=False, **options)


@pytest.mark.parametrize("folder", ["jpeg_lmdb", "tiled_lmdb", "uint8_lmdb"])
@pytest.mark.parametrize("region_bytes", [1, 10_000, 8 * 2**20])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_dump_is_as_it_was_written(folder, region_bytes, threads, request, monkeypatch):
    monkeypatch.setattr(verifying, "_REGION_BYTES", region_bytes)
    path = request.getfixturevalue(folder) / "train.lmdb"
    report = check(path, num_threads=threads)
    assert report.bad == [] and (report.records, report.size) == (23, path.stat().st_size)
    assert "23 records" in str(report) and "all as they were written" in str(report)


def test_each_byte_of_the_lmdb_matters(tiny, tmp_path):
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(tiny.parent / name, tmp_path)
    path = str(tmp_path / "val.lmdb")
    index = load_index(path, path)
    places = [(start, start + size) for start, size in zip(index.offset.tolist(), index.nbytes.tolist())]
    for position in range(0, os.path.getsize(path), 3):
        flip(path, position, 1 << position % 8)
        bad, rest = checksums(path, index.nbytes, index.offset, index.crc32, num_threads=0, advance=len_of_nothing)
        hit = {number for number, (start, end) in enumerate(places) if start <= position < end}
        assert set(bad) == hit and (rest == index.meta.rest_crc32) == bool(hit)
        flip(path, position, 1 << position % 8)
    assert check(path).bad == []


def len_of_nothing(_):
    return 0


def test_each_byte_of_the_index_matters(tiny, tmp_path):
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(tiny.parent / name, tmp_path)
    for position in range(os.path.getsize(tmp_path / "val.lmdb.index.npz")):
        flip(tmp_path / "val.lmdb.index.npz", position)
        with pytest.raises(ValueError, match="val.lmdb.index.npz is not a readable index"):
            check(tmp_path / "val.lmdb")
        flip(tmp_path / "val.lmdb.index.npz", position)


def test_bad_records_are_named_by_key_and_file(dumped):
    index = load_index(str(dumped), str(dumped))
    for number in (2, 7):
        flip(dumped, int(index.offset[number] + index.nbytes[number] - 1))
    flip(dumped, 4096 + 200)  # of the second meta page
    report = check(dumped)
    assert report.bad == [f"key {number:08d} ({index.name[number].decode()}): its bytes are not what was written"
                          for number in (2, 7)] + [OUTSIDE]
    for line in report.bad:
        assert line in str(report)


def test_what_cannot_be_read_is_named_and_all_else_compared(dumped, monkeypatch):
    index = load_index(str(dumped), str(dumped))
    start, pread = int(index.offset[4]), os.pread

    def broken(fd, count, offset):
        if offset <= start + 10 < offset + count:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, count, offset)

    flip(dumped, int(index.offset[5]) + 50)
    monkeypatch.setattr(os, "pread", broken)
    first, second = check(dumped).bad
    assert first.startswith("key 00000004") and "Input/output error" in first
    assert second.startswith("key 00000005") and "not what was written" in second


@pytest.mark.parametrize("size", [0, 100, 4096, 9000, -1, -4096])
def test_a_truncated_file_is_refused_at_open(dumped, size):
    os.truncate(dumped, size if size >= 0 else os.path.getsize(dumped) + size)
    with pytest.raises(ValueError, match="val.lmdb (is truncated|cannot be read as an LMDB)"):
        check(dumped)
    with pytest.raises(ValueError):
        Store(dumped)
    os.unlink(index_path(str(dumped)))
    with pytest.raises(ValueError, match="truncated|cannot be read as an LMDB"):
        open_environment(str(dumped))


def test_places_of_records_that_cannot_be(dumped):
    index = load_index(str(dumped), str(dumped))
    for offset in (index.offset - index.offset.min() - 1, index.offset + 10**9, index.offset * 0 + 5000):
        with pytest.raises(ValueError, match="overlap, or reach beyond"):
            checksums(str(dumped), index.nbytes, offset, index.crc32, num_threads=0, advance=len_of_nothing)


# Exit codes.

def test_exit_codes(dumped, capsys):
    def run(path=dumped):
        code = main(["verify", str(path), "--no-progress"])
        return code, *capsys.readouterr()

    code, out, err = run()
    assert (code, err) == (0, "") and out.startswith(f"{dumped}: 10 records")
    flip(dumped, os.path.getsize(dumped) // 2)
    code, out, err = run()
    assert (code, err) == (1, "") and "these are bad:" in out
    os.truncate(dumped, 20_000)
    code, out, err = run()
    assert (code, out) == (1, "") and "truncated" in err
    os.unlink(index_path(str(dumped)))
    code, out, err = run()
    assert (code, out) == (2, "") and "has no index val.lmdb.index.npz" in err
    code, out, err = run(dumped.parent / "none.lmdb")
    assert (code, out) == (2, "") and "there is no LMDB file" in err
    with pytest.raises(NoChecksums):
        check(dumped)


def test_the_command_in_a_process_of_its_own(dumped):
    def run():
        return subprocess.run([sys.executable, "-m", "dataflows", "verify", str(dumped)], cwd=ROOT, text=True,
                              capture_output=True, timeout=60)

    done = run()
    assert done.returncode == 0 and "all as they were written" in done.stdout and "verifying: 100%" in done.stderr
    flip(dumped, 5000)
    assert run().returncode == 1


# Where LMDB's pages say that values are.

@pytest.mark.parametrize("folder", ["jpeg_lmdb", "uint8_lmdb"])
def test_values_are_located_as_lmdb_finds_them(folder, tmp_path, request):
    path = tmp_path / "train.lmdb"
    shutil.copy(request.getfixturevalue(folder) / "train.lmdb", path)
    store, content = Store(path), path.read_bytes()
    nbytes, offsets = locate(str(path))
    assert [content[at:at + size] for at, size in zip(offsets, nbytes)] == [store.value(i).tobytes() for i in range(23)]
    assert read_header(str(path)).entries == 24 and read_header(str(path)).nbytes == len(content)
    assert np.array([crc32(store.value(i)) for i in range(23)]).tolist() == load_index(
        str(request.getfixturevalue(folder) / "train.lmdb"), str(path)).crc32.tolist()


@pytest.mark.parametrize("content", [b"", b"hello", bytes(10_000), b"\x07" * 10_000])
def test_what_is_not_lmdb_is_refused(tmp_path, content):
    (tmp_path / "a.lmdb").write_bytes(content)
    with pytest.raises(ValueError, match="a.lmdb cannot be read as an LMDB file"):
        read_header(str(tmp_path / "a.lmdb"))
