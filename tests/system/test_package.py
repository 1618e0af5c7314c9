"""What the distributions hold. They are built here, from a copy of this folder, by the setuptools that is installed."""
import configparser
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import dataflows
import dump_imagenet
from helpers.paths import ROOT

NOT_SOURCES = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "demo", "*.lmdb*")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
TIMEOUT_SECONDS = 100


def build(kind, source, target):
    """The path of the "wheel" or "sdist" of a folder of sources."""
    target.mkdir()
    done = subprocess.run([sys.executable, "-W", "error", "-c", BUILD, f"build_{kind}", target], cwd=source, text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = target.iterdir()
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("package") / "sources", ignore=NOT_SOURCES)


@pytest.fixture(scope="module")
def sdist(sources):
    """The folder that the sdist unpacks to."""
    path = build("sdist", sources, sources.parent / "sdist")
    with tarfile.open(path) as tar:
        tar.extractall(sources.parent / "unpacked", filter="data")
    [folder] = (sources.parent / "unpacked").iterdir()
    assert f"{folder.name}.tar.gz" == path.name
    return folder


@pytest.fixture(scope="module")
def wheel(sources):
    """The content of the wheel: {name: bytes}."""
    return content(build("wheel", sources, sources.parent / "wheel"))


def content(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def modules():
    """All that is installed, by its path in this folder."""
    paths = [*ROOT.glob("dataflows/**/*.py"), *ROOT.glob("dataflows/**/*.css"), ROOT / "dataflows/py.typed",
             *ROOT.glob("*.py")]
    return {path.relative_to(ROOT).as_posix() for path in paths} - {"setup.py", "benchmark.py"}


def test_the_wheel_has_the_packages_and_root_modules_and_nothing_else(wheel):
    assert {name for name in wheel if ".dist-info/" not in name} == modules()
    assert {"dataflows/__main__.py", "dataflows/load/workers/parent.py", "dump_imagenet.py", "uint_lmdb_loader.py",
            "uint_lmdb_iterloader.py"} <= modules()


def test_the_wheel_has_the_console_script_and_the_license(wheel):
    described = {name.partition(".dist-info/")[2]: text.decode() for name, text in wheel.items()}
    scripts = configparser.ConfigParser()
    scripts.read_string(described["entry_points.txt"])
    assert dict(scripts["console_scripts"]) == {"dump-imagenet": "dump_imagenet:main"}
    assert callable(dump_imagenet.main)
    assert f"\nVersion: {dataflows.__version__}\n" in described["METADATA"]
    assert described["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()


def test_the_sdist_has_what_it_takes_to_test_and_to_demonstrate(sdist):
    names = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    generated = {name for name in names if name.startswith("imagenet_lmdb.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    folders = {path.relative_to(ROOT).as_posix() for folder in ("tests", "docs", "examples", "benchmarks")
               for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {"tests/system/test_package.py", "tests/conftest.py", "docs/design.md", "examples/train.py"} <= folders
    assert names - generated == modules() | folders | {
        "benchmark.py", "setup.py", "pyproject.toml", "MANIFEST.in", "Makefile", "constraints.txt",
        "constraints-torchvision.txt", "mkdocs.yml", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"}


def test_the_sdist_builds_the_same_wheel(sdist, wheel):
    assert content(build("wheel", sdist, sdist.parent.parent / "wheel of the sdist")) == wheel
