"""The examples in docstrings run, in a folder such as a user has."""
import doctest
import importlib

import pytest

from helpers.paths import ROOT

PACKAGE = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "dataflows").rglob("*.py"))
MODULES = ["dump_imagenet", "uint_lmdb_loader", "uint_lmdb_iterloader", "benchmark",
           *(name.removesuffix(".__init__") for name in PACKAGE if not name.endswith("__main__"))]
# What users call is shown.
SHOWN = {"dataflows.dump.split.dump_split", "dataflows.dump.split.check_split", "uint_lmdb_loader.LMDBLoader",
         "uint_lmdb_iterloader.LMDBIterLoader", "uint_lmdb_loader.LMDBDataset",
         "uint_lmdb_iterloader.LMDBIterDataset", "dataflows.images.transforms.RandomResizedCrop",
         "dataflows.images.transforms.CenterCrop", "dataflows.load.shuffle_quality.shuffle_quality",
         "dataflows.dump.verify.verify"}


def examples(name):
    """The docstrings of a module that have examples."""
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module, name) if test.examples]


@pytest.fixture
def folder(photos, tiled_lmdb, tmp_path, monkeypatch):
    """The working folder: IMAGENET, of train and val; and train.lmdb and val.lmdb with their indexes."""
    (tmp_path / "IMAGENET").symlink_to(photos)
    for path in tiled_lmdb.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_examples_show_what_happens(name, folder):
    said = []
    for test in examples(name):
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        runner.run(test, out=said.append)
    assert not said, "".join(said)


def test_what_users_call_has_an_example():
    found = {test.name for name in MODULES for test in examples(name)}
    assert found >= SHOWN


def test_no_example_is_left_out():
    for name in MODULES:
        for test in examples(name):
            assert not any(doctest.SKIP in example.options for example in test.examples), test.name
