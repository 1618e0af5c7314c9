"""Batches on a CUDA device: those of the host, also while copies to it are under way."""
import itertools

import pytest
import torch

from dataflows import CenterCrop, RandomResizedCrop
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batches(cls, path, **options):
    with cls(path, 4, transform=RandomResizedCrop(64), num_workers=2, **options) as loader:
        return [*itertools.chain(loader, loader)]  # two epochs


def keep_busy():
    """Work in the device's queue, behind which copies and conversions wait."""
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        matrix = matrix @ matrix * 1e-3
    return matrix


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
@pytest.mark.parametrize("pin_memory", [False, True])
@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_batches_are_those_of_the_host(tiled_lmdb, cls, pin_memory, worker_type):
    path = tiled_lmdb / "train.lmdb"
    expected = batches(cls, path)
    busy = keep_busy()
    found = batches(cls, path, device="cuda", pin_memory=pin_memory, worker_type=worker_type)
    assert len(found) == len(expected) and busy.isfinite().all()
    for (images, labels), (on_host, label) in zip(found, expected):
        assert images.device.type == labels.device.type == "cuda" and images.dtype == torch.uint8
        assert torch.equal(images.cpu(), on_host) and torch.equal(labels.cpu(), label)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_fractions_are_those_of_the_host(uint8_lmdb, dtype, channels_last):
    path = uint8_lmdb / "train.lmdb"
    options = {"normalize": (MEAN, STD), "dtype": dtype, "channels_last": channels_last}
    for (images, _), (on_host, _) in zip(batches(LMDBLoader, path, device="cuda", pin_memory=True, **options),
                                         batches(LMDBLoader, path, **options)):
        assert images.dtype == dtype and images.is_cuda
        assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        torch.testing.assert_close(images.cpu(), on_host, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_a_batch_transform_gets_tensors_on_the_device_and_its_draws_repeat(tiled_lmdb):
    def mix(images, labels):
        assert images.is_cuda and labels.is_cuda
        order = torch.randperm(len(images), device="cuda")
        return images.float().lerp(images[order].float(), torch.rand((), device="cuda")), labels[order]

    state = torch.cuda.get_rng_state()
    first, again = (batches(LMDBLoader, tiled_lmdb / "train.lmdb", device="cuda", batch_transform=mix)
                    for _ in range(2))
    assert all(torch.equal(a, b) for one, two in zip(first, again) for a, b in zip(one, two))
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_record_numbers_stay_on_the_host(tiled_lmdb):
    for images, _, numbers in batches(LMDBLoader, tiled_lmdb / "train.lmdb", device="cuda:0", return_index=True):
        assert images.is_cuda and not numbers.is_cuda


def test_a_model_that_trains_while_batches_come_sees_each_as_it_is(tiled_lmdb):
    """A batch is summed only after later ones were loaded."""
    expected = [int(images.sum()) for images, _ in batches(LMDBLoader, tiled_lmdb / "val.lmdb")]
    with LMDBLoader(tiled_lmdb / "val.lmdb", 4, transform=RandomResizedCrop(64), device="cuda", pin_memory=True,
                    num_workers=2) as loader:
        sums = []
        for images, _ in itertools.chain(loader, loader):
            keep_busy()
            sums.append(images.sum())
    assert [int(total) for total in sums] == expected


def test_a_device_that_is_not_there_is_named(tiled_lmdb):
    with pytest.raises(ValueError, match="device='cuda:63' is not to be had here"):
        LMDBLoader(tiled_lmdb / "val.lmdb", 4, transform=CenterCrop(32), device="cuda:63")
