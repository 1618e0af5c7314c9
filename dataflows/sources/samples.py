"""Images that a program gives: a DataFlow, or any other iterable, of [image, label] or [image, label, name].

    image   encoded, as a file has it: bytes, bytearray, memoryview, or a uint8 array of shape (n,);
            or pixels: a uint8 array of shape (H, W, 3) in RGB, or (H, W) or (H, W, 1) in gray
    label   class number: an integer from 0 to 999,999; or a vector: a list, tuple or array of numbers, stored as
            float32, of one length in all samples
    name    text that the index keeps; else it is the sample's number in 8 digits, from 0

The iterable is asked for one sample after another, by one thread, and each sample is copied at once where its memory
may be used again.
"""
import operator
import os
from typing import Any, Iterable, Iterator, Mapping, Sequence

import numpy as np

from dataflows.errors import RecordError
from dataflows.label_vectors import Label, as_vector, is_vector
from dataflows.sources.source import ImageSource, Loaded, permutation
from dataflows.tensorpack import DataFlow

MOST_CLASSES = 1_000_000
_FORM = "it must be [image, label] or [image, label, name], as a list or tuple"
_IMAGE = ("an image must be encoded bytes (bytes, bytearray, memoryview, or a uint8 array of one dimension), or pixels "
          "as a uint8 array of shape (H, W, 3) in RGB or (H, W) in gray")


class Samples(ImageSource, DataFlow):
    """The samples of an iterable, as pointers `[name, number, label, image]` that hold what they point to.

    What has `__len__` and `__getitem__`, such as a list or a torch Dataset, comes in a permutation that is a function
    of `seed` alone when `seed` is not None, as files do. Everything else comes in its own order, once, and `seed` must
    be None. A DataFlow's `reset_state` is called once, before its first datapoint. `len` is that of the iterable, if it
    has one.

    A sample that breaks a rule has an exception in its image's place, which `load` raises; so has one whose
    `__getitem__` raises. What an iterator raises is raised at its place.

    classes: the name of each class number; by default the numbers themselves, up to the greatest one. Of vectors, the
        name of each of their numbers.

    Raises ValueError for what is no iterable, or cannot be permuted, and for `classes` that are not distinct texts.
    """

    listed = False
    unit = "sample"

    def __init__(self, samples: Iterable[Any], *, seed: int | None = None,
                 classes: Sequence[str] | None = None) -> None:
        super().__init__()
        is_one = hasattr(samples, "__iter__") or self.permutes(samples)
        if isinstance(samples, (Mapping, bytes, bytearray)) or not is_one:
            raise ValueError(f"the source must be a path, or an iterable of [image, label], not "
                             f"{_describe(samples)}")
        self._samples = samples
        self._reset = False
        self.classes = None if classes is None else _distinct(classes)
        self.class_names = self.classes
        self.seed = seed
        kind = type(samples).__name__
        if self.permutes(samples):
            self.pointers = _Indexed(self, permutation(len(samples), seed))  # type: ignore[arg-type]
            self.layout = f"samples of a {kind}"
        elif seed is not None:
            raise ValueError(f"a {kind} gives its samples in one order only, so that they cannot be permuted. Leave "
                             f"shuffle=True out, and shuffle them before, or give what has __len__ and __getitem__")
        else:
            self.layout = f"samples of a {kind}, in the order it gave them"

    @staticmethod
    def permutes(samples: Any) -> bool:
        """Whether a sample can be asked for by its number."""
        return hasattr(samples, "__len__") and hasattr(samples, "__getitem__") and not isinstance(samples, DataFlow)

    @property
    def count(self) -> int | None:
        """How many there are, as far as the iterable tells."""
        try:
            return len(self._samples)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):  # the latter is tensorpack's
            return None

    def __len__(self) -> int:
        return len(self._samples)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self._stream() if self.pointers is None else self.pointers)

    def _stream(self) -> Iterator[list[Any]]:
        if hasattr(self._samples, "reset_state") and not self._reset:
            self._reset = True  # tensorpack's runners refuse a second one
            self._samples.reset_state()
        for number, sample in enumerate(self._samples):
            yield self.pointer(number, sample)

    def get(self, number: int) -> list[Any]:
        """The pointer of one sample of what has `__getitem__`."""
        try:
            sample = self._samples[number]  # type: ignore[index]
        except MemoryError:
            raise
        except OSError as error:
            return [_numbered(number), number, None, error]
        except Exception as error:  # of a program that we do not know
            return [_numbered(number), number, None, _because(error)]
        return self.pointer(number, sample)

    def pointer(self, number: int, sample: Any) -> list[Any]:
        """The pointer of a sample."""
        if not isinstance(sample, (list, tuple)) or len(sample) not in (2, 3):
            return [_numbered(number), number, None, RecordError(f"it is {_describe(sample)}, and {_FORM}")]
        name = _numbered(number)
        try:
            name = _name(sample[2]) if len(sample) == 3 else name
            return [name, number, _label(sample[1], self.classes), _image(sample[0])]
        except RecordError as error:
            return [name, number, None, error]

    def load(self, pointer: list[Any]) -> Loaded:
        """The image of a sample and its label. Raises what is wrong with it."""
        _, _, label, image = pointer
        if isinstance(image, Exception):
            raise image
        return image, label

    def place(self, pointer: list[Any]) -> str:
        """Its number, and its name if it has one."""
        name, number = pointer[:2]
        return f"sample {number:,}" + (f" ({name})" if name != _numbered(number) else "")


class _Indexed(Sequence[list[Any]]):
    """The pointers of what has `__getitem__`, in an order, made when they are asked for."""

    def __init__(self, samples: Samples, order: np.ndarray) -> None:
        self._samples, self._order = samples, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return self._samples.get(int(self._order[number]))


def _numbered(number: int) -> str:
    return f"{number:08d}"


def _because(error: Exception) -> RecordError:
    fault = RecordError(f"the source raised {type(error).__name__} for it: {error}")
    fault.__cause__ = error
    return fault


def _distinct(classes: Sequence[str]) -> list[str]:
    names = list(classes)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("classes must be distinct texts, the name of each class number from 0")
    return names


def _name(value: Any) -> str:
    try:
        if isinstance(value, str) and value and "\0" not in value and os.fsencode(value):
            return value
    except UnicodeEncodeError:
        pass
    raise RecordError(f"its name must be a text that a file system can have, not {value!r:.60}")


def _label(value: Any, classes: Sequence[str] | None) -> Label:
    if not is_vector(value):
        return _class_number(value, classes)
    vector = as_vector(value)
    if classes is not None and len(vector) != len(classes):
        raise RecordError(f"its label has {len(vector):,} numbers, and there are names of {len(classes):,} (classes). "
                          f"Give as many")
    return vector


def _class_number(value: Any, classes: Sequence[str] | None) -> int:
    most = MOST_CLASSES if classes is None else len(classes)
    number = value.reshape(())[()] if isinstance(value, np.ndarray) and value.size == 1 else value
    try:
        label = -1 if isinstance(number, (bool, np.bool_)) else operator.index(number)
    except TypeError:
        label = -1
    if not 0 <= label < most:
        rule = "" if classes is None else f", for there are names of {most:,} classes"
        raise RecordError(f"its label is {_describe(value)}, and must be a class number, an integer from 0 to "
                          f"{most - 1:,}{rule}, or a list of numbers. Number the classes from 0")
    return label


def _image(value: Any) -> Any:
    """Encoded bytes, or pixels of shape (H, W) or (H, W, 3): nobody else's memory."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        raise RecordError(f"its image is {_describe(value)}, and {_IMAGE}. numpy.asarray(image.convert('RGB')) is that "
                          f"of a PIL image")
    if value.ndim == 1:
        return value.tobytes()
    if value.ndim == 3 and value.shape[2] == 1:
        value = value[:, :, 0]
    if value.size == 0 or value.ndim != 2 and (value.ndim != 3 or value.shape[2] != 3):
        channels_first = value.ndim == 3 and value.shape[0] == 3
        raise RecordError(f"its image is {_describe(value)}, and {_IMAGE}"
                          + ". Give image.transpose(1, 2, 0)" * channels_first)
    return np.array(value, order="C")


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return str(value)
    size = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
    return f"of type {type(value).__name__}{size}"
