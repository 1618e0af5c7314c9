"""numba's part of tiling: compiled once, announced, kept where there is a place, and no image's fault when it fails."""
import ctypes
import os
import shutil
import subprocess
import sys

import pytest

from dataflows.jpeg import kernels
from dataflows.jpeg.tile import tile
from helpers.paths import ROOT
from helpers.photos import encode_jpeg, make_photo

TIMEOUT_SECONDS = 100
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
COMPILING, UNKEPT = "compiling what tiles JPEGs", "compiled code cannot be kept on the disk"


def run(*argv, code="", root=ROOT, environment=(), **options):
    """The dump's command line in a process of its own, after `code`."""
    command = [sys.executable, "-c", f"import sys\n{code}\nimport dump_imagenet\nsys.exit(dump_imagenet.main())", *argv]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root), **dict(environment)}
    return subprocess.run([*map(str, command)], cwd="/", env=variables, text=True, capture_output=True,
                          timeout=TIMEOUT_SECONDS, **options)


def arguments(photos, target, *more):
    return "--source", photos, "--target", target, "--split", "val", "--on-error", "skip", *more


def content(folder):
    return (folder / "val.lmdb").read_bytes()


def kept(folder):
    return [*folder.rglob("*.nbi")], [*folder.rglob("*.nbc")]


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    """A folder in which a dump has kept compiled code, and what that dump said."""
    folder = tmp_path_factory.mktemp("cache")
    done = run(*arguments(photos, tmp_path_factory.mktemp("first")), environment={"NUMBA_CACHE_DIR": folder})
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_compiling_is_announced_once_on_a_machine(photos, tiled_lmdb, cache, tmp_path):
    folder, told = cache
    assert told.count(COMPILING) == 1 and told.index(COMPILING) < told.index("writing val.lmdb")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = run(*arguments(photos, tmp_path), environment={"NUMBA_CACHE_DIR": folder})
    assert done.returncode == 0 and COMPILING not in done.stderr and UNKEPT not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before  # nor was any of it made anew
    assert all(kept(folder))
    assert content(tmp_path) == content(tiled_lmdb)


def test_what_is_kept_and_damaged_is_made_anew(photos, tiled_lmdb, cache, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(cache[0], folder)
    for path in kept(folder)[0]:
        os.truncate(path, 20)
    done = run(*arguments(photos, tmp_path, "--no-progress", "--trust"), environment={"NUMBA_CACHE_DIR": folder})
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1 and UNKEPT in done.stderr
    assert "0 skipped" not in done.stdout and content(tmp_path) == content(tiled_lmdb)


def test_a_full_disk_keeps_nothing(photos, tiled_lmdb, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], capture_output=True,
                          text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        done = run(*arguments(photos, tmp_path, "--no-progress", "--trust"), environment={"NUMBA_CACHE_DIR": folder})
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1 and UNKEPT in done.stderr
    assert "No space left" in done.stderr and content(tmp_path) == content(tiled_lmdb)


@pytest.fixture
def installed(tmp_path):
    """A copy of the package that may not be written into."""
    folder = tmp_path / "installed"
    shutil.copytree(ROOT / "dataflows", folder / "dataflows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dump_imagenet.py", folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def obey():
    """Takes from root its right to write what may not be written, from the next program on."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)


@pytest.mark.parametrize("home", ["nowhere", "a home"])
def test_a_package_that_cannot_be_written(photos, installed, home, tiled_lmdb, tmp_path):
    """Compiled code is kept in the user's own folder; where there is none, it is made in each process."""
    (tmp_path / "a home").mkdir()
    environment = {"HOME": tmp_path / home if home != "nowhere" else "/proc/nowhere"}
    done = run(*arguments(photos, tmp_path, "--trust"), root=installed, environment=environment, preexec_fn=obey)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(COMPILING) == 1 and done.stderr.count(UNKEPT) == (home == "nowhere")
    assert content(tmp_path) == content(tiled_lmdb)
    again = run(*arguments(photos, tmp_path, "--trust", "--overwrite"), root=installed, environment=environment,
                preexec_fn=obey)
    assert again.returncode == 0 and again.stderr.count(COMPILING) == (home == "nowhere")
    assert not [*installed.rglob("__pycache__")]


@pytest.mark.parametrize("code, words", [
    ("sys.modules['numba'] = None", "ModuleNotFoundError"),
    ("import numpy; numpy.__version__ = '99.0'", "ImportError"),
    ("sys.modules['llvmlite'] = None", "ModuleNotFoundError")], ids=["no numba", "another numpy", "no llvmlite"])
def test_without_numba_the_dump_is_refused_before_anything_is_written(photos, jpeg_lmdb, tmp_path, code, words):
    done = run(*arguments(photos, tmp_path / "out", "--no-progress"), code=code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dump-imagenet: tiled JPEGs need numba, and it does not work here (")
    assert words in done.stderr and "pip install --upgrade numba" in done.stderr and "--no-tiles" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
    done = run(*arguments(photos, tmp_path / "out", "--no-progress", "--no-tiles"), code=code)
    assert (done.returncode, done.stderr) == (0, "") and content(tmp_path / "out") == content(jpeg_lmdb)
    assert run(*arguments(photos, tmp_path / "pixels", "--format", "uint8"), code=code).returncode == 0


THREADS = """
import hashlib, pathlib, sys, threading
from dataflows.jpeg import tile
jpeg, found, said = pathlib.Path(sys.argv[1]).read_bytes(), [], []
gate = threading.Barrier(8)
def work():
    gate.wait()
    tile.make_ready(lambda: said.append("compiling"))
    found.append(hashlib.sha256(tile.tile(jpeg)).hexdigest())
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len({*found}), said)
"""


def test_threads_that_all_come_first_compile_once(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(make_photo(90, 120, 1)))
    done = subprocess.run([sys.executable, "-c", THREADS, str(tmp_path / "a.jpg")], cwd=ROOT, text=True,
                          capture_output=True, env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
                          timeout=TIMEOUT_SECONDS)
    assert (done.stdout, done.stderr) == ("8 1 ['compiling']\n", "")


def test_one_compilation_serves_all_kinds_of_jpegs():
    for number in range(4):
        tile(encode_jpeg(make_photo(70, 200 + number, number), subsampled=number % 2 == 0))
    tile(encode_jpeg(make_photo(70, 200, 5)[:, :, 1]))
    for kernel in (kernels.fill, kernels.unstuff, kernels.scan, kernels.write):
        assert len(kernel.signatures) == 1
