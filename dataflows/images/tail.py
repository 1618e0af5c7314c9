"""The end of a transform that is done for a whole batch at once: floats, Normalize, RandomErasing."""
import dataclasses
import textwrap
from typing import Any, Callable

import numpy as np
import torch

from dataflows.images import known_transforms as known


@dataclasses.dataclass(frozen=True, eq=False)
class Tail:
    """What is done to a whole batch of uint8 images, in this order, where its tensors are.

    to_tensor: whether it begins with a tensor, whatever was before it. scale: float32 from 0 to 1. normalize: (mean,
    std) of three numbers each, which is then applied. erase: is called for each image of shape (3, h, w) at last, as
    RandomErasing. conversions: those of the user's transforms that to_tensor and scale stand for.
    """

    to_tensor: bool = False
    scale: bool = False
    normalize: tuple[Any, Any] | None = None
    erase: Callable[[torch.Tensor], torch.Tensor] | None = None
    conversions: tuple[Callable[[Any], Any], ...] = ()

    def converted(self, image: Any) -> Any:
        """An image after the steps, ready for its batch: uint8 and RGB, or a tensor of fractions. What is neither, such
        as a gray PIL image or an int16 tensor, is converted as the user's own transforms do it.

        Raises TypeError for what is no image.
        """
        if not self.to_tensor or _is_ready(image):
            return image
        if not (isinstance(image, torch.Tensor) or hasattr(image, "__array_interface__")):
            raise TypeError(f"the steps of the transform gave {type(image).__name__} to its conversion to tensors, "
                            f"which is done for a whole batch of images. They must give an image; if they give "
                            f"something else, put all of the transform into one function")
        for convert in self.conversions:
            image = convert(image)
        return image

    def __str__(self) -> str:
        normalize = self.normalize and "Normalize(mean=({}), std=({}))".format(
            *(", ".join(f"{value:g}" for value in values) for values in self.normalize))
        steps = ["float32 from 0 to 1" if self.scale else None, normalize, self.erase and name_of_step(self.erase)]
        return ", ".join(step for step in steps if step)


def as_tail(parts: list[Any]) -> Tail | None:
    """What transforms of uint8 images do, if all of them can be done for a batch at once; None if not."""
    scale, normalize, erase = False, None, None
    conversions: list[Any] = []
    for part in parts:
        if known.is_to_tensor(part) or (known.changes_nothing(part) and not scale):
            conversions.append(part)
        elif not scale and known.is_to_float(part):
            scale = True
            conversions.append(part)
        elif scale and not normalize and not erase and known.normalize_of(part):
            normalize = known.normalize_of(part)
        elif scale and not erase and known.name_of(part) == "RandomErasing":
            erase = part
        else:
            return None
    return Tail(bool(parts), scale, normalize, erase, tuple(conversions))


def _is_ready(image: Any) -> bool:
    """Whether the tail of a batch does for it what it does for images: uint8 and RGB, or a tensor of fractions."""
    if isinstance(image, torch.Tensor):
        return image.dtype == torch.uint8 or image.is_floating_point()
    if isinstance(image, np.ndarray):
        return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return getattr(image, "mode", None) == "RGB"


def name_of_step(transform: Any) -> str:
    """How a callable is shown."""
    name = getattr(transform, "__name__", None)
    return name if isinstance(name, str) else textwrap.shorten(repr(transform), 100, placeholder=" ...)")
