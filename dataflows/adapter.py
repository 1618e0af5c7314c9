"""From a chain of DataFlows to what a training loop iterates over: torch tensors on its device."""
import contextlib
import warnings
import weakref
from typing import Any, Callable, Iterator

import numpy as np
import torch

from dataflows.batch import DecodeBatches
from dataflows.decode import RecordReader
from dataflows.epoch import Epoch
from dataflows.options import integer
from dataflows.parallel import usable_cpus
from dataflows.quiet import BatchData, DataFlow

Batch = tuple[torch.Tensor | list[Any], torch.Tensor]


class TorchBatches:
    """Iterates over `(images, labels)`, torch tensors; the base of LMDBLoader and LMDBIterLoader, and their options.

    labels: int64 of shape (B,). images: uint8 of shape (B, 3, h, w) in RGB, 0 to 255. Where `transform` gives images
    of different shapes, as None does for photos, they are a list of B tensors of shape (3, H, W).

    transform: RandomResizedCrop or CenterCrop, which are fused into decoding; or a callable on a uint8 RGB array of
        shape (H, W, 3), which runs in the worker threads; or None for whole images.
    num_workers: threads that read and decode, by default one per processor; 0 decodes in the caller. With a fused
        transform, no more run than there are processors.
    drop_last: leave out the last batch if it is smaller than `batch_size`.
    prefetch: batches that may be decoded ahead of the one in use. Each costs its own size in memory.
    array_layout, array_channels: "CHW" and "BGR" for files of other writers that store arrays so.

    What follows is done once per batch, after the transfer to the device:

    device: where the tensors go, as torch names it; None leaves them in host memory.
    pin_memory: transfer from page-locked memory; without an accelerator it does nothing but warn.
    normalize: (mean, std) of three numbers each, on the scale of 0 to 1 as torchvision's: (x / 255 - mean) / std.
    dtype: of the images. A floating dtype means 0 to 1 (or normalized), as torchvision's ToDtype(scale=True) has it;
        None means uint8, or float32 with `normalize`.
    channels_last: images in torch.channels_last memory format.

    The order is a function of (seed, epoch). Each iteration is one epoch, and the next one is the next epoch unless
    set_epoch says otherwise; leaving one early is fine. `len` is the exact number of batches. A batch is the caller's
    own: it is never overwritten while any part of it is referenced. `dataflow` is the chain itself, whose datapoints
    are numpy arrays.

    Errors name the option, its rule and the remedy; those of data name file and key, and are raised at the sample's
    place in the order.
    """

    def __init__(self, pointers: DataFlow, reader: RecordReader, epoch: Epoch, batch_size: int, *,
                 transform: Callable[[np.ndarray], Any] | None = None, num_workers: int | None = None,
                 drop_last: bool = False, prefetch: int = 2, device: torch.device | str | None = None,
                 pin_memory: bool = False, normalize: tuple[Any, Any] | None = None, dtype: torch.dtype | None = None,
                 channels_last: bool = False) -> None:
        batch_size, prefetch = integer("batch_size", batch_size, 1), integer("prefetch", prefetch, 1)
        num_workers = usable_cpus() if num_workers is None else integer("num_workers", num_workers, 0)
        if transform is not None and not callable(transform) and not hasattr(transform, "plan"):
            raise TypeError(f"transform must be RandomResizedCrop, CenterCrop, a callable or None, not {transform!r}")
        if drop_last and len(pointers) < batch_size:
            raise ValueError(f"drop_last=True with batch_size={batch_size} leaves nothing of {len(pointers)} samples; "
                             f"use a smaller batch_size or drop_last=False")
        batches = BatchData(pointers, batch_size, remainder=not drop_last, use_list=True)
        self.dataflow: DataFlow = DecodeBatches(
            batches, reader, transform, epoch, batch_size=batch_size, num_threads=num_workers, prefetch=prefetch,
            channels_last=channels_last)
        self.dataflow.reset_state()
        self.batch_size = batch_size
        self._finish = _Finish(device, pin_memory, normalize, dtype, channels_last)
        self._epoch = epoch
        self._reader = reader
        self._running: weakref.WeakSet[Any] = weakref.WeakSet()
        self._closed = False

    def __len__(self) -> int:
        return len(self.dataflow)

    def __iter__(self) -> Iterator[Batch]:
        if self._closed:
            raise RuntimeError("the loader is closed; make a new one to iterate again")
        batches = self._iterate()
        self._running.add(batches)
        return batches

    def _iterate(self) -> Iterator[Batch]:
        started = False
        with contextlib.closing(iter(self.dataflow)) as batches:
            for images, labels in batches:
                if not started:  # every component has read the epoch by now
                    self._epoch.number += 1
                    started = True
                yield self._finish(images, labels)
                if self._closed:
                    return
                del images, labels  # or their memory could not be used for the next batch

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch number `epoch`, an integer of at least 0."""
        self._epoch.number = integer("epoch", epoch, 0)

    def close(self) -> None:
        """Ends running iterations with their threads, and lets go of the file. Closing twice is fine."""
        self._closed = True
        for batches in list(self._running):
            with contextlib.suppress(ValueError):  # another thread is in it, and ends it after its next batch
                batches.close()
        self._reader.store.close()

    def __enter__(self) -> "TorchBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Finish:
    """What is done once per batch: numpy to torch, the transfer, and the conversion after it."""

    def __init__(self, device: torch.device | str | None, pin_memory: bool, normalize: tuple[Any, Any] | None,
                 dtype: torch.dtype | None, channels_last: bool) -> None:
        self._device = None if device is None else torch.device(device)
        self._pin = pin_memory and torch.cuda.is_available()
        if pin_memory and not self._pin:
            warnings.warn("pin_memory=True needs a CUDA device to transfer to, and there is none: it does nothing",
                          stacklevel=4)
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
            mean, std = (torch.as_tensor(v, dtype=torch.float32, device=self._device).reshape(3, 1, 1)
                         for v in normalize)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"normalize must be (mean, std) of three numbers each, not {normalize!r}") from error
        if not (mean.abs().max() <= 1 and 0 < std.min() and std.max() <= 1):
            raise ValueError(f"normalize must have a mean on the scale of 0 to 1 and a std above 0 on the same scale, "
                             f"not {normalize!r}; divide values on the scale of 0 to 255 by 255")
        return mean * 255, 1 / (std * 255)

    def __call__(self, images: Any, labels: np.ndarray) -> Batch:
        images = torch.from_numpy(images) if isinstance(images, np.ndarray) else _stack(images)
        labels = self._transfer(torch.from_numpy(labels))
        if isinstance(images, list):
            return [self._convert(self._transfer(image)) for image in images], labels
        return self._convert(self._transfer(images)), labels

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
        dtype = images.dtype if images.is_floating_point() and self._dtype == torch.uint8 else self._dtype
        return images.to(dtype, memory_format=self._format if images.ndim == 4 else torch.preserve_format)


def _stack(images: list[Any]) -> torch.Tensor | list[Any]:
    """One tensor if all images are alike in shape and dtype, else a list of tensors; other things stay as they are."""
    images = [torch.from_numpy(i) if isinstance(i, np.ndarray) else i for i in images]
    if all(isinstance(i, torch.Tensor) for i in images) and len({(i.shape, i.dtype) for i in images}) == 1:
        return torch.stack(images)
    return images
