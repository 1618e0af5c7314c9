"""Contestants that read a folder of files through torch's DataLoader."""
import contextlib
import os
import random
from typing import Iterator

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from benchmarks import recipes
from benchmarks.contestants import RESIZE, SIZE, Epoch, Job
from benchmarks.dataloader import torch_epochs
from benchmarks.opencv import random_box
from dataflows.sources.imagenet import ImageNetFiles


class PilFolder(Dataset):  # type: ignore[type-arg]
    """What torchvision's ImageFolder and transforms do with PIL images, step by step, without torchvision."""

    def __init__(self, job: Job) -> None:
        self._files = ImageNetFiles(job.source, job.split)
        self._crop = _random_resized_crop if job.training else _center_crop

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        name, label = self._files.pointers[number]
        with open(os.path.join(self._files.root, name), "rb") as file:
            image = Image.open(file).convert("RGB")
        pixels = np.array(self._crop(image))
        return torch.from_numpy(pixels).permute(2, 0, 1), label


def _random_resized_crop(image: Image.Image) -> Image.Image:
    top, left, height, width = random_box(image.height, image.width)
    image = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def _center_crop(image: Image.Image) -> Image.Image:
    shorter = min(image.size)
    image = image.resize((RESIZE * image.width // shorter, RESIZE * image.height // shorter),
                         Image.Resampling.BILINEAR)
    left, top = round((image.width - SIZE) / 2), round((image.height - SIZE) / 2)
    return image.crop((left, top, left + SIZE, top + SIZE))


@contextlib.contextmanager
def folder_pil(job: Job) -> Iterator[Epoch]:
    """torch's DataLoader, PIL, and the steps of torchvision's transforms: what most people train with."""
    yield torch_epochs(PilFolder(job), job)


@contextlib.contextmanager
def torchvision(job: Job, recipe: str = "") -> Iterator[Epoch]:
    """torch's DataLoader over torchvision's ImageFolder and transforms, as its reference training has them."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    if recipe:
        steps = recipes.transforms(recipe)
    elif job.training:
        steps = [*recipes.on_pil_images(recipe), transforms.PILToTensor()]
    else:
        steps = [transforms.Resize(RESIZE), transforms.CenterCrop(SIZE), transforms.PILToTensor()]
    yield torch_epochs(ImageFolder(os.path.join(job.source, job.split), transforms.Compose(steps)), job)
