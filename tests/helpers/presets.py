"""Pipelines in the shape of torchvision's reference scripts, and what they are compared with."""
import numpy as np
import torch

from uint_lmdb_loader import LMDBDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _to_float(transforms, use_v2):
    return transforms.ToDtype(torch.float32, scale=True) if use_v2 else transforms.ConvertImageDtype(torch.float32)


class ClassificationPresetTrain:
    """A Compose in an object that calls it: the reference script's for training."""

    def __init__(self, transforms, crop_size, *, interpolation, augment=None, erase=0.0, backend="pil", use_v2=False):
        first = [transforms.PILToTensor()] if backend == "tensor" else []
        last = [transforms.PILToTensor()] if backend == "pil" else []
        self.transforms = transforms.Compose([
            *first, transforms.RandomResizedCrop(crop_size, interpolation=interpolation, antialias=True),
            transforms.RandomHorizontalFlip(0.5), *([] if augment is None else [augment]), *last,
            _to_float(transforms, use_v2), transforms.Normalize(MEAN, STD),
            *([transforms.RandomErasing(p=erase)] if erase else []), *([transforms.ToPureTensor()] if use_v2 else [])])

    def __call__(self, image):
        return self.transforms(image)


class ClassificationPresetEval:
    """The reference script's for evaluation."""

    def __init__(self, transforms, crop_size, resize_size, *, interpolation, backend="pil", use_v2=False):
        first = [transforms.PILToTensor()] if backend == "tensor" else []
        last = [transforms.PILToTensor()] if backend == "pil" else []
        self.transforms = transforms.Compose([
            *first, transforms.Resize(resize_size, interpolation=interpolation, antialias=True),
            transforms.CenterCrop(crop_size), *last, _to_float(transforms, use_v2), transforms.Normalize(MEAN, STD),
            *([transforms.ToPureTensor()] if use_v2 else [])])

    def __call__(self, image):
        return self.transforms(image)


def pil_images(path):
    """All images of an LMDB, as PIL images in the order of its keys."""
    dataset = LMDBDataset(path, image_type="pil")
    images = [dataset[number][0] for number in range(len(dataset))]
    dataset.close()
    return images


def levels(images):
    """Normalized images (..., 3, h, w) as float numbers from 0 to 255 again; uint8 ones as they are."""
    if images.dtype == torch.uint8:
        return images.numpy().astype(np.float32)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) * 255).numpy()


def batches(loader):
    """All images of a loader's next epoch as one tensor; the loader is closed."""
    with loader:
        return torch.cat([images for images, *_ in loader])
