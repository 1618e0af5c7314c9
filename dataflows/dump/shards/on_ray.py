"""The shards of a plan as tasks of Ray: that of RAY_ADDRESS, or one on this machine, which ends with the dump.

Ray runs a task anew, up to three times, when its worker or its machine dies; what an image is wrong with comes back as
a result, so that is not tried again. Each task reads the plan from the folder that all machines share, and counts its
images in a small file there.
"""
import contextlib
import dataclasses
import glob
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from typing import Any, Iterator, Sequence

from dataflows.dump.one_file import Options
from dataflows.dump.shards import workplace
from dataflows.dump.shards.plan import Plan, load_plan, versions
from dataflows.dump.shards.progress import ShardsBar, shards_bar
from dataflows.dump.shards.shard import Attempt, dump_shard
from dataflows.dump.summary import Busy
from dataflows.dump.write import Packed
from dataflows.processors import default_workers
from dataflows.storage.shards.manifest import unfinished_path

_RETRIES = 3
_EVERY_S = 1.0  # images are counted on the disk, and the bar is drawn
_SHOWN = 3
_STORE_BYTES = 80 * 2**20  # Ray's memory for results, of which there are none to speak of


def refuse_without_ray() -> None:
    """Raises ValueError, with the remedy, where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("engine='ray' needs Ray, which is not installed here. Install it: pip install "
                         "'imagenet-lmdb[ray]'; or dump in parts with part='I/N'")


def dump_all(plan: Plan, numbers: Sequence[int], options: Options) -> list[Attempt]:
    """Makes these shards. Raises ValueError, with the first reasons, when all others are done, where some failed."""
    run = secrets.token_hex(4)
    with shards_bar(plan, numbers, options.progress) as bar, _running(options.num_workers) as ray:
        _refuse_too_many(ray, options.num_workers)
        task = ray.remote(num_cpus=options.num_workers, max_retries=_RETRIES)(_dump)
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
        bar.show(images + sum(_counts(plan.work, number, run) for number in waiting.values()))


def _result(ray: Any, reference: Any, number: int) -> Attempt | str:
    try:
        result: Attempt | str = ray.get(reference)
        return result
    except ray.exceptions.RayError as error:
        return f"shard {number}: {type(error).__name__}: {str(error).strip().splitlines()[0]}"


# In the workers


def _dump(target: str, split: str, number: int, run: str, options: Options) -> Attempt | str:
    """One shard; what is wrong with an image, or with this machine, is returned, so that Ray does not try it again."""
    try:
        plan = load_plan(target, split)
        if plan is None:
            return f"shard {number}: {socket.gethostname()} does not see {unfinished_path(target, split)}: all " \
                   f"machines must share the target's folder"
        differences = plan.differences(plan.settings, versions())
        if differences:
            return f"shard {number} on {socket.gethostname()}: {'; '.join(differences)}. Install the same versions"
        if len(_count_files(plan.work, number, run)) > _RETRIES:  # Ray has no limit of its own for want of memory
            return f"shard {number}: its worker died {_RETRIES + 1} times, also for want of memory, perhaps"
        return dump_shard(plan, number, options, _Count(plan.work, number, run))
    except (OSError, ValueError, MemoryError) as error:
        return str(error)


class _Count:
    """Counts the images of an attempt in a file, for the bar."""

    def __init__(self, work: str, number: int, run: str) -> None:
        self._path = os.path.join(work, f"{number:05d}.{run}-{workplace.own_name()}.count")
        self._images, self._next = 0, 0.0
        self._write()

    def __call__(self, packed: Packed) -> None:
        self._images += 1
        if time.monotonic() >= self._next:
            self._write()

    def _write(self) -> None:
        self._next = time.monotonic() + _EVERY_S
        with contextlib.suppress(OSError), open(self._path, "w", encoding="ascii") as file:
            file.write(str(self._images))


def _count_files(work: str, number: int, run: str) -> list[str]:
    """Those of all attempts at a shard in this run."""
    return glob.glob(os.path.join(glob.escape(work), f"{number:05d}.{run}-*.count"))


def _counts(work: str, number: int, run: str) -> int:
    """How many images of a shard are done, by the attempt that came furthest."""
    counts = [0]
    for path in _count_files(work, number, run):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            counts.append(int(file.read()))
    return max(counts)


# Ray itself


@contextlib.contextmanager
def _running(num_workers: int) -> Iterator[Any]:
    """Ray as the program has it; else as RAY_ADDRESS says; else one of our own, which ends with the body."""
    address = os.environ.get("RAY_ADDRESS")
    with contextlib.ExitStack() as stack:
        if not address:
            stack.enter_context(_environment())  # which Ray reads when it is imported
        import ray

        if not ray.is_initialized():
            stack.enter_context(_own_signals())
            folder = tempfile.mkdtemp(prefix="ray-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(ray.shutdown)
            ours = {"num_cpus": max(default_workers(), num_workers), "include_dashboard": False, "_temp_dir": folder,
                    "object_store_memory": _STORE_BYTES}
            try:
                ray.init(address or "local", log_to_driver=False, configure_logging=False, **({} if address else ours))
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                where = f"be reached at RAY_ADDRESS={address}" if address else "be started on this machine"
                raise OSError(f"Ray cannot {where}: {str(error).strip().splitlines()[0]}") from error
        yield ray


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What a Ray of our own reads: it tells nobody of its use, and asks for a token that is written nowhere.

    Where Ray was imported before, it has made up its mind about tokens.
    """
    ours = {"RAY_USAGE_STATS_ENABLED": "0"}
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    new = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back how this program ends on SIGTERM, which Ray changes."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _refuse_too_many(ray: Any, num_workers: int) -> None:
    """Raises ValueError where a task would wait for ever for a machine with so many processors."""
    most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if 0 < most < num_workers:  # with none at all, machines may come
        raise ValueError(f"num_workers must be at most {most:g}, the processors of the largest machine that Ray has, "
                         f"for a task is in one; not {num_workers}")
