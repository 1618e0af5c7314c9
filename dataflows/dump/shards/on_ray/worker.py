"""One task of Ray: a shard. It reads the plan from the folder that all machines share, and counts its images there."""
import contextlib
import glob
import os
import re
import socket
import time
from collections import Counter

from dataflows.dump.one_file import Options
from dataflows.dump.shards import workplace
from dataflows.dump.shards.plan import load_plan, versions
from dataflows.dump.shards.shard import Attempt, dump_shard
from dataflows.dump.write import Packed
from dataflows.errors import NoTiling
from dataflows.storage.shards.manifest import unfinished_path

RETRIES = 3
_EVERY_S = 1.0  # images are counted on the disk


def dump(target: str, split: str, number: int, run: str, options: Options) -> Attempt | str:
    """One shard; what is wrong with an image, or with this machine, is returned, so that Ray does not try it again."""
    try:
        plan = load_plan(target, split)
        if plan is None:
            return f"shard {number}: {socket.gethostname()} does not see {unfinished_path(target, split)}: all " \
                   f"machines must share the target's folder"
        differences = plan.differences(plan.settings, versions())
        if differences:
            return f"shard {number} on {socket.gethostname()}: {'; '.join(differences)}. Install the same versions"
        if len(_count_files(plan.work, number, run)) > RETRIES:  # Ray has no limit of its own for want of memory
            return f"shard {number}: its worker died {RETRIES + 1} times, also for want of memory, perhaps"
        return dump_shard(plan, number, options, _Count(plan.work, number, run))
    except (OSError, ValueError, MemoryError, NoTiling) as error:
        return str(error) or type(error).__name__


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


def counted(work: str, run: str, numbers: set[int]) -> int:
    """How many images of these shards are done, by the attempts that came furthest."""
    counts: Counter[int] = Counter()
    with contextlib.suppress(OSError), os.scandir(work) as entries:
        for entry in entries:
            found = re.fullmatch(rf"(\d+)\.{run}-.*\.count", entry.name)
            if found and int(found[1]) in numbers:
                with contextlib.suppress(OSError, ValueError), open(entry.path, encoding="ascii") as file:
                    counts[int(found[1])] = max(counts[int(found[1])], int(file.read()))
    return sum(counts.values())
