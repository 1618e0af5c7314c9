"""Chooses the class of source that reads what a dump is given."""
import os
from typing import Any, Iterable, Sequence

from dataflows.sources.imagenet import ImageNetFiles
from dataflows.sources.samples import Samples
from dataflows.sources.source import ImageSource

UNSHUFFLED = ("val", "test")  # splits that keep the order of their source


def open_source(source: str | os.PathLike[str] | Iterable[Any], split: str, *, shuffle: bool | None = False,
                seed: int = 0, classes: Sequence[str] | None = None) -> ImageSource:
    """The images of a split, also where some folders cannot be looked into.

    shuffle: whether in the permutation of `seed`; None is for all splits but val and test whose source can be.
    classes: of an iterable, the name of each class number.

    Raises FileNotFoundError, OSError or ValueError for a source that is none.
    """
    wanted = split not in UNSHUFFLED if shuffle is None else shuffle
    if isinstance(source, (str, os.PathLike)):
        if classes is not None:
            raise ValueError("classes name the class numbers of an iterable; folders and files name theirs themselves. "
                             "Leave classes out")
        return ImageNetFiles(source, split, seed=seed if wanted else None, tolerant=True)
    if shuffle is None and not Samples.permutes(source):
        wanted = False
    return Samples(source, seed=seed if wanted else None, classes=classes)
