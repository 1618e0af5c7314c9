"""uint8 images as the numbers that a model takes: of another dtype, from 0 to 1, normalized."""
from typing import Any

import cv2
import numpy as np
import torch

from dataflows.load.decode.batch_memory import Recycler

_KEPT = 6  # batches of float32 whose memory is used again


class Conversion:
    """Converts images to `dtype`, of which a floating one means from 0 to 1, or normalized.

    normalize: (mean, std) of three numbers each, on the scale of 0 to 1, or None. device: where images are.
    memory_format: of a batch. scaled: whether floating images are from 0 to 1, to be normalized, too; otherwise they
    are refused, for they may have been normalized before.

    Raises ValueError for a wrong `normalize`.
    """

    def __init__(self, dtype: torch.dtype, normalize: Any, device: torch.device | None,
                 memory_format: torch.memory_format, *, scaled: bool) -> None:
        self._dtype, self._format, self._scaled = dtype, memory_format, scaled
        device = device or torch.device("cpu")  # whatever the default device and dtype for new tensors are
        self._constants = None if normalize is None else _constants(normalize, device)
        self._level = torch.tensor(1 / 255, dtype=torch.float32, device=device)
        self._floats: Recycler | None = None
        self._levels: np.ndarray | None = None

    def __call__(self, images: Any) -> Any:
        """Images of shape (3, H, W), or a batch of them; what is no tensor stays as it is."""
        if not isinstance(images, torch.Tensor):
            return images
        if images.dtype == torch.uint8 and self._dtype.is_floating_point:
            images = self._from_uint8(images)
        elif self._constants is not None:
            images = self._from_floats(images, *self._constants)
        dtype = images.dtype if self._dtype == torch.uint8 else self._dtype  # other integers would wrap around
        return images.to(dtype, memory_format=self._format if images.ndim == 4 else torch.preserve_format)

    def each(self, images: list[torch.Tensor]) -> list[torch.Tensor]:
        """The same for each of these; where they are alike, they become parts of one batch in memory."""
        first = images[0]
        if (first.dtype != torch.uint8 or first.ndim != 3 or not all(image.is_contiguous() for image in images)
                or len({(image.shape, image.dtype) for image in images}) > 1):
            return [self(image) for image in images]
        if not self._dtype.is_floating_point:
            return images
        floats = self._memory(first.expand(len(images), *first.shape))
        for image, out in zip(images, floats):
            self._look_up(image, out)
        return list(floats)

    def _from_uint8(self, images: torch.Tensor) -> torch.Tensor:
        """float32, in which all is computed: bfloat16 would keep 3 of the 8 bits where mean and pixel nearly cancel."""
        if self._constants is not None and (images.ndim < 3 or images.shape[-3] != 3):
            raise ValueError(f"normalize expects images of shape (3, H, W), and the transform gives "
                             f"{tuple(images.shape)}")
        in_order = images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last)
        if images.ndim != 4 or images.device.type != "cpu" or not in_order:
            return self._scale(images)
        floats = self._memory(images)
        for image, out in zip(images, floats):
            self._look_up(image, out)
        return floats

    def _scale(self, images: torch.Tensor) -> torch.Tensor:
        if self._constants is None:
            return images * self._level
        return torch.sub(images, self._constants[0]).mul_(self._constants[1])

    def _look_up(self, image: torch.Tensor, out: torch.Tensor) -> None:
        """What `_scale` gives for an image, bit for bit, in `out`: 0.14 ms for 224 x 224 pixels in memory that was used
        before, and 0.90 for a whole batch in fresh memory. torch would wake its pool for it, whose idle threads spin.
        """
        tables = self._tables()
        if out.is_contiguous():
            for number, (plane, result) in enumerate(zip(image.numpy(), out.numpy())):
                cv2.LUT(plane, tables[number % len(tables)], dst=result)
        else:  # channels-last memory: all channels at once
            of_channels = np.ascontiguousarray(np.broadcast_to(tables.T, (256, image.shape[0])))[None]
            cv2.LUT(image.permute(1, 2, 0).numpy(), of_channels, dst=out.permute(1, 2, 0).numpy())

    def _tables(self) -> np.ndarray:
        """What each of the 256 levels becomes, float32: of shape (3, 256), or (1, 256) where channels are alike."""
        if self._levels is None:
            levels = torch.arange(256, dtype=torch.uint8, device=self._level.device)
            self._levels = self._scale(levels).reshape(-1, 256).cpu().numpy()
        return self._levels

    def _memory(self, images: torch.Tensor) -> torch.Tensor:
        """float32 for so many images, in the order of axes that they have in memory."""
        last = not images.is_contiguous() and images.stride(1) == 1
        shape = tuple(images.permute(0, 2, 3, 1).shape if last else images.shape)
        if self._floats is None or self._floats.shape[1:] != shape[1:] or self._floats.shape[0] < len(images):
            self._floats = Recycler(shape, _KEPT, np.dtype(np.float32))
        floats = torch.from_numpy(self._floats.take()[:len(images)])
        return floats.permute(0, 3, 1, 2) if last else floats

    def _from_floats(self, images: torch.Tensor, mean: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Of images that a step of the transform has made other numbers of."""
        if self._scaled and images.is_floating_point() and images.ndim >= 3 and images.shape[-3] == 3:
            return images.float().mul(255).sub_(mean).mul_(factor)
        raise ValueError(f"normalize expects uint8 images of shape (3, H, W), and the transform gives "
                         f"{images.dtype} of shape {tuple(images.shape)}: normalize in one place only")


def _constants(normalize: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / 255 - mean) / std as one subtraction and one multiplication, by three numbers each."""
    try:
        mean, std = (torch.as_tensor(v, dtype=torch.float32, device=device).reshape(3, 1, 1) for v in normalize)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"normalize must be (mean, std) of three numbers each, not {normalize!r}") from error
    if not (mean.abs().max() <= 1 and 0 < std.min() and std.max() <= 1):
        raise ValueError(f"normalize must have a mean on the scale of 0 to 1 and a std above 0 on the same scale, "
                         f"not {normalize!r}; divide values on the scale of 0 to 255 by 255")
    return mean * 255, 1 / (std * 255)
