"""What the datasets for torch's own DataLoader are made of: a sample by its number, and a pass over samples."""
import contextlib
import itertools
import operator
from collections import deque
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from dataflows.images.image_types import as_image, planar
from dataflows.images.pipeline import Pipeline, Transform, pipeline_of
from dataflows.load.decode.batch_memory import Recycler
from dataflows.load.decode.noted import Noted
from dataflows.load.decode.reader import RecordReader
from dataflows.load.state import check_state
from dataflows.load.to_torch import ToTorch
from dataflows.options import OptionsOnce, fixed_property, integer
from dataflows.tensorpack import DataFlow

_KEPT = 8  # batches whose memory is used again: a DataLoader's worker has few
_AT_ONCE = 32  # samples that an iterator decodes at once
_MOST_CLASSES = 2**20  # of a file with fewer records; 60 MB of names


class Samples(OptionsOnce):
    """What LMDBDataset and LMDBIterDataset share: samples by their record numbers, and ImageFolder's attributes. Their
    options are documented there.
    """

    settable = ("target_transform",)

    def __init__(self, reader: RecordReader, transform: Transform | Pipeline | None,
                 target_transform: Callable[[Any], Any] | None, image_type: str | None, return_index: bool, /) -> None:
        self._store = reader.store
        self._reader = reader
        self._image_type = image_type
        self._return_index = return_index
        self._pipeline: Pipeline
        self.transform = transform
        self.target_transform = target_transform

    @property
    def image_type(self) -> str:
        """What an image is for callables, or without them; may be set."""
        return self._pipeline.image_type

    @image_type.setter
    def image_type(self, image_type: str | None) -> None:
        self._pipeline, self._image_type = pipeline_of(self._pipeline, image_type), image_type

    @property
    def transform(self) -> Transform | Pipeline | None:
        """What is done to each image: as it was given, or taken apart where it is several transforms; `print` it to see
        what is fused into decoding, and what is not. May be set."""
        pipeline = self._pipeline
        return pipeline if pipeline.parts else pipeline.given

    @transform.setter
    def transform(self, transform: Transform | Pipeline | None) -> None:
        self._pipeline = pipeline_of(transform, self._image_type)
        self._to_torch = ToTorch().with_tail(self._pipeline.tail)
        self._memory: Recycler | None = None

    @property
    def _at_once(self) -> int:
        """How many samples to decode at once where they are asked for one by one: crops share some of the work."""
        return 1 if self._pipeline.crop is None else _AT_ONCE

    def __len__(self) -> int:
        return len(self._store)

    def _samples(self, numbers: list[int]) -> list[tuple[Any, ...]]:
        """The samples of these records, whose crops are decoded at once."""
        self._store.will_need(numbers)
        pipeline = self._pipeline
        samples = []
        finish = self.target_transform
        if finish is None and self._reader.label_size:
            finish = torch.from_numpy
        for number, (image, label) in zip(numbers, self._images(numbers, pipeline)):
            with Noted("transform", self._store, number):
                image = pipeline.apply(image)
            with Noted("target_transform", self._store, number):
                target = label if finish is None else finish(label)
            samples.append((image, target, number)[:3 if self._return_index else 2])
        return samples if not pipeline.tail.to_tensor else self._finished(samples)

    def _images(self, numbers: list[int], pipeline: Pipeline) -> Iterator[tuple[Any, Any]]:
        """(image, label) of each, as the first step gets it."""
        if pipeline.crop is None:
            for pixels, label in map(self._reader.pixels, numbers):
                yield as_image(pixels, pipeline.image_type), label
            return
        shape = pipeline.crops_shape(len(numbers))
        if self._memory is None or self._memory.shape != shape:
            self._memory = Recycler(shape, _KEPT)
        out = self._memory.take()
        positions = torch.randint(2**63 - 1, (len(numbers),), device="cpu").numpy()
        crops = self._reader.read_crops(numbers, pipeline.crop, positions, 0, 0, pipeline.as_planes(out))
        yield from zip(map(pipeline.as_image, out), crops.labels)

    def _finished(self, samples: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The samples after the tail of the transform."""
        images = [image if isinstance(image, torch.Tensor) else torch.from_numpy(planar(image))
                  for image, *_ in samples]
        finished = self._to_torch.convert.each(images)
        erase = self._pipeline.tail.erase
        return [(image if erase is None else erase(image), *rest) for image, (_, *rest) in zip(finished, samples)]

    @fixed_property
    def targets(self) -> list[int] | np.ndarray:
        """The class number of each record; or vectors, as float32 of shape (n, k).

        Without an index, reading them reads the whole file once, with a warning.
        """
        labels = self._reader.labels()
        return labels if self._reader.label_size else labels.tolist()

    @fixed_property
    def classes(self) -> list[str]:
        """Class folder names (wnids, for ImageNet) by class number; the numbers themselves without an index.

        Where labels are vectors, what each of their numbers is called.

        Raises ValueError where labels are no class numbers: without an index, negative ones, and such as are greater
        than any number of classes; `classes[target]` could not hold for them.
        """
        if self._store.index is not None:
            return self._store.index.classes
        if self._reader.label_size:
            return [str(number) for number in range(self._reader.label_size)]
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

    def source_names(self, numbers: Any) -> list[str]:
        """The files that these records came from, relative to the folder that was dumped, as the index has them.

        Raises ValueError without an index.
        """
        return self._reader.source_names(numbers)

    def close(self) -> None:
        """Lets go of the file. A later use opens it again."""
        self._store.close()

    def __getstate__(self) -> dict[str, Any]:
        read = {"targets", "classes"} & self.__dict__.keys()
        if not read or self._store.index is None:  # without an index, all records would be read again
            return self.__dict__
        return {name: value for name, value in self.__dict__.items() if name not in read}


class MapSamples(Samples, Dataset[tuple[Any, ...]]):
    """A map-style dataset: `samples[i]` is the sample of record i."""

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        [sample] = self._samples([self._checked(number)])
        return sample

    def __getitems__(self, numbers: Sequence[int]) -> list[tuple[Any, ...]]:
        """The samples of a batch, whose crops are decoded at once: what torch's DataLoader asks for."""
        return self._samples([self._checked(number) for number in numbers])

    def _checked(self, number: int) -> int:
        number, size = operator.index(number), len(self)
        if not -size <= number < size:
            raise IndexError(f"{self._store.path} has {size} records; there is no number {number}")
        return number % size


class SampleIterator:
    """One worker's pass over its part, with the state that torchdata's StatefulDataLoader asks for.

    samples: gives the samples of record numbers.
    at_once: how many it is asked for at a time.
    pointers: gives the pointers of an epoch's part: (epoch, part, parts) -> DataFlow.
    description: of the order, as the state holds it.
    world_size: of the ranks, as the state holds it.
    """

    def __init__(self, samples: Callable[[list[int]], list[Any]], at_once: int,
                 pointers: Callable[[int, int, int], DataFlow], description: dict[str, int | str], world_size: int,
                 epoch: int, part: int, parts: int) -> None:
        self._samples, self._at_once, self._pointers, self._description = samples, at_once, pointers, description
        self._world_size = world_size
        self._start(epoch, part, parts, 0)

    def _start(self, epoch: int, part: int, parts: int, samples: int) -> None:
        self._place = {"epoch": epoch, "part": part, "parts": parts, "samples": samples,
                       "world_size": self._world_size}
        self._rest = itertools.islice(self._pointers(epoch, part, parts), samples, None)
        self._numbers: deque[int] = deque()
        self._ready: deque[Any] = deque()

    def __iter__(self) -> "SampleIterator":
        return self

    def __next__(self) -> Any:
        if not self._numbers:
            self._numbers.extend(number for number, _ in itertools.islice(self._rest, self._at_once))
            if not self._numbers:
                raise StopIteration
            self._ready = self._decoded_at_once(list(self._numbers))
        self._place["samples"] += 1
        number = self._numbers.popleft()
        return self._ready.popleft() if self._ready else self._samples([number])[0]

    def _decoded_at_once(self, numbers: list[int]) -> deque[Any]:
        """Their samples; none where one fails, which is raised at its place."""
        if len(numbers) > 1:
            with contextlib.suppress(Exception):
                return deque(self._samples(numbers))
        return deque()

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
