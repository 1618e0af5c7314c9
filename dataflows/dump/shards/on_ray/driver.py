"""Hands out the shards of a plan as tasks of Ray, shows how far they are, and collects what they say.

Ray runs a task anew, up to three times, when its worker or its machine dies; what is wrong with an image comes back as
a result, so that is not tried again.
"""
import contextlib
import dataclasses
import os
import secrets
from typing import Any, Iterator, Sequence

from dataflows.dump.one_file import Options
from dataflows.dump.shards.on_ray import worker
from dataflows.dump.shards.on_ray.running import running
from dataflows.dump.shards.plan import Plan
from dataflows.dump.shards.progress import ShardsBar, shards_bar
from dataflows.dump.shards.shard import Attempt
from dataflows.dump.summary import Busy

_EVERY_S = 1.0  # the bar is drawn
_SHOWN = 3


def dump_all(plan: Plan, numbers: Sequence[int], options: Options) -> list[Attempt]:
    """Makes these shards. Raises ValueError, with the first reasons, when all others are done, where some failed."""
    run = secrets.token_hex(4)
    with shards_bar(plan, numbers, options.progress) as bar, running(options.num_workers) as ray:
        _refuse_too_many(ray, options.num_workers)
        task = ray.remote(num_cpus=options.num_workers, max_retries=worker.RETRIES)(worker.dump)
        waiting = {task.remote(os.path.abspath(plan.target), plan.split, number, run, options): number
                   for number in numbers}
        failed: dict[int, str] = {}
        try:
            done = list(_collected(ray, plan, waiting, run, bar, failed))
        finally:
            for reference in waiting:
                with contextlib.suppress(Exception):  # of a Ray that is gone; what went wrong before is the news
                    ray.cancel(reference, force=True)
    if failed:
        first = "; ".join(reason for _, reason in sorted(failed.items())[:_SHOWN])
        more = f"; and {len(failed) - _SHOWN:,} more" if len(failed) > _SHOWN else ""
        raise ValueError(f"{len(failed):,} of {len(numbers):,} shards failed: {first}{more}. All others are done: the "
                         f"same command goes on with these")
    return done


def _collected(ray: Any, plan: Plan, waiting: dict[Any, int], run: str, bar: ShardsBar, failed: dict[int, str]
               ) -> Iterator[Attempt]:
    """The attempts that succeed, as they come; why others failed is added to `failed`."""
    images = 0
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_EVERY_S)
        for reference in ready:
            number = waiting.pop(reference)
            result = _result(ray, reference, number)
            if isinstance(result, Attempt):
                images += plan.size(number)
                bar.finish(plan.size(number), result.resumed)
                yield dataclasses.replace(result, busy=Busy())  # which adds up in one process only
            else:
                failed[number], bar.failed = result, bar.failed + 1
        bar.show(images + worker.counted(plan.work, run, {*waiting.values()}))


def _result(ray: Any, reference: Any, number: int) -> Attempt | str:
    try:
        result: Attempt | str = ray.get(reference)
        return result
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [""]
        what = lines[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0]  # the end of a traceback
        return f"shard {number}: {type(error).__name__}: {what}"


def _refuse_too_many(ray: Any, num_workers: int) -> None:
    """Raises ValueError where a task would wait for ever for a machine with so many processors."""
    most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if 0 < most < num_workers:  # with none at all, machines may come
        raise ValueError(f"num_workers must be at most {most:g}, the processors of the largest machine that Ray has, "
                         f"for a task is in one; not {num_workers}")
