"""Torchvision's reference training, as transforms of PIL images: what the contestants of a recipe do to each image."""
from typing import Any

from benchmarks.contestants import SIZE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def transforms(recipe: str) -> list[Any]:
    """From a PIL image to a normalized float32 tensor of shape (3, SIZE, SIZE).

    recipe: "trivial" has TrivialAugmentWide on the crop, "erasing" has RandomErasing with a probability of 0.25 at the
        end.
    """
    import torch
    from torchvision import transforms as tv

    return [*on_pil_images(recipe), tv.PILToTensor(), tv.ConvertImageDtype(torch.float32), tv.Normalize(MEAN, STD),
            *([tv.RandomErasing(0.25)] if recipe == "erasing" else [])]


def on_pil_images(recipe: str) -> list[Any]:
    """Those of them that come before the tensor."""
    from torchvision import transforms as tv

    return [tv.RandomResizedCrop(SIZE), tv.RandomHorizontalFlip(),
            *([tv.TrivialAugmentWide()] if recipe == "trivial" else [])]
