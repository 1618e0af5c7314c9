"""One shard of a plan: dumped in a place of its own, and then given its name, whoever else is at it."""
import contextlib
import dataclasses
import os

from dataflows.dump.one_file import Dumped, Options, dump_file
from dataflows.dump.pack import Counter
from dataflows.dump.recovery.journal import journal_path
from dataflows.dump.shards import workplace
from dataflows.dump.shards.facts import read_done, write_facts
from dataflows.dump.shards.plan import Plan
from dataflows.dump.summary import Busy
from dataflows.errors import NotStarted
from dataflows.storage.flush import flush
from dataflows.storage.index import index_path, load_index


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What was done for a shard."""

    count: int  # records that it has
    resumed: int  # of them, that were there before
    busy: Busy


def dump_shard(plan: Plan, number: int, options: Options, count: Counter) -> Attempt:
    """Makes a shard of a plan, with its index, unless it is complete.

    It may be called for one shard by any number of processes on any machines at once: they write the same bytes.
    count: is told of each record. Raises what dump_split does; a bad image is a ValueError that names it and the shard.
    """
    done = read_done(plan, number, options.on_error, options.is_there)
    if done is not None:
        return Attempt(done.index.count, done.index.count, Busy())
    options = dataclasses.replace(options, resume=True, overwrite=False)
    try:
        return _goes_on(plan, number, options, count) or _begins(plan, number, options, count)
    except FileNotFoundError as error:
        if os.path.isdir(plan.work):
            raise
        raise ValueError(f"{plan.work} is gone: the data set was merged, or its dump was started anew, while shard "
                         f"{number} was written once more. Nothing is left to do for it") from error


def _goes_on(plan: Plan, number: int, options: Options, count: Counter) -> Attempt | None:
    """Ends what an attempt has left, if there is one."""
    with workplace.left_attempts(plan.work, number) as folders:
        for folder in folders:
            with contextlib.suppress(NotStarted):  # it is not worth to go on with
                return _attempt(plan, number, folder, options, count)
    return None


def _begins(plan: Plan, number: int, options: Options, count: Counter) -> Attempt:
    with workplace.new_attempt(plan.work, number) as folder:
        return _attempt(plan, number, folder, options, count)


def _attempt(plan: Plan, number: int, folder: str, options: Options, count: Counter) -> Attempt:
    """Makes the shard in a folder that nobody else has, and gives it its name."""
    path = os.path.join(folder, os.path.basename(plan.path(number)))
    dumped = _dump(plan, number, path, dataclasses.replace(options, upload=None), count)
    if options.upload is not None:
        options.upload.publish(path, progress=False)
    _publish(plan, number, folder, dumped, here=options.upload is None)
    resumed = len(dumped.columns) if dumped.resumed is None else dumped.resumed
    return Attempt(len(dumped.columns), resumed, dumped.busy)


def _dump(plan: Plan, number: int, path: str, options: Options, count: Counter) -> Dumped:
    try:
        return dump_file(plan.part(number), path, plan.meta, options, count=count)
    except NotStarted:
        raise
    except ValueError as error:
        raise ValueError(f"{os.path.basename(path)}: {error}") from error


def _publish(plan: Plan, number: int, folder: str, dumped: Dumped, *, here: bool) -> None:
    """Gives final names to a shard: what makes it complete, its index, comes last. here: so is its LMDB."""
    path = plan.path(number)
    written = os.path.join(folder, os.path.basename(path))
    index = load_index(written, written)
    assert index is not None
    write_facts(plan, number, dumped.columns, index)
    os.unlink(journal_path(written))  # from here on, there is nothing to go on with
    if here:
        os.replace(written, path)
    os.replace(index_path(written), index_path(path))
    flush(os.path.dirname(path) or ".")
