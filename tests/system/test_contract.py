"""Every DataFlow of ours keeps the contract in dataflow_contract.py, and none is left out."""
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import dataflows
from dataflows.dump.shards.listed import ListedFiles
from dataflows.dump.shards.plan import load_plan
from dataflows.dump.split import dump_split
from dataflows.images.pipeline import pipeline_of
from dataflows.images.transforms import RandomResizedCrop
from dataflows.load.decode.decode_batches import DecodeBatches
from dataflows.load.decode.reader import RecordReader
from dataflows.load.meter import Meter
from dataflows.load.prefetch import PrefetchPages
from dataflows.load.workers.child import InWorker
from dataflows.load.workers.parent import RoundRobinProcesses
from dataflows.order.epoch import Epoch
from dataflows.order.local_shuffle import FiniteLocallyShuffleData
from dataflows.order.parts import RestOfEpoch, Slice
from dataflows.order.pointers import BlockShuffledKeys, SequentialKeys, ShardShuffledKeys, ShuffledKeys
from dataflows.order.ranks import Ranks
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.sources.label_file import LabelledFiles
from dataflows.sources.samples import Samples
from dataflows.sources.shards import TarShards
from dataflows.storage.store import Store
from dataflows.tensorpack import BatchData, DataFlow
from dataflows.threads import OrderedThreadMapData
from dataflows.tools.advise.sample import Image, Sample
from helpers import dataflow_contract
from helpers.imagenet_forms import TRAIN, class_tars, tar_of, write
from helpers.paths import ROOT


def negated(datapoint):
    return [-datapoint[0]]


def keys(path, cls=SequentialKeys, *args, **options):
    return cls(Store(path), Epoch(3), *args, **options)


def batches(path):
    return BatchData(keys(path), 4, remainder=True, use_list=True)


def round_robin(path, num_processes):
    parts = [Slice(batches(path), i, num_processes) for i in range(num_processes)]
    return RoundRobinProcesses(batches(path), parts, 2, Meter())


def decode_batches(path, transform, num_threads):
    store, epoch = Store(path), Epoch(3)
    return DecodeBatches(BatchData(ShuffledKeys(store, epoch), 4, remainder=True, use_list=True), RecordReader(store),
                         pipeline_of(transform, None, "numpy"), epoch, batch_size=4, num_threads=num_threads,
                         prefetch=1, meter=Meter())


def labelled(photos):
    names = [name for name, _ in ImageNetFiles(photos, "val")]
    labels = write(photos.parent / "contract", {"val.csv": "".join(["file,label\n", *(
        f"{name},{name[:9]}\n" for name in names)]).encode()})
    return LabelledFiles(photos / "val", labels / "val.csv", seed=0)


def shards(photos):
    files = {f"{number}.{kind}": b"%d" % number for number in range(9) for kind in ("jpg", "cls")}
    folder = write(photos.parent / "contract", {"0.tar": tar_of(files), "1.tar": tar_of(files)})
    return TarShards([str(folder / "0.tar"), str(folder / "1.tar")], "shards", seed=0)


def tar_of_classes(photos):
    return write(photos.parent / "contract", {"ILSVRC2012_img_train.tar": class_tars(TRAIN)})


def listed(photos):
    target = photos.parent / "contract" / "plan"
    if not target.exists():
        dump_split(photos, target, "train", shards=2, plan=True, progress=False)
    return load_plan(str(target), "train").files


class Given(DataFlow):
    """A DataFlow of a program."""

    def __len__(self):
        return 9

    def __iter__(self):
        return ((b"photo %d" % number, number, f"{number}.jpg") for number in range(9))


CASES = {
    "ListedFiles": (ListedFiles, lambda path, photos: listed(photos)),
    "SequentialKeys": (SequentialKeys, lambda path, photos: keys(path)),
    "SequentialKeys of a part": (SequentialKeys, lambda path, photos: keys(path, part=(1, 3))),
    "SequentialKeys of a rank": (SequentialKeys, lambda path, photos: keys(path, ranks=Ranks(2, 4, "pad"))),
    "SequentialKeys, some of them and repeated": (SequentialKeys, lambda path, photos:
                                                  keys(path, indices=[3, 20, 3, 7], repeats=3)),
    "BlockShuffledKeys": (BlockShuffledKeys, lambda path, photos: keys(path, BlockShuffledKeys, 4)),
    "ShardShuffledKeys": (ShardShuffledKeys, lambda path, photos: keys(path, ShardShuffledKeys)),
    "ShuffledKeys of a pinned rank": (ShuffledKeys, lambda path, photos:
                                      keys(path, ShuffledKeys, ranks=Ranks(2, 4, "pad"), pinned=True)),
    "ShuffledKeys": (ShuffledKeys, lambda path, photos: keys(path, ShuffledKeys)),
    "ShuffledKeys of a rank": (ShuffledKeys, lambda path, photos:
                               keys(path, ShuffledKeys, ranks=Ranks(2, 4, "pad"))),
    "FiniteLocallyShuffleData": (FiniteLocallyShuffleData, lambda path, photos:
                                 FiniteLocallyShuffleData(keys(path), 5, Epoch(3))),
    "RestOfEpoch": (RestOfEpoch, lambda path, photos: RestOfEpoch(keys(path), Epoch(3))),
    "Slice, every n-th": (Slice, lambda path, photos: Slice(batches(path), 1, 4)),
    "Slice, the rest": (Slice, lambda path, photos: Slice(keys(path), 5)),
    "PrefetchPages": (PrefetchPages, lambda path, photos: PrefetchPages(batches(path), Store(path), Meter())),
    "RoundRobinProcesses": (RoundRobinProcesses, lambda path, photos: round_robin(path, 2)),
    "OrderedThreadMapData": (OrderedThreadMapData, lambda path, photos: OrderedThreadMapData(
        keys(path), negated, num_threads=3, buffer_size=4)),
    "OrderedThreadMapData without threads": (OrderedThreadMapData, lambda path, photos: OrderedThreadMapData(
        keys(path), negated, num_threads=0, buffer_size=1)),
    "DecodeBatches of crops": (DecodeBatches, lambda path, photos: decode_batches(path, RandomResizedCrop(9), 2)),
    "DecodeBatches of crops without threads": (DecodeBatches, lambda path, photos:
                                               decode_batches(path, RandomResizedCrop(9), 0)),
    "DecodeBatches of whole images": (DecodeBatches, lambda path, photos: decode_batches(path, None, 2)),
    "Sample": (Sample, lambda path, photos: Sample("photos", [
        Image(f"{number}.JPEG", b"content", number % 3, 4096) for number in range(9)])),
    "LabelledFiles": (LabelledFiles, lambda path, photos: labelled(photos)),
    "TarShards": (TarShards, lambda path, photos: shards(photos)),
    "Samples of a list, permuted": (Samples, lambda path, photos: Samples(
        [(np.full((2, 3, 3), number, np.uint8), number) for number in range(9)], seed=0)),
    "Samples of a DataFlow": (Samples, lambda path, photos: Samples(Given())),
    "ImageNetFiles": (ImageNetFiles, lambda path, photos: ImageNetFiles(photos, "train")),
    "ImageNetFiles in a permutation": (ImageNetFiles, lambda path, photos: ImageNetFiles(photos, "train", seed=0)),
    "ImageNetFiles of a tar": (ImageNetFiles, lambda path, photos: ImageNetFiles(tar_of_classes(photos), "train",
                                                                                          seed=0)),
}


@pytest.mark.parametrize("check", dataflow_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES)
def test_a_dataflow(case, check, jpeg_lmdb, photos):
    _, make = CASES[case]
    check(lambda: make(jpeg_lmdb / "train.lmdb", photos))


def test_no_dataflow_is_missing_from_the_list():
    names = [module.name for module in pkgutil.walk_packages(dataflows.__path__, "dataflows.")
             if module.name != "dataflows.__main__"]
    names += [path.stem for path in ROOT.glob("*.py") if path.stem != "setup"]
    found = {cls for name in names for cls in vars(importlib.import_module(name)).values()
             if inspect.isclass(cls) and cls.__module__ == name and issubclass(cls, DataFlow)
             and not cls.__name__.startswith("_")}
    found.remove(InWorker)  # it never ends: tensorpack's worker would start it again
    assert found == {cls for cls, _ in CASES.values()}
