"""Transforms of torchvision and timm, known by their names: what they say of themselves, in the words of this package.

torchvision is not imported here: whoever has an object of it has imported it. A subclass has another name, so it is not
known, and runs as it stands. Attributes are those of torchvision 0.17 to 0.29 and timm 1.0.
"""
import importlib
import math
from typing import Any

import torch

from dataflows.images.transforms import CenterCrop, RandomResizedCrop

_PACKAGES = ("torchvision.transforms", "timm.data")
_INTERPOLATIONS = {"bilinear": "bilinear", "bicubic": "bicubic", 2: "bilinear", 3: "bicubic"}  # numbers are Pillow's
_TO_TENSOR = {"ToImage", "PILToTensor", "ToPureTensor", "MaybePILToTensor"}  # which keep uint8
_TO_FLOAT = {"ToTensor", "MaybeToTensor"}  # from 0 to 1


def name_of(transform: object) -> str:
    """The name of a transform's class if it is one of torchvision or timm, else ""."""
    cls = type(transform)
    return cls.__name__ if cls.__module__.startswith(_PACKAGES) else ""


def parts_of(transform: Any) -> list[Any] | None:
    """The transforms that `transform` calls one after the other, in order; None if it is not known to be several."""
    if isinstance(transform, (list, tuple)):
        parts = list(transform)
    elif name_of(transform) == "Compose":
        parts = list(transform.transforms)
    elif type(transform) is torch.nn.Sequential:
        parts = list(transform)
    elif type(transform).__name__ in ("ClassificationPresetTrain", "ClassificationPresetEval"):
        parts = [transform.transforms]  # of torchvision's reference scripts: a Compose in an object that calls it
    elif name_of(transform) == "ImageClassification":
        parts = _of_weights(transform)
    else:
        return None
    taken_apart = ((parts_of(item), item) for item in parts)
    return [part for inner, item in taken_apart for part in ([item] if inner is None else inner)]


def _of_weights(preset: Any) -> list[Any]:
    """What `weights.transforms()` of torchvision's models does, as single transforms."""
    v2 = importlib.import_module("torchvision.transforms.v2")
    return [v2.Resize(preset.resize_size, interpolation=preset.interpolation, antialias=preset.antialias),
            v2.CenterCrop(preset.crop_size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preset.mean, preset.std)]


def is_to_tensor(transform: object) -> bool:
    """Whether it makes a tensor of a PIL image and changes no pixel."""
    return name_of(transform) in _TO_TENSOR


def is_to_float(transform: Any) -> bool:
    """Whether it makes float32 from 0 to 1 of uint8 from 0 to 255."""
    name = name_of(transform)
    return (name in _TO_FLOAT or (name == "ConvertImageDtype" and transform.dtype is torch.float32)
            or (name == "ToDtype" and transform.dtype is torch.float32 and transform.scale))


def takes_pil(transform: object) -> bool:
    """Whether it is there to make something else of a PIL image."""
    return name_of(transform) in _TO_TENSOR - {"ToPureTensor"} | _TO_FLOAT | {"ToNumpy"}


def changes_nothing(transform: Any) -> bool:
    """Whether a uint8 RGB image stays as it is."""
    name = name_of(transform)
    return name == "RGB" or (name == "ToDtype" and transform.dtype is torch.uint8)


def normalize_of(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) of a Normalize for three channels whose values the loaders take, else None."""
    if name_of(transform) != "Normalize":
        return None
    try:
        mean, std = (tuple(float(x) for x in values) for values in (transform.mean, transform.std))
    except TypeError:  # one number for all channels
        return None
    fits = len(mean) == len(std) == 3 and max(map(abs, mean)) <= 1 and 0 < min(std) and max(std) <= 1
    return (mean, std) if fits else None


def crop_of(parts: list[Any], on_tensors: bool) -> tuple[RandomResizedCrop | CenterCrop | None, int, str]:
    """(the crop of this package that does what the first of `parts` do, how many those are, why there is none).

    on_tensors: whether images are tensors there, to which `antialias` applies; PIL always filters.
    """
    names = [*map(name_of, parts[:2]), "", ""]
    if names[0] in ("RandomResizedCrop", "RandomResizedCropAndInterpolation"):
        return _random_crop(parts, names[1], on_tensors)
    if names[0] == "Resize":
        return _center_crop(parts, names[1], on_tensors)
    first = type(parts[0]).__name__ if parts else "nothing"
    return None, 0, f"{first} comes first, and only RandomResizedCrop, or Resize and CenterCrop, can be fused"


def _random_crop(parts: list[Any], second: str, on_tensors: bool) -> tuple[RandomResizedCrop | None, int, str]:
    first = parts[0]
    interpolation = _interpolation(first)
    if interpolation is None or (on_tensors and getattr(first, "antialias", True) is False):
        return None, 0, _unlike(first)
    flip = parts[1].p if second == "RandomHorizontalFlip" else 0.0
    try:
        return RandomResizedCrop(_size(first.size), _floats(first.scale), _floats(first.ratio), hflip=flip,
                                 interpolation=interpolation), 1 + (second == "RandomHorizontalFlip"), ""
    except (TypeError, ValueError) as error:
        return None, 0, str(error)


def _center_crop(parts: list[Any], second: str, on_tensors: bool) -> tuple[CenterCrop | None, int, str]:
    resize = parts[0]
    sides = resize.size if isinstance(resize.size, (list, tuple)) else [resize.size]
    interpolation = _interpolation(resize)
    if second != "CenterCrop" or len(sides) != 1 or sides[0] is None or resize.max_size is not None:
        return None, 0, "of a Resize, only that of the shorter side can be fused, with a CenterCrop after it"
    if interpolation is None or interpolation == "random" or (on_tensors and resize.antialias is False):
        return None, 0, _unlike(resize)
    try:
        return CenterCrop(_size(parts[1].size), sides[0], interpolation=interpolation), 2, ""
    except (TypeError, ValueError) as error:
        return None, 0, str(error)


def _interpolation(transform: Any) -> str | None:
    mode = transform.interpolation
    modes = mode if isinstance(mode, (list, tuple)) else [mode]
    found = [_INTERPOLATIONS.get(getattr(mode, "value", mode)) for mode in modes]
    return "random" if found == ["bilinear", "bicubic"] else found[0] if len(found) == 1 else None


def _unlike(transform: Any) -> str:
    return (f"{type(transform).__name__} has interpolation={transform.interpolation} and "
            f"antialias={getattr(transform, 'antialias', True)}; bilinear and bicubic can be fused, with antialias")


def _size(size: Any) -> Any:
    return size if isinstance(size, int) else tuple(size) if len(size) == 2 else size[0]


def _floats(pair: Any) -> tuple[float, float]:
    low, high = map(float, pair)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{pair} has a bound that is no number")
    return low, high
