"""The LMDB as datasets for torch's own DataLoader, one by number and one in order."""
import functools
import logging
import operator
import os
from typing import Any, Callable, Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from dataflows.batch import planar
from dataflows.crop import CenterCrop, RandomResizedCrop
from dataflows.decode import RecordReader
from dataflows.epoch import Epoch
from dataflows.keys import SequentialKeys
from dataflows.options import integer
from dataflows.quiet import DataFlow
from dataflows.shuffle import FiniteLocallyShuffleData
from dataflows.store import Store

logger = logging.getLogger(__name__)


class _Samples:
    """What both datasets share: their options, one sample by its record number, and ImageFolder's attributes.

    path: the LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it.
    image_type: what an image is: "tensor" for a uint8 torch tensor of shape (3, H, W), "numpy" for a uint8 array of
        shape (H, W, 3), "pil" for a PIL image, which needs Pillow. RGB in each case.
    transform: a callable on such an image; or RandomResizedCrop or CenterCrop, which are fused into decoding, give
        images of their size, and draw from torch's generator, which DataLoader seeds anew in each worker and epoch.
    target_transform: a callable on the class number, an int.
    array_layout, array_channels: "CHW" and "BGR" for files of other writers that store arrays so.

    Pickles and forks: each process opens the file for itself. Raises FileNotFoundError or ValueError for a wrong file,
    and RecordError, with file and key, for a wrong record.
    """

    def __init__(self, path: str | os.PathLike[str], *, image_type: str = "tensor",
                 transform: Callable[[Any], Any] | RandomResizedCrop | CenterCrop | None = None,
                 target_transform: Callable[[int], Any] | None = None,
                 array_layout: str = "HWC", array_channels: str = "RGB") -> None:
        if image_type not in _TYPES:
            raise ValueError(f"image_type must be one of {tuple(_TYPES)}, not {image_type!r}")
        self.image_type = image_type
        self.transform = transform
        self.target_transform = target_transform
        self._store = Store(path)
        self._reader = RecordReader(self._store, array_layout=array_layout, array_channels=array_channels)

    def __len__(self) -> int:
        return len(self._store)

    def _sample(self, number: int) -> tuple[Any, Any]:
        if isinstance(self.transform, (RandomResizedCrop, CenterCrop)):
            pixels, label = self._crop(number, self.transform)
            image = _TYPES[self.image_type](pixels)
        else:
            pixels, label = self._reader.pixels(number)
            image = _TYPES[self.image_type](pixels)
            if self.transform is not None:
                image = self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)

    def _crop(self, number: int, transform: RandomResizedCrop | CenterCrop) -> tuple[np.ndarray, int]:
        height, width = transform.size
        out = np.empty((1, height, width, 3), np.uint8)
        position = torch.randint(2**63 - 1, (1,)).numpy()
        [label] = self._reader.crops([number], transform, position, 0, 0, out.transpose(0, 3, 1, 2))
        return out[0], label

    @functools.cached_property
    def targets(self) -> list[int]:
        """The class number of each record. Without an index, reading them reads the whole file once, with a warning."""
        if self._store.index is not None:
            labels: list[int] = self._store.index.label.tolist()
            return labels
        logger.warning("%s has no index, so all of its records are read once for their labels; dump_imagenet.py writes "
                       "an index", self._store.path)
        return [self._reader.view(number)[1] for number in range(len(self))]

    @functools.cached_property
    def classes(self) -> list[str]:
        """Class folder names (wnids, for ImageNet) by class number; the numbers themselves without an index."""
        if self._store.index is not None:
            return self._store.index.classes
        return [str(number) for number in range(max(self.targets) + 1)]

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class number by class folder name."""
        return {name: number for number, name in enumerate(self.classes)}

    def close(self) -> None:
        """Lets go of the file. A later use opens it again."""
        self._store.close()


class LMDBDataset(_Samples, Dataset):
    """A map-style dataset: `dataset[i]` is `(image, target)` of record i, for any sampler of torch's DataLoader.

    `len` is the number of records; negative numbers count from the end; others raise IndexError.
    """

    __doc__ += "".join(_Samples.__doc__.partition("\n\n")[1:])

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        number, size = operator.index(number), len(self)
        if not -size <= number < size:
            raise IndexError(f"{self._store.path} has {size} records; there is no number {number}")
        return self._sample(number % size)


class LMDBIterDataset(_Samples, IterableDataset):
    """An iterable dataset in the order of the file: each worker of a DataLoader reads one contiguous part of it.

    Yields `(image, target)`, every record once over all workers of a DataLoader. `len` is the number of records.
    With `shuffle_buffer` above 0, each part is shuffled within a buffer of so many records, by (seed, epoch);
    set_epoch changes the order, also of the workers of a DataLoader with persistent_workers=True.
    """

    __doc__ += "".join(_Samples.__doc__.partition("\n\n")[1:])

    def __init__(self, path: str | os.PathLike[str], *, shuffle_buffer: int = 0, seed: int = 0, **options: Any) -> None:
        super().__init__(path, **options)
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        # In shared memory, where workers that live on see the change.
        self._epoch_number = torch.zeros((), dtype=torch.int64).share_memory_()
        self._order(range(len(self)))  # refuses wrong options here and not in a worker

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch number `epoch`, an integer of at least 0."""
        self._epoch_number.fill_(integer("epoch", epoch, 0))

    def _order(self, numbers: range) -> DataFlow:
        epoch = Epoch(self.seed)
        epoch.number = int(self._epoch_number)
        keys = SequentialKeys(self._store, numbers)
        return FiniteLocallyShuffleData(keys, self.shuffle_buffer, epoch) if self.shuffle_buffer else keys

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        size = len(self)
        for [number] in self._order(range(size * part // parts, size * (part + 1) // parts)):
            yield self._sample(number)


def _pil_image(pixels: np.ndarray) -> Any:
    from PIL import Image  # optional: only image_type="pil" needs it

    return Image.fromarray(pixels)


_TYPES: dict[str, Callable[[np.ndarray], Any]] = {
    "tensor": lambda pixels: torch.from_numpy(planar(pixels)), "numpy": lambda pixels: pixels, "pil": _pil_image}
