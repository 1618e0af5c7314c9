"""Pipelines of torchvision, as they are: the samples that torchvision itself makes of whole PIL images."""
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataflows import CenterCrop
from uint_lmdb_loader import LMDBDataset, LMDBLoader

v1 = pytest.importorskip("torchvision.transforms")
v2 = pytest.importorskip("torchvision.transforms.v2")
CROP = [v2.Resize(24), v2.CenterCrop(20)]


@pytest.fixture
def path(jpeg_lmdb):
    return jpeg_lmdb / "train.lmdb"


@pytest.mark.parametrize("image_type", [None, "pil"])
@pytest.mark.parametrize("rest, error", [
    ([v1.Grayscale(1), v1.ToTensor()], 2 / 255),
    ([v1.Grayscale(1), v1.PILToTensor()], 2),
    ([v1.Grayscale(1), v1.ToTensor(), v1.Normalize(0.5, 0.5)], 4 / 255),
    ([v1.Lambda(lambda image: image.convert("RGBA")), v1.ToTensor()], 2 / 255),
    ([v1.Lambda(lambda image: image.convert("F")), v1.ToTensor()], 2),
    ([v1.Lambda(lambda image: image.convert("I")), v1.PILToTensor()], 2),
    ([v1.PILToTensor(), v1.ConvertImageDtype(torch.int32), v1.ConvertImageDtype(torch.float32)], 2 / 255),
    ([v1.ToTensor(), v1.Normalize([0.5] * 3, [0.5] * 3)], 5 / 255),
    ([v1.Lambda(lambda image: np.asarray(image).astype(np.float32)), v1.ToTensor()], 2),
], ids=str)
def test_images_of_every_kind_are_as_torchvision_makes_them(path, image_type, rest, error):
    transform = v1.Compose([*CROP, *rest])
    expected = torch.stack([transform(image) for image, _ in LMDBDataset(path, image_type="pil")])
    loader = LMDBLoader(path, 23, transform=transform, image_type=image_type, shuffle=False)
    [(images, _)] = loader
    samples = torch.stack([image for image, _ in LMDBDataset(path, transform, image_type=image_type)])
    assert images.shape == expected.shape and images.dtype == expected.dtype
    assert (images.double() - expected.double()).abs().max() <= error * 1.01
    assert samples.dtype == images.dtype and torch.allclose(samples.double(), images.double(), atol=1e-5)


@pytest.mark.parametrize("image_type", [None, "pil", "numpy", "tensor"])
@pytest.mark.parametrize("lead", [v2.ToImage(), v2.PILToTensor()], ids=str)
def test_a_conversion_before_the_crop_is_kept(path, lead, image_type):
    def spy(image):
        assert isinstance(image, torch.Tensor) and image.shape == (3, 20, 20)
        return image

    steps = [] if image_type == "numpy" and isinstance(lead, v2.PILToTensor) else [spy]  # it leaves arrays alone
    for rest in ([], steps):
        transform = v2.Compose([lead, *CROP, *rest])
        [(images, _)] = LMDBLoader(path, 23, transform=transform, image_type=image_type, shuffle=False)
        image, _ = LMDBDataset(path, transform, image_type=image_type)[0]
        assert isinstance(image, torch.Tensor) and torch.equal(image, images[0])


def test_torchs_loader_normalizes_what_the_transform_has_scaled(path):
    transform = [CenterCrop(20, 24), v2.ToDtype(torch.float32, scale=True)]
    loader = LMDBLoader(path, 5, transform=transform, normalize=([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    other = DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn)
    for (images, _), (expected, _) in zip(other, loader, strict=True):
        assert torch.allclose(images, expected, atol=1e-5)
