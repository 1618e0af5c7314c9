"""What the datasets for torch's own DataLoader are made of: a sample by its number, and a pass over samples."""
import itertools
from typing import Any, Callable

import numpy as np
import torch

from dataflows.images.transforms import CenterCrop, RandomResizedCrop, check_transform, is_fused
from dataflows.load.decode_batches import planar
from dataflows.load.reader import RecordReader
from dataflows.load.state import check_state
from dataflows.options import fixed_property, integer, one_of
from dataflows.tensorpack import DataFlow

_MOST_CLASSES = 2**20  # of a file with fewer records; 60 MB of names


class Samples:
    """What LMDBDataset and LMDBIterDataset share: one sample by its record number, and ImageFolder's attributes. Their
    options are documented there.
    """

    def __init__(self, reader: RecordReader, transform: Callable[[Any], Any] | RandomResizedCrop | CenterCrop | None,
                 target_transform: Callable[[int], Any] | None, image_type: str, /) -> None:
        self._store = reader.store
        self._reader = reader
        self.image_type = image_type
        self.transform = transform
        self.target_transform = target_transform

    @property
    def image_type(self) -> str:
        """What an image is; may be set."""
        return self._image_type

    @image_type.setter
    def image_type(self, image_type: str) -> None:
        one_of("image_type", image_type, _TYPES)
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
        [label] = self._reader.read_crops([number], transform, position, 0, 0, out.transpose(0, 3, 1, 2)).labels
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


class SampleIterator:
    """One worker's pass over its part, with the state that torchdata's StatefulDataLoader asks for.

    sample: gives the sample of a record number.
    pointers: gives the pointers of an epoch's part: (epoch, part, parts) -> DataFlow.
    description: of the order, as the state holds it.
    world_size: of the ranks, as the state holds it.
    """

    def __init__(self, sample: Callable[[int], tuple[Any, Any]], pointers: Callable[[int, int, int], DataFlow],
                 description: dict[str, int | str], world_size: int, epoch: int, part: int, parts: int) -> None:
        self._sample, self._pointers, self._description = sample, pointers, description
        self._world_size = world_size
        self._start(epoch, part, parts, 0)

    def _start(self, epoch: int, part: int, parts: int, samples: int) -> None:
        self._place = {"epoch": epoch, "part": part, "parts": parts, "samples": samples,
                       "world_size": self._world_size}
        self._rest = itertools.islice(self._pointers(epoch, part, parts), samples, None)

    def __iter__(self) -> "SampleIterator":
        return self

    def __next__(self) -> tuple[Any, Any]:
        number, _ = next(self._rest)
        self._place["samples"] += 1
        return self._sample(number)

    def state_dict(self) -> dict[str, Any]:
        """The place in this worker's part."""
        return {"version": 1, "order": dict(self._description), **self._place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken. Raises ValueError if it is of another file, order or world size."""
        check_state(state, self._description, self._place)
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
