"""Converts a batch: from numpy to torch, to the device, and to the dtype that was asked for."""
import warnings
from typing import Any

import numpy as np
import torch

Batch = tuple[torch.Tensor | list[Any], torch.Tensor]


class ToTorch:
    """What is done once per batch: numpy to torch, the transfer, and the conversion after it."""

    def __init__(self, device: torch.device | str | None = None, pin_memory: bool = False,
                 normalize: tuple[Any, Any] | None = None, dtype: torch.dtype | None = None,
                 channels_last: bool = False) -> None:
        self._device = None if device is None else _checked(device)
        self._pin = pin_memory and torch.cuda.is_available()
        if pin_memory and not self._pin:
            warnings.warn("pin_memory=True needs a CUDA device to transfer to, and there is none: it does nothing",
                          stacklevel=4)  # the line of the user, beyond LMDBLoader.__init__ and its decorator
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be one of torch's, such as torch.float16, not {dtype!r}")
        self._dtype = dtype or (torch.uint8 if normalize is None else torch.float32)
        if normalize is not None and not self._dtype.is_floating_point:
            raise ValueError(f"normalize gives fractions, so dtype must be a floating one, not {self._dtype}")
        self._constants = None if normalize is None else self._make_constants(normalize)
        self._format = torch.channels_last if channels_last else torch.preserve_format

    def _make_constants(self, normalize: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(x / 255 - mean) / std as one subtraction and one multiplication, by three numbers each."""
        try:
            # Without a device batches stay in host memory, whatever the default device for new tensors is.
            mean, std = (torch.as_tensor(v, dtype=torch.float32, device=self._device or "cpu").reshape(3, 1, 1)
                         for v in normalize)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"normalize must be (mean, std) of three numbers each, not {normalize!r}") from error
        if not (mean.abs().max() <= 1 and 0 < std.min() and std.max() <= 1):
            raise ValueError(f"normalize must have a mean on the scale of 0 to 1 and a std above 0 on the same scale, "
                             f"not {normalize!r}; divide values on the scale of 0 to 255 by 255")
        return mean * 255, 1 / (std * 255)

    def __call__(self, images: Any, labels: np.ndarray) -> Batch:
        images = torch.from_numpy(images) if isinstance(images, np.ndarray) else _stack(images)
        targets = self._transfer(torch.from_numpy(labels))
        if isinstance(images, list):
            return [self._convert(self._transfer(image)) for image in images], targets
        return self._convert(self._transfer(images)), targets

    def _transfer(self, tensor: Any) -> Any:
        if self._device is None or not isinstance(tensor, torch.Tensor):
            return tensor
        return (tensor.pin_memory() if self._pin else tensor).to(self._device, non_blocking=self._pin)

    def _convert(self, images: Any) -> Any:
        if not isinstance(images, torch.Tensor):
            return images
        if self._constants is not None:
            if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-3] != 3:
                raise ValueError(f"normalize expects uint8 images of shape (3, H, W), and the transform gives "
                                 f"{images.dtype} of shape {tuple(images.shape)}: normalize in one place only")
            # In float32 first: bfloat16 would keep 3 of the 8 bits where mean and pixel nearly cancel.
            images = images.float().sub_(self._constants[0]).mul_(self._constants[1])
        elif images.dtype == torch.uint8 and self._dtype.is_floating_point:
            images = images.float().mul_(1 / 255)
        dtype = images.dtype if self._dtype == torch.uint8 else self._dtype  # other integers would wrap around
        return images.to(dtype, memory_format=self._format if images.ndim == 4 else torch.preserve_format)


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
