"""What all tasks of a dump into shards agree on: the source, listed once, the options, and the versions of packages.

It is a folder, `train.shards.partial/plan`, which has its name when it is complete:

    plan.json                 a JSON object, of the fields of Plan that are not columns, and `digest` of all
    names.npy, labels.npy     of all images, in the order of the dump: see sources/source.py, Listing
    tar.npy, offsets.npy, sizes.npy    where images are parts of tars

The columns are mapped into memory, so a task reads those of its images. Samples that a program gives have no columns:
each task has the program.
"""
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from importlib.metadata import version
from typing import Any, Sequence

import cv2
import numpy as np
import PIL

import dataflows
from dataflows.dump.shards import workplace
from dataflows.dump.shards.listed import ListedFiles
from dataflows.sources.folders import Unreadable
from dataflows.sources.source import ImageSource, Listing
from dataflows.storage.flush import flush
from dataflows.storage.index_meta import IndexMeta
from dataflows.storage.shards.files import shard_name
from dataflows.storage.shards.manifest import unfinished_path

_PACKAGES = ("lmdb", "msgpack", "numba", "numpy", "simplejpeg", "tensorpack", "torch")
_COLUMNS = ("names", "labels", "tar", "offsets", "sizes")
_OF_SOURCE = ("root", "unit", "classes", "class_names", "layout", "left_out", "seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What there is to do for one split."""

    target: str
    split: str
    images: int
    shards: int
    settings: dict[str, Any]  # the options of dump_split that decide what is written, as they were given
    versions: dict[str, str]  # of the packages that decide about it, too
    meta: IndexMeta  # of each shard, but for what is known of its images
    unreadable: list[Unreadable]  # folders and links that are left out
    files: ImageSource  # all images
    digest: str = ""  # tells this plan from others

    @property
    def work(self) -> str:
        """The folder of what is unfinished."""
        return unfinished_path(self.target, self.split)

    def path(self, number: int) -> str:
        """The final name of a shard."""
        return os.path.join(self.target, shard_name(self.split, number, self.shards))

    def part(self, number: int) -> ImageSource:
        """The images of a shard: a stretch of all."""
        return self.files.part(*(self.images * each // self.shards for each in (number, number + 1)))

    def size(self, number: int) -> int:
        """How many they are."""
        return self.images * (number + 1) // self.shards - self.images * number // self.shards

    def differences(self, settings: dict[str, Any], versions: dict[str, str]) -> list[str]:
        """How a task with other options or versions would write something else."""
        pairs = [*_pairs("", self.settings, settings), *_pairs("version of ", self.versions, versions)]
        return [f"{name} was {planned!r} and is {now!r}" for name, planned, now in pairs if planned != now]


def _pairs(prefix: str, planned: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(prefix + name, planned.get(name), now.get(name)) for name in {**planned, **now}]


def versions() -> dict[str, str]:
    """The versions of all that decides about the bytes of a dump, here."""
    return {"dataflows": dataflows.__version__, "opencv": cv2.__version__, "Pillow": PIL.__version__,
            **{name: version(name) for name in _PACKAGES}}


def write_plan(plan: Plan) -> None:
    """Writes a plan, unless another task has written one meanwhile: its folder gets its name at once, or not at all."""
    listing = plan.files.listing() if plan.files.listed else None
    columns = {} if listing is None else {name: column for name in _COLUMNS
                                          if (column := getattr(listing, name)) is not None}
    content = _content(plan, [] if listing is None else listing.tars)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for column in columns.values():
        digest.update(np.ascontiguousarray(column))
    os.makedirs(plan.work, exist_ok=True)
    folder = workplace.plan_folder(plan.work)
    temporary = f"{folder}.{workplace.own_name()}"
    try:
        _write(temporary, columns, content | {"digest": digest.hexdigest()})
        with contextlib.suppress(OSError):  # of one that is there, which is looked at next
            os.rename(temporary, folder)
        if not os.path.isdir(folder):
            os.rename(temporary, folder)  # for its reason
    finally:
        workplace.remove(temporary)
        with contextlib.suppress(OSError):
            os.rmdir(plan.work)  # if there is no plan, and nothing else
    flush(plan.work)


def _write(folder: str, columns: dict[str, np.ndarray], content: dict[str, Any]) -> None:
    os.mkdir(folder)
    for name, column in columns.items():
        np.save(os.path.join(folder, f"{name}.npy"), column)
    with open(os.path.join(folder, "plan.json"), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
    for name in os.listdir(folder):
        flush(os.path.join(folder, name))
    flush(folder)


def _content(plan: Plan, tars: Sequence[str]) -> dict[str, Any]:
    source = {name: getattr(plan.files, name) for name in _OF_SOURCE} | {"tars": [*tars]}
    source["root"] = os.path.abspath(plan.files.root) if plan.files.root else ""
    return {"split": plan.split, "images": plan.images, "shards": plan.shards, "settings": plan.settings,
            "versions": plan.versions, "meta": plan.meta.to_dict(0, plan.images), "unreadable": plan.unreadable,
            "source": source if plan.files.listed else None}


def load_plan(target: str, split: str, samples: ImageSource | None = None, *, mapped: bool = True) -> Plan | None:
    """The plan that there is, or None.

    samples: of a program, whose plan has no columns. mapped: False for a plan without its images, whose files can be
        removed: network file systems keep the names of files that are mapped.

    Raises ValueError, with the name of its folder, for one that cannot be read.
    """
    folder = workplace.plan_folder(unfinished_path(target, split))
    if not os.path.isdir(folder):
        return None
    try:
        with open(os.path.join(folder, "plan.json"), encoding="utf-8") as file:
            content = json.load(file)
        source = content.pop("source")
        files = _listed(folder, source) if source is not None and mapped else samples or _Unknown()
        content |= {"meta": IndexMeta.from_dict(content["meta"]),
                    "unreadable": [Unreadable(*each) for each in content["unreadable"]]}
        return Plan(target=target, files=files, **content)
    except FileNotFoundError:
        if not os.path.isdir(folder):  # the dump was merged at this moment
            return None
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no plan that this version reads ({type(error).__name__}: {error}). Start anew "
                         f"with overwrite=True") from error


class _Unknown(ImageSource):
    """Images that nobody asks for."""

    listed = False


def _listed(folder: str, source: dict[str, Any]) -> ListedFiles:
    column = functools.partial(_column, folder)
    names, labels, *where = map(column, _COLUMNS)
    listing = Listing(names, labels, source.pop("tars"), *where)
    return ListedFiles(listing, **source)


def _column(folder: str, name: str) -> Any:
    path = os.path.join(folder, f"{name}.npy")
    return np.load(path, mmap_mode="r").view(np.ndarray) if os.path.exists(path) else None
