"""The LMDB as datasets for torch's own DataLoader, one by number and one in order."""
import itertools
import operator
import os
from typing import Any, Callable

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from dataflows.images.codecs import MAX_PIXELS
from dataflows.images.transforms import CenterCrop, RandomResizedCrop, check_transform, is_fused
from dataflows.load.decode_batches import planar
from dataflows.load.reader import RecordReader
from dataflows.load.workers.shared_memory import SharedNumber
from dataflows.options import check_state, fixed_property, integer, suggests
from dataflows.order.epoch import Epoch
from dataflows.order.pointers import checked_indices, sequential_pointers
from dataflows.order.ranks import LateRanks, Ranks
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow

_MOST_CLASSES = 2**20  # of a file with fewer records; 60 MB of names


class _Samples:
    """What both datasets share: their options, one sample by its record number, and ImageFolder's attributes.

    path: the LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it.
    image_type: what an image is: "tensor" for a uint8 torch tensor of shape (3, H, W), "numpy" for a uint8 array of
        shape (H, W, 3), "pil" for a PIL image. RGB in each case.
    transform: a callable on such an image; or RandomResizedCrop or CenterCrop, which are fused into decoding, give
        images of their size, and draw from torch's generator, which DataLoader seeds anew in each worker and epoch; so
        a resumed StatefulDataLoader repeats the samples, but not the crops.
    target_transform: a callable on the class number, an int.
    array_layout, array_channels: "CHW" and "BGR" for files of other writers that store arrays so.
    io, verify, max_pixels: as of LMDBLoader.

    Pickles, as path and options, and forks: each process opens the file for itself, and raises ValueError if it or its
    index was changed meanwhile. Raises FileNotFoundError or ValueError for a wrong file, and RecordError, with file
    and key, for a wrong record.
    """

    @suggests
    def __init__(self, path: str | os.PathLike[str],
                 transform: Callable[[Any], Any] | RandomResizedCrop | CenterCrop | None = None,
                 target_transform: Callable[[int], Any] | None = None, *, image_type: str = "tensor",
                 array_layout: str = "HWC", array_channels: str = "RGB", io: str = "auto",
                 verify: bool = False, max_pixels: int = MAX_PIXELS) -> None:
        self.image_type = image_type
        self.transform = transform
        self.target_transform = target_transform
        self._store = Store(path, io=io, verify=verify)
        self._reader = RecordReader(self._store, array_layout=array_layout, array_channels=array_channels,
                                    max_pixels=max_pixels)

    @property
    def image_type(self) -> str:
        """What an image is; may be set."""
        return self._image_type

    @image_type.setter
    def image_type(self, image_type: str) -> None:
        if image_type not in _TYPES:
            raise ValueError(f"image_type must be one of {tuple(_TYPES)}, not {image_type!r}")
        self._image_type = image_type

    @property
    def transform(self) -> Callable[[Any], Any] | RandomResizedCrop | CenterCrop | None:
        """What is done to each image; may be set."""
        return self._transform

    @transform.setter
    def transform(self, transform: Callable[[Any], Any] | RandomResizedCrop | CenterCrop | None) -> None:
        check_transform(transform)
        self._transform = transform

    def __len__(self) -> int:
        return len(self._store)

    def _sample(self, number: int) -> tuple[Any, Any]:
        self._store.will_need([number])
        if is_fused(self.transform):
            pixels, label = self._crop(number, self.transform)
            image = _TYPES[self.image_type](pixels)
        else:
            pixels, label = self._reader.pixels(number)
            image = _TYPES[self.image_type](pixels)
            if callable(self.transform):
                image = self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)

    def _crop(self, number: int, transform: RandomResizedCrop | CenterCrop) -> tuple[np.ndarray, int]:
        height, width = transform.window
        out = np.empty((1, height, width, 3), np.uint8)
        position = torch.randint(2**63 - 1, (1,), device="cpu").numpy()
        [label] = self._reader.crops([number], transform, position, 0, 0, out.transpose(0, 3, 1, 2)).labels
        return out[0], label

    @fixed_property
    def targets(self) -> list[int]:
        """The class number of each record. Without an index, reading them reads the whole file once, with a warning."""
        labels: list[int] = self._reader.labels().tolist()
        return labels

    @fixed_property
    def classes(self) -> list[str]:
        """Class folder names (wnids, for ImageNet) by class number; the numbers themselves without an index.

        Raises ValueError where labels are no class numbers: without an index, negative ones, and such as are greater
        than any number of classes; `classes[target]` could not hold for them.
        """
        if self._store.index is not None:
            return self._store.index.classes
        least, greatest, most = min(self.targets), max(self.targets), max(len(self), _MOST_CLASSES)
        if least < 0 or greatest >= most:
            raise ValueError(f"{self._store.path}: its labels are from {least:,} to {greatest:,}, and class numbers "
                             f"are from 0 to {most - 1:,} at most, so `classes` cannot have a name for each. `targets` "
                             f"has the labels; number those that occur, as numpy.unique(dataset.targets, "
                             f"return_inverse=True) does, and give such numbers by target_transform")
        return [str(number) for number in range(greatest + 1)]

    @property
    def class_names(self) -> list[str]:
        """What classes are called ("tench, Tinca tinca"), by class number; `classes` where the index does not say."""
        return self.classes if self._store.index is None else self._store.index.class_names

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class number by class folder name."""
        return {name: number for number, name in enumerate(self.classes)}

    def close(self) -> None:
        """Lets go of the file. A later use opens it again."""
        self._store.close()

    def __getstate__(self) -> dict[str, Any]:
        read = {"targets", "classes"} & self.__dict__.keys()
        if not read or self._store.index is None:  # without an index, all records would be read again
            return self.__dict__
        return {name: value for name, value in self.__dict__.items() if name not in read}


_OPTIONS = "".join((_Samples.__doc__ or "").partition("\n\n")[1:])  # python -OO leaves none


class LMDBDataset(_Samples, Dataset[tuple[Any, Any]]):
    """A map-style dataset: `dataset[i]` is `(image, target)` of record i, for any sampler of torch's DataLoader.

    `len` is the number of records; negative numbers count from the end; others raise IndexError.

    >>> dataset = LMDBDataset("val.lmdb", image_type="numpy")
    >>> image, target = dataset[-1]
    >>> image.shape, target, dataset.classes[target], len(dataset)
    ((120, 80, 3), 2, 'n01484850', 10)
    """

    __doc__ = f"{__doc__}{_OPTIONS}"

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        number, size = operator.index(number), len(self)
        if not -size <= number < size:
            raise IndexError(f"{self._store.path} has {size} records; there is no number {number}")
        return self._sample(number % size)


class LMDBIterDataset(_Samples, IterableDataset[tuple[Any, Any]]):
    """An iterable dataset in the order of the file: each rank, and each worker of a DataLoader, reads one part of it.

    Yields `(image, target)`, every record once over all ranks and workers. `len` is this rank's number of samples.
    order, shuffle_buffer, block_size, seed, rank, world_size, uneven, indices, repeats: as of LMDBIterLoader, but that
    nothing is shuffled without a shuffle_buffer. The order is that of epoch 0 until set_epoch changes it, also for the
    workers of a DataLoader with persistent_workers=True: frameworks that call set_epoch of a sampler find none here.
    torchdata's StatefulDataLoader saves and restores the place of each worker.

    >>> [target for image, target in LMDBIterDataset("val.lmdb")]
    [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    """

    __doc__ = f"{__doc__}{_OPTIONS}"

    def __init__(self, path: str | os.PathLike[str], *, order: str = "local", shuffle_buffer: int = 0,
                 block_size: int = 256, seed: int = 0, rank: int | None = None, world_size: int | None = None,
                 uneven: str | None = None, indices: Any = None, repeats: int = 1, **options: Any) -> None:
        super().__init__(path, **options)
        shuffled = order == "block" or order == "local" and shuffle_buffer
        self._asked_ranks = LateRanks(rank, world_size, uneven or ("pad" if shuffled else "keep"))
        self._seed = seed
        self._order_options: dict[str, Any] = {
            "order": order, "shuffle_buffer": shuffle_buffer, "block_size": block_size,
            "indices": checked_indices(indices, self._store), "repeats": repeats}
        self._epoch_number = SharedNumber()  # where workers that live on see the change
        # Refuses wrong options here and not in a worker; which rank this is need not be known yet.
        self._count = len(self._chain(Ranks(0, 1, self._asked_ranks.uneven), 0, 0, 1)[0])

    @property
    def _ranks(self) -> Ranks:
        return self._asked_ranks()

    def __len__(self) -> int:
        return self._ranks.size(self._count)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch number `epoch`, an integer of at least 0."""
        self._epoch_number.value = integer("epoch", epoch, 0)

    def _pointers(self, number: int, part: int, parts: int) -> tuple[DataFlow, dict[str, int | str]]:
        return self._chain(self._ranks, number, part, parts)

    def _chain(self, ranks: Ranks, number: int, part: int, parts: int) -> tuple[DataFlow, dict[str, int | str]]:
        epoch = Epoch(self._seed)
        epoch.go_to(number)
        return sequential_pointers(self._store, epoch, ranks=ranks, part=(part, parts),
                                   shuffle_rank=ranks.rank * parts + part, **self._order_options)

    def __iter__(self) -> "_SampleIterator":
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        return _SampleIterator(self, self._epoch_number.value, part, parts)


class _SampleIterator:
    """One worker's pass over its part, with the state that torchdata's StatefulDataLoader asks for."""

    def __init__(self, dataset: LMDBIterDataset, epoch: int, part: int, parts: int) -> None:
        self._dataset = dataset
        self._start(epoch, part, parts, 0)

    def _start(self, epoch: int, part: int, parts: int, samples: int) -> None:
        pointers, self._order = self._dataset._pointers(epoch, part, parts)
        self._place = {"epoch": epoch, "part": part, "parts": parts, "samples": samples,
                       "world_size": self._dataset._ranks.world_size}
        self._rest = itertools.islice(pointers, samples, None)

    def __iter__(self) -> "_SampleIterator":
        return self

    def __next__(self) -> tuple[Any, Any]:
        number, _ = next(self._rest)
        self._place["samples"] += 1
        return self._dataset._sample(number)

    def state_dict(self) -> dict[str, Any]:
        """The place in this worker's part."""
        return {"version": 1, "order": dict(self._order), **self._place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken. Raises ValueError if it is of another file, order or world size."""
        check_state(state, self._order, self._place)
        if state["world_size"] != self._place["world_size"]:
            raise ValueError(f"the state was taken with world_size={state['world_size']}, and the dataset has "
                             f"{self._place['world_size']}: only LMDBLoader and LMDBIterLoader go on with another one")
        parts = integer("parts", state["parts"], 1)
        part = integer("part", state["part"], 0)
        if part >= parts:
            raise ValueError(f"the state's part must be below parts={parts}, not {part}")
        self._start(integer("epoch", state["epoch"], 0), part, parts, integer("samples", state["samples"], 0))


def _pil_image(pixels: np.ndarray) -> Any:
    from PIL import Image  # only image_type="pil" needs it

    return Image.fromarray(pixels)


_TYPES: dict[str, Callable[[np.ndarray], Any]] = {
    "tensor": lambda pixels: torch.from_numpy(planar(pixels)), "numpy": lambda pixels: pixels, "pil": _pil_image}
