"""Pipelines of torchvision and timm in threads and processes, and in torch's DataLoader over the datasets."""
import contextlib
import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader

from helpers.presets import MEAN, STD, batches
from uint_lmdb_iterloader import LMDBIterDataset
from uint_lmdb_loader import LMDBDataset, LMDBLoader

pytest.importorskip("torchvision")
from torchvision.transforms import v2

CENTER = [v2.Resize(48), v2.CenterCrop(40)]
TAIL = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


def training():
    return v2.Compose([v2.RandomResizedCrop(40), v2.RandomHorizontalFlip(), v2.TrivialAugmentWide(), *TAIL,
                       v2.RandomErasing(0.25)])


def of_timm():
    return pytest.importorskip("timm.data").create_transform(40, is_training=True, interpolation="random",
                                                             auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25)


@pytest.fixture
def start(request):
    """The start method of this name is the program's."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def images(path, transform, **options):
    return batches(LMDBLoader(path, 4, transform=transform, seed=1, **options))


@pytest.mark.parametrize("start, make", [("fork", training), ("fork", of_timm), ("spawn", of_timm)],
                         indirect=["start"])
def test_draws_are_the_same_in_the_caller_and_in_processes(tiled_lmdb, start, make):
    path = tiled_lmdb / "val.lmdb"
    expected = images(path, make(), num_workers=0)
    assert torch.equal(images(path, make(), num_workers=1 + (start == "fork"), worker_type="process"), expected)
    found = images(path, make(), num_workers=2)  # threads share the program's generators: only the crops are the same
    assert found.shape == expected.shape and found.dtype == expected.dtype


def test_without_draws_of_its_own_a_pipeline_gives_the_same_in_threads(tiled_lmdb):
    pipeline = v2.Compose([v2.RandomResizedCrop(40), v2.RandomHorizontalFlip(), v2.Grayscale(3), *TAIL])
    expected = images(tiled_lmdb / "val.lmdb", pipeline, num_workers=0)
    assert torch.equal(images(tiled_lmdb / "val.lmdb", pipeline, num_workers=3), expected)


@pytest.mark.parametrize("start", ["fork", "spawn"], indirect=True)
def test_datasets_in_workers_of_a_data_loader(tiled_lmdb, start):
    path, pipeline = tiled_lmdb / "val.lmdb", v2.Compose([*CENTER, v2.PILToTensor(), *TAIL])
    expected = batches(LMDBLoader(path, 4, transform=pipeline, shuffle=False, num_workers=1))
    with contextlib.closing(LMDBDataset(path, transform=pipeline)) as dataset:
        loader = DataLoader(dataset, 4, num_workers=1 + (start == "fork"))
        assert torch.allclose(torch.cat([images for images, _ in loader]), expected, atol=1e-6)


@pytest.mark.parametrize("make", [training, of_timm])
def test_training_datasets_in_workers_of_a_data_loader(tiled_lmdb, make):
    for cls in (LMDBDataset, LMDBIterDataset):
        with contextlib.closing(cls(tiled_lmdb / "train.lmdb", transform=make())) as dataset:
            found = list(DataLoader(dataset, 5, num_workers=2, multiprocessing_context="fork"))
        assert sum(len(labels) for _, labels in found) == 23
        for batch, _ in found:
            assert batch.shape[1:] == (3, 40, 40) and batch.dtype == torch.float32 and batch.abs().max() < 4
