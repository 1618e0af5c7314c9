"""Chooses the class of source that reads what a dump is given."""
import glob
import os
from typing import Any, Iterable, Sequence

from dataflows.sources.imagenet import ImageNetFiles
from dataflows.sources.label_file import LabelledFiles
from dataflows.sources.layouts import find_layout
from dataflows.sources.samples import Samples
from dataflows.sources.shard_paths import is_pattern, matching
from dataflows.sources.shards import TarShards, is_shard
from dataflows.sources.source import ImageSource
from dataflows.terminal import plural

UNSHUFFLED = ("val", "test")  # splits that keep the order of their source
_LOOKED_AT = 3  # tars of a folder, the first of which may be damaged


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
        shards = _shards(os.fspath(source), split)
        if shards:
            return TarShards(shards, _layout(os.fspath(source), split, shards), seed=seed if wanted else None)
        return ImageNetFiles(source, split, seed=seed if wanted else None, tolerant=True)
    if labels is not None:
        raise ValueError("labels are those of files in a folder, and an iterable gives its own. Leave labels out")
    if shuffle is None and not Samples.permutes(source):
        wanted = False
    return Samples(source, seed=seed if wanted else None, classes=classes)


def _shards(source: str, split: str) -> list[str]:
    """The tar shards that a source is, by a pattern, as a tar, or as a folder of them; none if it is another one."""
    if is_pattern(source):
        return matching(source)
    if os.path.isfile(source):
        return [source] if is_shard(source) else []
    for folder in (os.path.join(source, split), source):
        tars = sorted(glob.glob(os.path.join(glob.escape(folder), "*.tar")))
        if folder == source and os.path.basename(os.path.abspath(source)) != split:
            tars = [path for path in tars if split in os.path.basename(path)]
        tars = [path for path in tars if not os.path.basename(path).startswith("ILSVRC2012_img_")]
        if any(map(is_shard, tars[:_LOOKED_AT])):
            return tars
    return []


def _layout(source: str, split: str, shards: list[str]) -> str:
    """What was found, in words. Raises ValueError when a folder holds the split in another form, too."""
    if not os.path.isdir(source):
        return f"{plural(len(shards), 'tar shard')} in {os.path.basename(source)}"
    folder = os.path.dirname(shards[0])
    try:
        other = find_layout(source, split)
    except FileNotFoundError:
        return f"{plural(len(shards), 'tar shard')} in {os.path.relpath(folder, source)}"
    raise ValueError(f"{source} holds split {split!r} in 2 forms: {other.kind} in {other.path}; tar shards in "
                     f"{folder}. Give a pattern such as {shards[0]!r} as the source, or move one of them away")
