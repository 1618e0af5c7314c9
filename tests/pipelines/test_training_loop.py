"""A loader in the shape of timm's training loop: sampler.set_epoch, len, and Mixup for each batch."""
import pytest
import torch

from helpers.presets import MEAN, STD
from uint_lmdb_loader import LMDBLoader

timm = pytest.importorskip("timm.data")


def epochs(path, count, prefetcher, **options):
    """Batches of so many epochs, as timm's train.py walks through them."""
    pipeline = timm.create_transform(16, is_training=True, re_prob=0.25, use_prefetcher=prefetcher)
    mixup = timm.Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=3)
    with LMDBLoader(path, 4, transform=pipeline, batch_transform=mixup, drop_last=True, **options) as loader:
        for epoch in range(count):
            loader.sampler.set_epoch(epoch)
            found = list(loader)
            assert len(found) == len(loader) == 5
            yield found


@pytest.mark.parametrize("prefetcher, options", [(False, {}), (True, {"normalize": (MEAN, STD)})])
def test_mixup_of_each_batch(uint8_lmdb, prefetcher, options):
    first, second = epochs(uint8_lmdb / "train.lmdb", 2, prefetcher, num_workers=2, worker_type="process", **options)
    for images, labels in first + second:
        assert images.shape == (4, 3, 16, 16) and images.dtype == torch.float32 and images.abs().max() < 4
        assert labels.shape == (4, 3) and torch.allclose(labels.sum(1), torch.ones(4))
        assert (labels.max(1).values < 1).all()  # smoothed at least
    assert not torch.equal(first[0][0], second[0][0])
    again, _ = epochs(uint8_lmdb / "train.lmdb", 2, prefetcher, num_workers=0, **options)
    assert all(torch.equal(a, b) for one, other in zip(first, again, strict=True) for a, b in zip(one, other))
