"""Training pipelines of torchvision and timm as they are: boxes, flips and erasing by their rules, and their pixels."""
import copy
import math

import numpy as np
import pytest
import torch

from dataflows import RandomResizedCrop
from dataflows.load.decode.seeds import ERASE, PER_IMAGE, seed_generators, seeds_of
from helpers.presets import MEAN, STD, ClassificationPresetTrain, batches, levels, pil_images
from uint_lmdb_loader import LMDBLoader

pytest.importorskip("torchvision")
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms import functional as F

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
MOST = {"bilinear": 1, "bicubic": 3}  # levels from torchvision on PIL images
SIZE, SEED, EPOCH = 40, 3, 2


def recipe(size=SIZE):
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.TrivialAugmentWide(),
                       v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.RandomErasing(0.25)])


def presets():
    return {f"{name}, {backend}, {interpolation}": ClassificationPresetTrain(
        module, SIZE, interpolation=mode, augment=module.TrivialAugmentWide(), erase=0.25, backend=backend,
        use_v2=module is v2)
        for name, module in (("v1", transforms), ("v2", v2)) for backend in ("pil", "tensor")
        for interpolation, mode in MODES.items()}


def of_timm():
    create = pytest.importorskip("timm.data").create_transform
    return {f"timm, {interpolation}{', prefetcher' * prefetcher}": create(
        SIZE, is_training=True, interpolation=interpolation, use_prefetcher=prefetcher,
        auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25)
        for interpolation in ("bilinear", "bicubic", "random") for prefetcher in (False, True)}


NAMES = [f"{module}, {backend}, {mode}" for module in ("v1", "v2") for backend in ("pil", "tensor") for mode in MODES]
TIMM = [f"timm, {mode}{end}" for mode in (*MODES, "random") for end in ("", ", prefetcher")]


def make(path, transform, **options):
    loader = LMDBLoader(path, 4, transform=transform, shuffle=False, seed=SEED, **{"num_workers": 0} | options)
    loader.set_epoch(EPOCH)
    return loader


def cropped_by_torchvision(crop, images):
    """uint8 (n, 3, h, w): torchvision's crops of PIL images, by the boxes, flips and filters that our plan has."""
    positions = np.arange(len(images))
    widths, heights = np.array([image.size for image in images]).T
    plan, bicubic = crop.plan(heights, widths, positions, SEED, EPOCH), crop.bicubic(positions, SEED, EPOCH)
    found = []
    for image, row, cubic in zip(images, plan.tolist(), bicubic):
        out = F.resized_crop(image, *row[:4], list(crop.window), MODES["bicubic" if cubic else "bilinear"])
        found.append(F.pil_to_tensor(F.hflip(out) if row[8] else out))
    return torch.stack(found)


@pytest.mark.parametrize("name", ["recipe", *NAMES, *TIMM])
def test_the_crop_is_torchvisions_of_the_same_box(tiled_lmdb, name):
    pipeline = recipe() if name == "recipe" else (presets() | (of_timm() if "timm" in name else {}))[name]
    path = tiled_lmdb / "train.lmdb"
    loader = make(path, pipeline)
    crop = loader.transform.crop
    mode = next((mode for mode in ("random", "bicubic") if mode in name), "bilinear")
    assert crop == RandomResizedCrop(SIZE, interpolation=mode) and len(loader.transform.steps) == 1
    expected = cropped_by_torchvision(crop, pil_images(path))
    off = np.abs(levels(batches(make(path, crop))) - levels(expected))
    assert off.max() <= MOST["bilinear" if mode == "bilinear" else "bicubic"] and off.mean() < 0.1
    loader.close()


def steps_of(pipeline):
    """The transforms of a pipeline after its crop and flip."""
    steps = getattr(pipeline.transforms, "transforms", pipeline.transforms)
    names = [type(step).__name__ for step in steps]
    return steps[names.index("RandomHorizontalFlip") + 1:]


def finished(pipeline, crops, on_pil):
    """uint8 crops after the rest of a pipeline, in torchvision's own hands and with the loader's draws."""
    positions, found = np.arange(len(crops)), []
    kinds = {purpose: seeds_of(purpose, SEED, EPOCH, positions) for purpose in (PER_IMAGE, ERASE)}
    for place, crop in enumerate(crops):
        image = F.to_pil_image(crop) if on_pil else crop.clone()
        for step in steps_of(copy.deepcopy(pipeline)):
            seed_generators(kinds[ERASE if type(step).__name__ == "RandomErasing" else PER_IMAGE][place])
            image = step(image)
        found.append(torch.from_numpy(image) if isinstance(image, np.ndarray) else image)
    return torch.stack(found)


@pytest.mark.parametrize("name", ["recipe", *NAMES, *TIMM])
def test_the_rest_is_that_of_torchvision_and_timm(tiled_lmdb, name):
    pipeline = recipe() if name == "recipe" else (presets() | (of_timm() if "timm" in name else {}))[name]
    path = tiled_lmdb / "train.lmdb"
    crops = batches(make(path, make(path, pipeline).transform.crop))
    expected = finished(pipeline, crops, on_pil="pil" in name or "timm" in name)
    found = batches(make(path, pipeline))
    assert found.dtype == expected.dtype and type(found) is torch.Tensor
    assert torch.allclose(found.double(), expected.double(), rtol=0, atol=1e-5)
    assert torch.equal(found, batches(make(path, pipeline, num_workers=1, worker_type="process")))


@pytest.mark.parametrize("name", ["recipe", "v1, pil, bilinear", "v2, tensor, bicubic", "timm, random"])
def test_half_are_mirrored_and_a_quarter_is_erased(uint8_lmdb, name):
    pipeline = recipe(16) if name == "recipe" else (presets() | (of_timm() if "timm" in name else {}))[name]
    loader = make(uint8_lmdb / "train.lmdb", pipeline, repeats=20)
    taken = loader.transform
    plan = taken.crop.plan(np.full(10_000, 90), np.full(10_000, 120), np.arange(10_000), SEED, EPOCH)
    assert abs(plan[:, 8].mean() - 0.5) < 0.02
    plain = make(uint8_lmdb / "train.lmdb", [taken.crop, *steps_of(pipeline)[-3 - (name[:2] == "v2"):]], repeats=20)
    erased = (batches(plain) == 0).all(1).flatten(1).any(1)  # all channels exactly the mean: no uint8 is that
    assert len(erased) == 23 * 20 and abs(erased.double().mean() - 0.25) < 0.08
    loader.close()


def shares(boxes, height, width):
    """Of boxes (n, 4): mean and deviation of area, shape and place, each on its own scale."""
    top, left, h, w = np.asarray(boxes, float).T
    rows = [h * w / (height * width), np.log(w / h), (top + h / 2) / height, (left + w / 2) / width]
    return np.array([[np.mean(row), np.std(row)] for row in rows])


@pytest.mark.parametrize("name", ["v1", "v2", "timm"])
@pytest.mark.parametrize("height, width", [(375, 500), (300, 100)])
def test_boxes_have_the_distribution_of_theirs(name, height, width):
    count = 1000
    if name == "v2":
        image = torch.zeros(3, height, width)
        params = [v2.RandomResizedCrop(SIZE).make_params([image]) for _ in range(count)]
        theirs = [(p["top"], p["left"], p["height"], p["width"]) for p in params]
    else:
        crop = transforms.RandomResizedCrop(SIZE) if name == "v1" else of_timm()["timm, bilinear"].transforms[0]
        image = torch.zeros(3, height, width) if name == "v1" else F.to_pil_image(torch.zeros(3, height, width))
        theirs = [crop.get_params(image, crop.scale, crop.ratio) for _ in range(count)]
    sides = np.full(count, height), np.full(count, width)
    ours = RandomResizedCrop(SIZE).plan(*sides, np.arange(count), 0, 0)[:, :4]
    a, b = shares(theirs, height, width), shares(ours, height, width)
    assert (np.abs(a - b) < 6 * b[:, 1:] * math.sqrt(2 / count)).all()
