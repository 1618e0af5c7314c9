"""Chooses the class of source that reads what a dump is given."""
import os
from typing import Any, Iterable, Sequence

from dataflows.sources.imagenet import ImageNetFiles
from dataflows.sources.label_file import LabelledFiles
from dataflows.sources.samples import Samples
from dataflows.sources.source import ImageSource

UNSHUFFLED = ("val", "test")  # splits that keep the order of their source


def open_source(source: str | os.PathLike[str] | Iterable[Any], split: str, *, shuffle: bool | None = False,
                seed: int = 0, labels: str | os.PathLike[str] | None = None,
                classes: Sequence[str] | None = None) -> ImageSource:
    """The images of a split, also where some folders cannot be looked into.

    shuffle: whether in the permutation of `seed`; None is for all splits but val and test whose source can be.
    labels: the CSV file that has the labels of the images in a folder.
    classes: of an iterable, the name of each class number.

    Raises FileNotFoundError, OSError or ValueError for a source that is none.
    """
    wanted = split not in UNSHUFFLED if shuffle is None else shuffle
    if isinstance(source, (str, os.PathLike)):
        if classes is not None:
            raise ValueError("classes name the class numbers of an iterable; folders and files name theirs themselves. "
                             "Leave classes out")
        if labels is not None:
            return LabelledFiles(source, labels, seed=seed if wanted else None)
        return ImageNetFiles(source, split, seed=seed if wanted else None, tolerant=True)
    if labels is not None:
        raise ValueError("labels are those of files in a folder, and an iterable gives its own. Leave labels out")
    if shuffle is None and not Samples.permutes(source):
        wanted = False
    return Samples(source, seed=seed if wanted else None, classes=classes)
