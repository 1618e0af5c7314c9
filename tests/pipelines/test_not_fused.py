"""What cannot be fused runs as it stands, on whole images: with equal results where nothing is random."""
import contextlib

import pytest
import torch

from helpers.presets import MEAN, STD, batches, pil_images
from uint_lmdb_loader import LMDBDataset, LMDBLoader

pytest.importorskip("torchvision")
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2

NEAREST, SIZE = InterpolationMode.NEAREST, 40
TAIL = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


class Other(transforms.RandomResizedCrop):
    """A user's own, which takes the whole image."""

    def forward(self, image):
        return transforms.functional.resize(image, [SIZE, SIZE])


# Each with why it is not fused.
PIPELINES = {
    "nearest": ([v2.Resize(48, NEAREST), v2.CenterCrop(SIZE), *TAIL], "interpolation=InterpolationMode.NEAREST"),
    "both sides": ([v2.Resize((48, 50)), v2.CenterCrop(SIZE), *TAIL], "only that of the shorter side"),
    "no crop": ([transforms.Resize((48, 50)), transforms.ToTensor()], "only that of the shorter side"),
    "max_size": ([v2.Resize(44, max_size=50), v2.CenterCrop(SIZE), *TAIL], "only that of the shorter side"),
    "aliased": ([v2.ToImage(), v2.Resize(48, antialias=False), v2.CenterCrop(SIZE)], "antialias=False"),
    "beyond the image": ([transforms.Resize(32), transforms.CenterCrop(SIZE), *TAIL], "would reach beyond the image"),
    "subclass": ([Other(SIZE), *TAIL], "Other comes first"),
    "perspective": ([v2.RandomPerspective(p=0), v2.Resize((SIZE, SIZE)), *TAIL], "RandomPerspective comes first"),
    "perspective, random crop": ([v2.RandomPerspective(), v2.RandomResizedCrop(SIZE), *TAIL], "RandomPerspective"),
    "nearest random crop": ([v2.RandomResizedCrop(SIZE, interpolation=NEAREST), *TAIL], "interpolation="),
}
RANDOM = {"perspective, random crop", "nearest random crop"}


@pytest.mark.parametrize("name", PIPELINES)
def test_it_runs_as_it_stands(tiled_lmdb, name):
    steps, why = PIPELINES[name]
    path, pipeline = tiled_lmdb / "val.lmdb", v2.Compose(steps)
    loader = LMDBLoader(path, 4, transform=pipeline, shuffle=False, num_workers=2)
    assert why in str(loader.transform) and "whole images" in str(loader.transform)
    found = batches(loader)
    with contextlib.closing(LMDBDataset(path, transform=pipeline)) as dataset:
        samples = torch.stack([dataset[number][0] for number in range(len(dataset))])
    expected = torch.stack([pipeline(image) for image in pil_images(path)])
    assert found.shape == samples.shape == expected.shape and found.dtype == samples.dtype == expected.dtype
    if name not in RANDOM:
        assert torch.allclose(found, expected, atol=1e-5) and torch.allclose(samples, expected, atol=1e-5)
