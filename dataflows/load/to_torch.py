"""Converts a batch: from numpy to torch, to the device, and to the dtype that was asked for."""
import copy
import warnings
from typing import Any, Callable

import numpy as np
import torch
from torch.utils.data import default_collate

from dataflows.images.image_types import planar
from dataflows.images.tail import Tail
from dataflows.load.conversion import Conversion
from dataflows.load.decode.seeds import ERASE, PER_BATCH, generators_kept, seed_generators, seeds_of
from dataflows.threads import torch_in_one_thread

Batch = tuple[Any, ...]  # (images, labels), or (images, labels, record numbers)


class ToTorch:
    """What is done once per batch: numpy to torch, the transfer, and what follows it.

    convert: is done to images after the transfer. batch_transform: is called with images and labels at last.
    return_index: whether record numbers come with the batch.
    """

    def __init__(self, device: torch.device | str | None = None, pin_memory: bool = False,
                 normalize: tuple[Any, Any] | None = None, dtype: torch.dtype | None = None,
                 channels_last: bool = False, batch_transform: Callable[[Any, Any], Any] | None = None,
                 return_index: bool = False) -> None:
        self._device = None if device is None else _checked(device)
        self._pin = pin_memory and torch.cuda.is_available()
        if pin_memory and not self._pin:
            warnings.warn("pin_memory=True needs a CUDA device to transfer to, and there is none: it does nothing",
                          stacklevel=4)  # the line of the user, beyond LMDBLoader.__init__ and its decorator
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be one of torch's, such as torch.float16, not {dtype!r}")
        if not (batch_transform is None or callable(batch_transform)):
            raise TypeError(f"batch_transform must be a callable on (images, labels), not {batch_transform!r}")
        self.pin_memory = pin_memory
        self._format = torch.channels_last if channels_last else torch.preserve_format
        self._asked_dtype, self._asked_normalize = dtype, normalize
        self._batch_transform, self.return_index = batch_transform, return_index
        self._take(Tail(), scaled=False)

    def with_tail(self, tail: Tail) -> "ToTorch":
        """The same, with another tail. Raises ValueError where it does not go with the options."""
        other = copy.copy(self)
        other._take(tail, scaled=tail.scale)
        return other

    def _take(self, tail: Tail, *, scaled: bool) -> None:
        """scaled: whether images that come as fractions are from 0 to 1."""
        normalize = self._asked_normalize
        if tail.normalize is not None and normalize is not None:
            raise ValueError("the transform has a Normalize, and normalize is given, too: normalize in one place only")
        if tail.erase is not None and normalize is not None:
            raise ValueError("the transform ends with RandomErasing, which normalize would come before: put a "
                             "Normalize before it into the transform instead")
        dtype = self._asked_dtype or (torch.uint8 if normalize is None and not tail.scale else torch.float32)
        if (normalize is not None or tail.scale) and not dtype.is_floating_point:
            raise ValueError(f"{'normalize' if normalize is not None else 'the transform'} gives fractions, so dtype "
                             f"must be a floating one, not {dtype}")
        self.convert = Conversion(dtype, tail.normalize or normalize, self._device, self._format, scaled=scaled)
        self._tail, self._erase = tail, _in_place(tail.erase)

    @property
    def needs_pointers(self) -> bool:
        """Whether batches have to come with their record numbers and positions."""
        return self.return_index or self._batch_transform is not None or self._tail.erase is not None

    def __call__(self, seed: int, epoch: int, images: Any, labels: Any, numbers: np.ndarray | None = None,
                 positions: np.ndarray | None = None) -> Batch:
        """The batch of an epoch as tensors. Draws of what is called here are a function of (seed, epoch, position)."""
        images = torch.from_numpy(images) if isinstance(images, np.ndarray) else _stack(images)
        targets = torch.from_numpy(labels) if isinstance(labels, np.ndarray) else _collated(labels)
        targets = self._transfer(targets)
        if isinstance(images, list):
            images = [self.convert(self._transfer(image)) for image in images]
        else:
            images = self.convert(self._transfer(images))
        batch = images, targets
        if positions is not None and (self._tail.erase or self._batch_transform):
            with generators_kept(self._device), torch_in_one_thread():
                batch = self._drawn(seed, epoch, positions, images, targets)
        return (*batch, torch.from_numpy(numbers)) if self.return_index and numbers is not None else batch

    def collate(self, samples: list[Any]) -> Any:
        """A batch of a dataset's samples, (image, label) or more, which have had the tail of their transform: of the
        shapes that the loader's have."""
        first, *rest = map(list, zip(*samples))
        images = _stack([planar(image) for image in first])
        converted = [self.convert(image) for image in images] if isinstance(images, list) else self.convert(images)
        return [converted, *map(default_collate, rest)]

    def for_samples(self) -> "ToTorch":
        """The same for `collate`: in host memory, without a tail, and without a batch_transform."""
        other = copy.copy(self)
        other._device, other._pin, other._batch_transform = None, False, None
        other._take(Tail(), scaled=self._tail.scale)
        return other

    def _drawn(self, seed: int, epoch: int, positions: np.ndarray, images: Any, targets: Any) -> tuple[Any, Any]:
        """The batch after what draws at random."""
        # What is no array of ours may be the user's own tensors.
        erase = self._erase if isinstance(images, torch.Tensor) else self._tail.erase
        if erase is not None:
            for place, number in enumerate(seeds_of(ERASE, seed, epoch, positions)):
                seed_generators(number, self._device)
                image = images[place]
                erased = erase(image)
                if erased.data_ptr() != image.data_ptr():
                    images[place] = erased
        if self._batch_transform is None:
            return images, targets
        [number] = seeds_of(PER_BATCH, seed, epoch, positions[:1])
        seed_generators(number, self._device)
        batch = self._batch_transform(images, targets)
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(f"batch_transform must return (images, labels), not {type(batch).__name__}")
        return batch[0], batch[1]

    def _transfer(self, tensor: Any) -> Any:
        if self._device is None or not isinstance(tensor, torch.Tensor):
            return tensor
        return (tensor.pin_memory() if self._pin else tensor).to(self._device, non_blocking=self._pin)


def _collated(labels: list[Any]) -> Any:
    """What a target_transform gave, as one batch."""
    try:
        return default_collate(labels)
    except (TypeError, RuntimeError) as error:
        raise type(error)(f"what target_transform gives cannot become one batch: {error}. It must give numbers, texts, "
                          f"tensors of one shape, or tuples or dicts of these") from error


def _in_place(erase: Any) -> Any:
    """The same RandomErasing, which may write into what it is given: a batch of our own."""
    if not hasattr(erase, "inplace"):
        return erase
    erase = copy.copy(erase)
    erase.inplace = True
    return erase


def _checked(device: torch.device | str) -> torch.device:
    """The device, if it is one and is there."""
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be one as torch names them, such as 'cpu', 'cuda', 'cuda:1' or 'mps', not "
                         f"{device!r}") from error
    try:
        torch.empty(0, device=known)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r} is not to be had here: {error}") from error
    return known


def _stack(images: list[Any]) -> torch.Tensor | list[Any]:
    """One tensor if all images are alike in shape and dtype, else a list of tensors; other things stay as they are."""
    images = [torch.from_numpy(i) if isinstance(i, np.ndarray) else i for i in images]
    if all(isinstance(i, torch.Tensor) for i in images) and len({(i.shape, i.dtype) for i in images}) == 1:
        return torch.stack(images)
    return images
