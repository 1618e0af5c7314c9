"""What a dump into shards is asked for, and the plan that follows from it and from the source."""
import dataclasses
import glob
import os
import re
from typing import Any, Callable

from dataflows.dump.one_file import Options
from dataflows.dump.pack import FilePacker
from dataflows.dump.shards.plan import Plan, load_plan, versions
from dataflows.dump.shards.share import shards_of
from dataflows.dump.shards.steps import Steps
from dataflows.dump.space import SURE, existing_folder, record_bytes, refuse_too_small
from dataflows.sources.source import ImageSource
from dataflows.storage.index_meta import IndexMeta


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """A dump into shards, as dump_split is asked for it."""

    target: str
    split: str
    settings: dict[str, Any]  # the options that decide what is written
    steps: Steps
    open_source: Callable[[], ImageSource]
    meta: Callable[[ImageSource], IndexMeta]
    options: Options

    @property
    def goes_on(self) -> bool:
        """Whether with the plan of other tasks, or of a dump that was interrupted."""
        return self.steps.goes_on(resume=self.options.resume, overwrite=self.options.overwrite)


def new_plan(wanted: Wanted, files: ImageSource) -> Plan:
    """The plan for a source. Raises ValueError or FileExistsError where there can be none."""
    if files.count is None:
        raise ValueError("shards need to know how many images there are, and this source gives them one by one. Give "
                         "a list, or one file")
    shards = _count(wanted, files, files.count)
    if files.classes is None:
        _name_classes(files)
    plan = Plan(target=wanted.target, split=wanted.split, images=files.count, shards=shards, settings=wanted.settings,
                versions=versions(), meta=wanted.meta(files), unreadable=files.unreadable, files=files)
    try:
        _refuse_shards(plan, wanted.options)
    except FileExistsError:
        if not wanted.goes_on or load_plan(wanted.target, wanted.split) is None:
            raise  # else another task has made a plan, and its first shard, while this one listed the source
    return plan


def _count(wanted: Wanted, files: ImageSource, images: int) -> int:
    """How many shards there are. Raises OSError if they will not fit on the disk."""
    steps, options = wanted.steps, wanted.options
    if steps.shards is not None and steps.shards > images:
        raise ValueError(f"shards must be at most the number of images, {images:,}, not {steps.shards:,}")
    assert files.pointers is not None
    nbytes = record_bytes(files.pointers, FilePacker(files, options.preparation, "skip"), options.num_workers)
    shards = steps.shards
    if shards is None:
        assert steps.shard_bytes is not None
        shards = shards_of(images, nbytes, steps.shard_bytes)
    if options.upload is not None:  # one file at a time is here
        refuse_too_small(existing_folder(wanted.target), SURE * images * nbytes / shards)
    elif not options.overwrite:  # which replaces one file after the other
        refuse_too_small(existing_folder(wanted.target), SURE * images * nbytes)
    return shards


def _name_classes(files: ImageSource) -> None:
    """Names the classes of a source by their numbers, as a dump into one file does when it is done."""
    if not files.listed:
        raise ValueError("shards need the names of all classes, and of samples nobody knows them before the last: give "
                         "classes")
    labels = files.listing().labels
    count = labels.shape[1] if labels.ndim > 1 else int(labels.max(initial=-1)) + 1
    files.classes = files.class_names = [str(number) for number in range(count)]


def _refuse_shards(plan: Plan, options: Options) -> None:
    """Raises FileExistsError for shards that would be replaced unasked, and for those of another number of files."""
    paths = [options.placed(plan.path(number)) for number in range(plan.shards)]
    there = _shards_there(plan, options)
    others = sorted(there - {*paths})
    if others:
        raise FileExistsError(f"{others[0]} is a shard of a dump into another number of files. Remove those, or give "
                              f"another target")
    if there and not options.overwrite:
        raise FileExistsError(f"{min(there)} exists already, and neither a manifest nor an unfinished dump that it is "
                              f"of. Remove it, give another target, or overwrite=True to replace it")


def _shards_there(plan: Plan, options: Options) -> set[str]:
    """The files at the target that are shards by their names."""
    if options.upload is not None:
        pattern = re.compile(rf"{re.escape(plan.split)}-\d+-of-\d+\.lmdb")
        return {options.upload.url(name) for name in options.upload.names() if pattern.fullmatch(name)}
    return {*glob.glob(os.path.join(glob.escape(plan.target), f"{glob.escape(plan.split)}-*-of-*.lmdb"))}
