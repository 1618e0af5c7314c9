"""Evaluation pipelines of torchvision and timm as they are: what is fused gives their pixels."""
import contextlib

import numpy as np
import pytest
import torch

from dataflows import CenterCrop
from helpers.presets import MEAN, STD, ClassificationPresetEval, batches, levels, pil_images
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

pytest.importorskip("torchvision")
from torchvision import models, transforms
from torchvision.transforms import InterpolationMode, v2

BILINEAR, BICUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC


def presets(interpolation):
    return {f"{module.__name__}, {backend}": ClassificationPresetEval(
        module, 40, 48, interpolation=interpolation, backend=backend, use_v2=module is v2)
        for module in (transforms, v2) for backend in ("pil", "tensor")}


def composes(interpolation):
    """From the same, what gives uint8, and what the documents of torchvision and timm show."""
    resize = {"size": 48, "interpolation": interpolation}
    return {"uint8": v2.Compose([v2.Resize(**resize), v2.CenterCrop(40), v2.PILToTensor()]),
            "ToTensor": transforms.Compose([transforms.Resize(**resize), transforms.CenterCrop(40),
                                            transforms.ToTensor(), transforms.Normalize(MEAN, STD)]),
            "a list": [transforms.Resize(**resize), transforms.CenterCrop((30, 40)), transforms.PILToTensor()],
            "ToImage first": v2.Compose([v2.ToImage(), v2.ToDtype(torch.uint8, scale=True), v2.Resize(**resize),
                                         v2.CenterCrop(40), v2.ToDtype(torch.float32, scale=True),
                                         v2.Normalize(MEAN, STD)]),
            "Sequential": torch.nn.Sequential(v2.PILToTensor(), v2.Resize([48], interpolation), v2.CenterCrop(40))}


def weights():
    return {"weights": models.ResNet50_Weights.IMAGENET1K_V2.transforms(),
            "weights, bicubic": models.EfficientNet_B0_Weights.IMAGENET1K_V1.transforms()}


def of_timm():
    create = pytest.importorskip("timm.data").create_transform
    return {f"timm, {interpolation}{', prefetcher' * prefetcher}": create(
        40, interpolation=interpolation, use_prefetcher=prefetcher, crop_pct=0.8)
        for interpolation in ("bilinear", "bicubic") for prefetcher in (False, True)}


def applied(pipeline, image):
    for step in pipeline if isinstance(pipeline, list) else [pipeline]:
        image = step(image)
    return torch.from_numpy(image) if isinstance(image, np.ndarray) else image


def check(pipeline, path, most):
    """The fused pipeline against the one that torchvision runs on PIL images: at most so many levels apart."""
    loader = LMDBLoader(path, 4, transform=pipeline, shuffle=False, num_workers=2)
    assert isinstance(loader.transform.crop, CenterCrop) and not loader.transform.steps
    found, expected = batches(loader), torch.stack([applied(pipeline, image) for image in pil_images(path)])
    assert found.shape == expected.shape and found.dtype == expected.dtype and type(found) is torch.Tensor
    assert np.abs(levels(found) - levels(expected)).max() <= most + 1e-3
    with contextlib.closing(LMDBDataset(path, transform=pipeline)) as dataset:
        samples = torch.stack([dataset[number][0] for number in range(len(dataset))])
        assert samples.dtype == found.dtype and torch.allclose(samples.double(), found.double(), atol=1e-6)


@pytest.mark.parametrize("interpolation, most", [(BILINEAR, 2), (BICUBIC, 3)])
@pytest.mark.parametrize("name", [f"{module}, {backend}" for module in (transforms.__name__, v2.__name__)
                                  for backend in ("pil", "tensor")])
def test_reference_presets(jpeg_lmdb, name, interpolation, most):
    check(presets(interpolation)[name], jpeg_lmdb / "val.lmdb", most)


@pytest.mark.parametrize("interpolation, most", [(BILINEAR, 2), (BICUBIC, 3)])
@pytest.mark.parametrize("name", ["uint8", "ToTensor", "a list", "ToImage first", "Sequential"])
def test_pipelines_as_users_write_them(tiled_lmdb, name, interpolation, most):
    check(composes(interpolation)[name], tiled_lmdb / "val.lmdb", most)


@pytest.mark.parametrize("name, most", [("weights", 2), ("weights, bicubic", 3)])
def test_transforms_of_weights(uint8_lmdb, name, most):
    check(weights()[name], uint8_lmdb / "val.lmdb", most)


@pytest.mark.parametrize("name, most", [("timm, bilinear", 2), ("timm, bilinear, prefetcher", 2),
                                        ("timm, bicubic", 3), ("timm, bicubic, prefetcher", 3)])
def test_pipelines_of_timm(tiled_lmdb, name, most):
    check(of_timm()[name], tiled_lmdb / "val.lmdb", most)


def test_the_other_loader_and_dataset_have_the_same_images(tiled_lmdb):
    path, pipeline = tiled_lmdb / "val.lmdb", presets(BILINEAR)[f"{v2.__name__}, pil"]
    expected = batches(LMDBLoader(path, 4, transform=pipeline, shuffle=False, num_workers=1))
    assert torch.equal(batches(LMDBIterLoader(path, 3, order="sequential", transform=pipeline)), expected)
    with contextlib.closing(LMDBIterDataset(path, order="sequential", transform=pipeline)) as dataset:
        assert torch.allclose(torch.stack([image for image, _ in dataset]), expected, atol=1e-6)
