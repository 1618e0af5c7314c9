"""The dump into shards: plan, dump_shard for each, merge; or some of these, where tasks share the work."""
import contextlib
import os
import time
from typing import Any, Mapping, NoReturn, Sequence

from dataflows.dump.one_file import Options, refusing
from dataflows.dump.recovery.upload import Upload, placed, placing
from dataflows.dump.shards import workplace
from dataflows.dump.shards.merge import merge
from dataflows.dump.shards.on_ray.driver import dump_all
from dataflows.dump.shards.plan import Plan, load_plan, versions, write_plan
from dataflows.dump.shards.progress import shards_bar
from dataflows.dump.shards.shard import Attempt, dump_shard
from dataflows.dump.shards.share import share
from dataflows.dump.shards.told import part_summary
from dataflows.dump.shards.wanted import Wanted, new_plan
from dataflows.dump.summary import Busy, Summary, summarize
from dataflows.options import suggests
from dataflows.storage.remote.urls import is_url
from dataflows.storage.shards.manifest import manifest_path, unfinished_path
from dataflows.terminal import plural


def dump_shards(wanted: Wanted, started: float) -> Summary:
    """Writes the shards of a split, and the manifest; or only the plan, or one part of the shards, as `steps` says."""
    options, (_, _, part, ray, plan_only) = wanted.options, wanted.steps
    plan = _planned(wanted)
    numbers = [] if plan_only else share(plan.shards, part)
    done = (dump_all if ray else _dump_here)(plan, numbers, options) if numbers else []
    resumed, busy = sum(each.resumed for each in done), Busy(*map(sum, zip(Busy(), *(each.busy for each in done))))
    if plan_only or part is not None:
        return part_summary(plan, part, numbers, options, resumed=resumed, busy=busy,
                            seconds=time.perf_counter() - started)
    plan = _unmapped(plan)
    content, path = merge(plan, options.upload), options.placed(manifest_path(plan.target, plan.split))
    return summarize(path, path, content, resumed=resumed, num_workers=options.num_workers, busy=busy,
                     seconds=time.perf_counter() - started)


@suggests
def merge_shards(target: str | os.PathLike[str], split: str, *, scratch: str | os.PathLike[str] | None = None,
                 storage_options: Mapping[str, Any] | None = None) -> Summary:
    """Writes the manifest of a split whose parts are all done, target/split.manifest.json, and returns a Summary.

    target, split: those of the parts, and so are scratch and storage_options, of a target that is a URL; all else is in
    their plan. What they have left besides the shards is removed.

    Raises Refused, with the numbers of all shards that are missing, and where there is no dump in parts.

    >>> from dump_imagenet import dump_split
    >>> parts = [dump_split("IMAGENET", "PARTS", "val", shards=4, part=(i, 2), progress=False) for i in (1, 0)]
    >>> merge_shards("PARTS", "val").path, [one.shards for one in parts]
    ('PARTS/val.manifest.json', [[1, 3], [0, 2]])
    """
    started = time.perf_counter()
    with refusing():
        if is_url(target) and scratch is None:
            raise ValueError(f"the parts of a dump to {target} have left their plan in a folder which they share. Give "
                             f"scratch=DIR, too")
        with placing(target, scratch, storage_options) as (folder, upload):
            plan = load_plan(folder, split, mapped=False) or _refuse_without_plan(folder, split, upload)
            planned = plan.settings.get("target", folder)
            if upload is not None and planned != upload.target:
                raise ValueError(f"the plan in {folder} is of a dump to {planned}, and not to {upload.target}. Correct "
                                 f"target or scratch")
            content = merge(plan, upload)
    path = placed(manifest_path(folder, split), upload)
    return summarize(path, path, content, resumed=content.count, num_workers=1, busy=Busy(),
                     seconds=time.perf_counter() - started)


def _refuse_without_plan(folder: str, split: str, upload: Upload | None) -> NoReturn:
    path, work = manifest_path(folder, split), unfinished_path(folder, split)
    if os.path.lexists(path) if upload is None else upload.exists(path):
        workplace.clear(work)  # of a merge that was killed
        raise FileExistsError(f"{placed(path, upload)} exists already: nothing is left to do")
    where = "target" if upload is None else "scratch, which all parts share,"
    raise FileNotFoundError(f"{folder} holds no unfinished dump of {split} in shards: there is no {work}. Check "
                            f"{where} and split, or dump the parts first")


def _unmapped(plan: Plan) -> Plan:
    """The plan without its images, to be merged."""
    found = load_plan(plan.target, plan.split, mapped=False)
    if found is None:
        raise FileExistsError(f"{plan.work} is gone: another process has merged its shards, or starts anew")
    return found


def _dump_here(plan: Plan, numbers: Sequence[int], options: Options) -> list[Attempt]:
    """The shards one after the other, in this process."""
    done: list[Attempt] = []
    with shards_bar(plan, numbers, options.progress) as bar:
        for number in numbers:
            done.append(dump_shard(plan, number, options, bar.count))
            bar.finish(plan.size(number), done[-1].resumed)
    return done


# The plan: that which there is, or a new one.


def _planned(wanted: Wanted) -> Plan:
    with refusing():
        plan = _existing(wanted)
        files = wanted.open_source() if plan is None or not plan.files.listed else None
        made = new_plan(wanted, files) if plan is None and files is not None else None
    if made is not None:
        _make_room(made, wanted)
        write_plan(made)
    with refusing():
        plan = load_plan(wanted.target, wanted.split, files)
        if plan is None:
            raise FileNotFoundError(f"{unfinished_path(wanted.target, wanted.split)} was removed meanwhile: "
                                    f"another task has merged the shards, or starts anew")
        _refuse_differences(plan, wanted)
    return plan


def _existing(wanted: Wanted) -> Plan | None:
    """The plan to go on with, if there is one.

    Raises FileExistsError for what may neither be replaced nor gone on with.
    """
    if wanted.options.overwrite and not wanted.goes_on:
        return None
    plan = load_plan(wanted.target, wanted.split)
    if plan is not None and wanted.goes_on or wanted.options.overwrite:
        return plan
    if plan is not None:
        raise FileExistsError(f"{plan.work} exists already, and no manifest: a dump into shards was interrupted, or "
                              f"runs at the moment. resume=True goes on with it, and overwrite=True replaces it")
    manifest = manifest_path(wanted.target, wanted.split)
    if os.path.lexists(manifest):
        raise FileExistsError(f"{manifest} exists already: nothing is left to do. Give another target, or "
                              f"overwrite=True to replace the data set")
    return None


def _make_room(plan: Plan, wanted: Wanted) -> None:
    """Removes what the plan replaces, but for the shards: these are replaced one by one."""
    if wanted.options.overwrite:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(manifest_path(plan.target, plan.split))
        if wanted.options.upload is not None:
            wanted.options.upload.withdraw(manifest_path(plan.target, plan.split))
        if not wanted.goes_on:
            workplace.clear(plan.work)


def _refuse_differences(plan: Plan, wanted: Wanted) -> None:
    """Raises ValueError where this task would write something else than the plan says."""
    differences = plan.differences(wanted.settings, versions())
    if plan.images != (plan.files.count or plan.images):
        differences.append(f"the source had {plan.images:,} samples and has {plan.files.count:,}")
    if plan.unreadable and wanted.options.on_error != "skip":
        differences.append(f"{plural(len(plan.unreadable), 'folder or link', 'folders or links')} that cannot be "
                           f"looked into, such as {plan.unreadable[0].name}, were left out, which "
                           f"on_error={wanted.options.on_error!r} does not do")
    if differences:
        raise ValueError(f"the dump that {plan.work} is of differs from this one: {'; '.join(differences)}. Use the "
                         f"same source, options and versions, or write another plan: plan=True with overwrite=True")
