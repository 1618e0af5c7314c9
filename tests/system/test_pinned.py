"""What must not change by itself: orders, batches, dumps and states, pinned as checksums in pinned.json.

`PIN=1 pytest tests/system/test_pinned.py` writes them anew: only for a change that means to change one of them, and
says so in CHANGELOG.md. Batches and dumps are pinned for the versions of packages that the file names, and skipped with
others.
"""
import importlib.metadata
import json
import os
import pathlib
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from dataflows import CenterCrop, RandomResizedCrop
from dump_imagenet import dump_split
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

PINNED = pathlib.Path(__file__).with_name("pinned.json")
PACKAGES = ("lmdb", "msgpack", "numpy", "opencv-python", "Pillow", "simplejpeg", "torch")
VERSIONS = {name: importlib.metadata.version(name) for name in PACKAGES}
SIZES = ((60, 90), (120, 80), (97, 131), (200, 150), (75, 75), (64, 199), (151, 100), (88, 61))  # (height, width)


def photo(number):
    """Pixels with edges, slopes and noise, by integer arithmetic: the same on every processor."""
    height, width = SIZES[number % len(SIZES)]
    generator = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width]
    slope = (y[..., None] * generator.integers(0, 4, 3) + x[..., None] * generator.integers(0, 4, 3)) % 256
    edge = 90 * ((y // 17 + x // 23) % 2)[..., None]
    return ((slope + edge) // 2 + generator.integers(0, 24, (height, width, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pinned")
    for number in range(30):
        split, name = ("val", "train")[number % 3 > 0], f"n0144{number % 4:04d}"
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(photo(number)).convert("L" if number == 7 else "RGB")
        kind = "PNG" if number == 11 else "JPEG"
        options = {} if kind == "PNG" else {"quality": 85, "subsampling": number % 3, "progressive": number == 13,
                                            "optimize": number % 5 == 0}
        image.save(folder / split / name / f"{number}.{kind.lower()}", kind, **options)
    return folder


FORMATS = {"tiled": {}, "plain": {"tiles": False}, "uint8": {"format": "uint8"},
           "shrunk jpeg": {"shorter_side": 64, "quality": 80}, "shrunk uint8": {"format": "uint8", "max_side": 90},
           "unshuffled": {"shuffle": False}, "seed 3": {"seed": 3}}


@pytest.fixture(scope="module")
def lmdbs(source, tmp_path_factory):
    """{name of FORMATS: folder with train.lmdb and val.lmdb}"""
    folders = {name: tmp_path_factory.mktemp(name.replace(" ", "-")) for name in FORMATS}
    for name, folder in folders.items():
        for split in ("train", "val"):
            dump_split(source, folder, split, progress=False, **FORMATS[name])
    return folders


@pytest.fixture(scope="module")
def pinned():
    """The pinned values; with PIN=1 in the environment an empty dict, which is written when the tests have filled it.
    """
    if "PIN" not in os.environ:
        yield json.loads(PINNED.read_text())
        return
    values = {"versions": VERSIONS}
    yield values
    PINNED.write_text(json.dumps(values, indent=1) + "\n")


def compare(pinned, name, found):
    if "PIN" in os.environ:
        pinned[name] = found
    assert pinned[name] == found


def same_versions(pinned):
    differing = {name for name, version in pinned["versions"].items() if version != VERSIONS[name]}
    if differing:
        pytest.skip(f"pinned with other versions of {', '.join(sorted(differing))}")


ORDERS = {
    "LMDBLoader": lambda path, **options: LMDBLoader(path, 4, num_workers=0, **options),
    "LMDBLoader, in order": lambda path, **options: LMDBLoader(path, 4, num_workers=0, shuffle=False, **options),
    **{f"LMDBIterLoader, {order}": lambda path, order=order, **options: LMDBIterLoader(
        path, 4, num_workers=0, order=order, shuffle_buffer=5, block_size=3, **options)
       for order in ("local", "block", "sequential")}}
OPTIONS = {"plain": {}, "seed": {"seed": 7}, "rank 1 of 3": {"rank": 1, "world_size": 3},
           "repeats": {"repeats": 2}, "indices": {"indices": [3, 1, 3, 12, 0, 5]}, "drop_last": {"drop_last": True}}


def test_orders(lmdbs, pinned):
    """Record numbers and positions of two epochs: functions of (seed, epoch, rank), on every platform."""
    found = {}
    for name, make in ORDERS.items():
        for option, options in OPTIONS.items():
            with make(lmdbs["tiled"] / "train.lmdb", **options) as loader:
                found[f"{name}, {option}"] = [[numbers for numbers, _ in loader.pointers(epoch)] for epoch in (0, 5)]
                found[f"{name}, {option}, positions"] = [
                    [list(positions) for _, positions in loader.pointers(epoch)] for epoch in (0, 5)]
    compare(pinned, "orders", {name: crc32(json.dumps(value).encode()) for name, value in found.items()})


def test_dumps(lmdbs, pinned):
    same_versions(pinned)
    found = {f"{name} {split}": crc32((folder / f"{split}.lmdb").read_bytes())
             for name, folder in lmdbs.items() for split in ("train", "val")}
    compare(pinned, "dumps", found)


TRANSFORMS = {
    "train": RandomResizedCrop(48), "val": CenterCrop(48, resize=56), "linear": RandomResizedCrop(48, antialias=False),
    "val, linear": CenterCrop(48, resize=56, antialias=False), "fast": RandomResizedCrop((40, 56), fast_decode=True),
    "scaled": RandomResizedCrop(16, scaled_decode=True), "whole": None, "callable": lambda pixels: pixels[:32, ::2]}


def checksum(batches):
    """Of images, which may be a list of tensors, and labels of all batches."""
    value = 0
    for images, labels in batches:
        for image in images:
            value = crc32(np.ascontiguousarray(image).tobytes(), value)
        value = crc32(np.asarray(labels).tobytes(), value)
    return value


def test_batches(lmdbs, pinned):
    same_versions(pinned)
    found = {}
    for name, transform in TRANSFORMS.items():
        for image_format in ("tiled", "plain", "uint8"):
            path = lmdbs[image_format] / "train.lmdb"
            for cls in (LMDBLoader, LMDBIterLoader):
                with cls(path, 6, transform=transform, num_workers=2) as loader:
                    found[f"{cls.__name__}, {name}, {image_format}"] = [checksum(loader) for _ in range(2)]
    options = {"normalize": ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25]), "channels_last": True}
    with LMDBLoader(lmdbs["tiled"] / "train.lmdb", 6, transform=RandomResizedCrop(48), **options) as loader:
        found["normalized"] = checksum(loader)
    compare(pinned, "batches", found)


def test_samples(lmdbs, pinned):
    same_versions(pinned)
    found = {}
    for name in ("tiled", "uint8"):
        for cls in (LMDBDataset, LMDBIterDataset):
            for transform in ("train", "val", "whole"):
                torch.manual_seed(5)
                dataset = cls(lmdbs[name] / "val.lmdb", transform=TRANSFORMS[transform])
                samples = dataset if cls is LMDBIterDataset else [dataset[i] for i in range(len(dataset))]
                found[f"{cls.__name__}, {transform}, {name}"] = checksum(([image], [label]) for image, label in samples)
                dataset.close()
    compare(pinned, "samples", found)


def test_states_of_earlier_versions_go_on(lmdbs, pinned):
    """A state that was saved long ago names the same rest of its epoch."""
    same_versions(pinned)
    path, states, rests = lmdbs["tiled"] / "train.lmdb", {}, {}
    for name, make in ORDERS.items():
        for option in ("plain", "rank 1 of 3", "repeats"):
            with make(path, **OPTIONS[option]) as loader:
                for _ in zip(range(1), loader):
                    pass
                states[f"{name}, {option}"] = loader.state_dict()
    compare(pinned, "states", states)
    for key, state in pinned["states"].items():
        name, _, option = key.rpartition(", ")
        with make_and_load(ORDERS[name], path, OPTIONS[option], state) as loader:
            rests[key] = [labels.tolist() for _, labels in loader]
        if option == "rank 1 of 3":
            with make_and_load(ORDERS[name], path, {}, state) as loader:
                rests[f"{key}, alone"] = [labels.tolist() for _, labels in loader]
    compare(pinned, "rests", rests)


def make_and_load(make, path, options, state):
    loader = make(path, **options)
    loader.load_state_dict(state)
    return loader
