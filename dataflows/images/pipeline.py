"""A user's transform as what is fused into decoding, what is called for each image, and what is done for each batch."""
import dataclasses
import logging
from typing import Any, Callable, Sequence

import numpy as np
import torch

from dataflows.images import known_transforms as known
from dataflows.images.compiled import ready
from dataflows.images.image_types import IMAGE_TYPES, KINDS, as_image
from dataflows.images.tail import Tail, as_tail, name_of_step
from dataflows.images.transforms import CenterCrop, RandomResizedCrop, is_fused
from dataflows.options import one_of

Crop = RandomResizedCrop | CenterCrop
Transform = Crop | Callable[[Any], Any] | Sequence[Any]
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """The transform of a loader or dataset, taken apart; `print` shows how.

    given: what the user gave. crop: is carried out while decoding; None for whole images. steps: are called for each
    image, one after the other. image_type: what the first of them gets: "tensor", uint8 of shape (3, H, W); "numpy",
    uint8 of shape (H, W, 3); or "pil". RGB in each case. tail: is done for each batch. why: why there is no crop.
    parts: whether it is several transforms, or one of torchvision or timm, and was taken apart.
    """

    given: Transform | None
    crop: Crop | None = None
    steps: tuple[Callable[[Any], Any], ...] = ()
    image_type: str = "tensor"
    tail: Tail = Tail()
    why: str = ""
    parts: bool = False

    def __post_init__(self) -> None:
        if self.crop is not None and (self.crop.antialias or self.crop.fast_decode):
            ready.start()  # here, and not in each process that is forked from this one

    @property
    def window(self) -> tuple[int, int] | None:
        """(height, width) of the crop, in pixels, or None."""
        return None if self.crop is None else self.crop.window

    def lines(self) -> list[tuple[str, str]]:
        """(when, what) of each of its stages that does something."""
        whole = "whole images" + f" ({self.why})" * bool(self.why)
        rows = [("while decoding", whole if self.crop is None else _options(self.crop)),
                (f"per image, on {KINDS[self.image_type]}", ", ".join(map(name_of_step, self.steps))),
                ("per batch", str(self.tail))]
        return [row for row in rows if row[1]]

    def __str__(self) -> str:
        rows = self.lines()
        width = max(len(when) for when, _ in rows)
        return "\n".join(["Pipeline", *(f"    {when:{width}}  {what}" for when, what in rows)])

    def crops_shape(self, count: int) -> tuple[int, ...]:
        """Of memory for so many crops, in the order of axes that suits image_type: `as_planes` and `as_image` know."""
        assert self.crop is not None
        height, width = self.crop.window
        return (count, 3, height, width) if self.image_type == "tensor" else (count, height, width, 3)

    def as_planes(self, crops: np.ndarray) -> np.ndarray:
        """Such memory, seen as (B, 3, h, w)."""
        return crops if self.image_type == "tensor" else crops.transpose(0, 3, 1, 2)

    def as_image(self, crop: np.ndarray) -> Any:
        """A crop in such memory as what image_type says."""
        return torch.from_numpy(crop) if self.image_type == "tensor" else as_image(crop, self.image_type)

    def apply(self, image: Any) -> Any:
        """What the steps make of an image of image_type that is cropped already, ready for the tail. It has this name,
        and a pipeline cannot be called, so that nobody takes the steps for all of the transform."""
        for step in self.steps:
            image = step(image)
        return self.tail.converted(image)


def pipeline_of(transform: Transform | Pipeline | None, image_type: str | None = None,
                default_type: str = "tensor") -> Pipeline:
    """Takes a transform apart.

    transform: RandomResizedCrop or CenterCrop; a callable; a list or Compose, the first of which may be one of those
        two; a pipeline of torchvision or timm; a Pipeline; or None.
    image_type: what callables get. By default what a known pipeline expects, and `default_type` for other callables.

    Raises TypeError for what is none of these, and ValueError for another image_type.
    """
    if isinstance(transform, Pipeline):
        transform = transform.given
    if image_type is not None:
        one_of("image_type", image_type, IMAGE_TYPES)
    if transform is None or is_fused(transform):
        return Pipeline(transform, transform or None, image_type=image_type or default_type)
    parts = known.parts_of(transform)
    if parts is None and known.name_of(transform):
        parts = [transform]
    if parts is None:
        return Pipeline(transform, steps=(_callable(transform, "transform"),), image_type=image_type or default_type)
    pipeline = _taken_apart(transform, parts, image_type)
    logger.info("transform: %s", "; ".join(f"{when}: {what}" for when, what in pipeline.lines()))
    return pipeline


def _callable(transform: Any, name: str) -> Callable[[Any], Any]:
    if isinstance(transform, type) and (issubclass(transform, (RandomResizedCrop, CenterCrop))
                                        or any("__call__" in vars(cls) for cls in transform.__mro__)):
        raise TypeError(f"{name} must be an instance, such as {transform.__name__}(...), not the class "
                        f"{transform.__name__} itself")
    if not callable(transform):
        raise TypeError(f"{name} must be RandomResizedCrop, CenterCrop, a callable, a list or Compose of such, or "
                        f"None, not {transform!r}")
    step: Callable[[Any], Any] = transform
    return step


def _taken_apart(given: Any, parts: list[Any], image_type: str | None) -> Pipeline:
    for place, part in enumerate(parts):
        if place and is_fused(part):
            raise TypeError(f"{type(part).__name__} of this package is fused into decoding, so it must be the first of "
                            f"the transforms, not number {place + 1}")
        if not is_fused(part):
            _callable(part, f"transform number {place + 1}")
    converts = any(map(known.takes_pil, parts))
    crop: Crop | None
    lead: list[Any] = []  # conversions before the crop, which give the same after it
    if parts and is_fused(parts[0]):
        crop, used, why = parts[0], 1, ""
    else:
        lead = _leading(parts)
        on_pil = converts and not any(map(known.takes_pil, lead))
        crop, used, why = known.crop_of(parts[len(lead):], on_tensors=not on_pil)
    rest = parts[len(lead) + used:] if crop else parts
    steps, tail = _without_tail(rest)
    if crop and any(map(known.takes_pil, lead)):
        converts = False
        tail = dataclasses.replace(tail, to_tensor=True)
    if crop and steps:
        # A crop that comes as a tensor needs no conversion, but the one to torchvision's own kind of tensor.
        kept = lead if image_type in ("pil", "numpy") else [part for part in lead if known.name_of(part) == "ToImage"]
        steps = kept + steps
    return Pipeline(given, crop, tuple(steps), image_type or ("pil" if converts else "tensor"), tail, why, parts=True)


def _leading(parts: list[Any]) -> list[Any]:
    count = 0
    while count < len(parts) and (known.is_to_tensor(parts[count]) or known.changes_nothing(parts[count])):
        count += 1
    return parts[:count]


def _without_tail(parts: list[Any]) -> tuple[list[Any], Tail]:
    """`parts` without those at their end that can be done for a batch at once, and these."""
    for start in range(len(parts) + 1):
        tail = as_tail(parts[start:])
        if tail is not None:
            return parts[:start], tail
    raise AssertionError("the empty list is a tail")


def _options(crop: Crop) -> str:
    """The crop and those of its options that are not the default."""
    options = [f"{field.name}={getattr(crop, field.name)!r}" for field in dataclasses.fields(crop)
               if getattr(crop, field.name) != field.default]
    return f"{type(crop).__name__}({', '.join(options)})"
