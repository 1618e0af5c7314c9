"""Every DataFlow of ours keeps the contract in dataflow_contract.py, and none is left out."""
import importlib
import inspect
import pathlib
import pkgutil

import dataflow_contract
import pytest

import dataflows
from dataflows.batch import DecodeBatches
from dataflows.crop import RandomResizedCrop
from dataflows.decode import RecordReader
from dataflows.epoch import Epoch
from dataflows.imagenet import ImageNetFiles
from dataflows.keys import SequentialKeys, ShuffledKeys
from dataflows.parallel import OrderedThreadMapData
from dataflows.quiet import BatchData, DataFlow
from dataflows.shuffle import FiniteLocallyShuffleData
from dataflows.store import Store

ROOT = pathlib.Path(dataflows.__file__).parents[1]


def negated(datapoint):
    return [-datapoint[0]]


def decode_batches(path, transform, num_threads):
    store, epoch = Store(path), Epoch(3)
    return DecodeBatches(BatchData(ShuffledKeys(store, epoch), 4, remainder=True, use_list=True), RecordReader(store),
                         transform, epoch, batch_size=4, num_threads=num_threads, prefetch=1)


CASES = {
    "SequentialKeys": (SequentialKeys, lambda path, photos: SequentialKeys(Store(path))),
    "SequentialKeys of a part": (SequentialKeys, lambda path, photos: SequentialKeys(Store(path), range(3, 9))),
    "ShuffledKeys": (ShuffledKeys, lambda path, photos: ShuffledKeys(Store(path), Epoch(3))),
    "FiniteLocallyShuffleData": (FiniteLocallyShuffleData, lambda path, photos:
                                 FiniteLocallyShuffleData(SequentialKeys(Store(path)), 5, Epoch(3))),
    "OrderedThreadMapData": (OrderedThreadMapData, lambda path, photos: OrderedThreadMapData(
        SequentialKeys(Store(path)), negated, num_threads=3, buffer_size=4)),
    "OrderedThreadMapData without threads": (OrderedThreadMapData, lambda path, photos: OrderedThreadMapData(
        SequentialKeys(Store(path)), negated, num_threads=0, buffer_size=1)),
    "DecodeBatches of crops": (DecodeBatches, lambda path, photos: decode_batches(path, RandomResizedCrop(9), 2)),
    "DecodeBatches of crops without threads": (DecodeBatches, lambda path, photos:
                                               decode_batches(path, RandomResizedCrop(9), 0)),
    "DecodeBatches of whole images": (DecodeBatches, lambda path, photos: decode_batches(path, None, 2)),
    "ImageNetFiles": (ImageNetFiles, lambda path, photos: ImageNetFiles(photos, "train")),
    "ImageNetFiles in a permutation": (ImageNetFiles, lambda path, photos: ImageNetFiles(photos, "train", seed=0)),
}


@pytest.mark.parametrize("check", dataflow_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES)
def test_a_dataflow(case, check, jpeg_lmdb, photos):
    _, make = CASES[case]
    check(lambda: make(jpeg_lmdb / "train.lmdb", photos))


def test_no_dataflow_is_missing_from_the_list():
    names = [f"dataflows.{module.name}" for module in pkgutil.iter_modules(dataflows.__path__)
             if module.name != "__main__"]
    names += [path.stem for path in ROOT.glob("*.py") if path.stem != "setup"]
    found = {cls for name in names for cls in vars(importlib.import_module(name)).values()
             if inspect.isclass(cls) and issubclass(cls, DataFlow) and cls.__module__ == name
             and not cls.__name__.startswith("_")}
    assert found == {cls for cls, _ in CASES.values()}
