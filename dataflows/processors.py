"""The default number of workers: the processors that this process may use, shared out over ranks."""
import math
import os
import sys
from pathlib import Path, PurePosixPath
from typing import Iterator

from dataflows.system import allowed_cpus

_CGROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def default_workers() -> int:
    """The processors of this process, shared out over the ranks of this machine: the default of every num_workers."""
    return max(1, usable_cpus() // ranks_here())


def usable_cpus() -> int:
    """How many processors this process may use: those that it may run on, and no more than its control group has time
    for, so that `docker run --cpus 2.5` has 3."""
    return min([allowed_cpus(), *(max(1, math.ceil(quota)) for quota in _quotas())])


def ranks_here() -> int:
    """How many ranks of a distributed training run on this machine, as far as that is known, else 1.

    Known are torchrun's LOCAL_WORLD_SIZE, and a process group whose MASTER_ADDR is this machine's loopback address, so
    that all of its ranks must be here.
    """
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    if told.isdecimal() and int(told):
        return int(told)
    distributed = sys.modules.get("torch.distributed")  # who has not imported it has no process group
    if os.environ.get("MASTER_ADDR") in _LOOPBACK and distributed is not None and distributed.is_available() \
            and distributed.is_initialized():
        world_size: int = distributed.get_world_size()
        return world_size
    return 1


def _quotas() -> Iterator[float]:
    """Processors that the control groups of this process have time for: those that state a limit, of either version."""
    for group in _groups():
        try:
            if (group / "cpu.max").exists():
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and int(quota) > 0 and int(period) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):  # no such controller here, or no limit in this group
            continue


def _groups() -> Iterator[Path]:
    """The folders of this process's control groups and of those around them, from which limits are inherited.

    A container may see its groups at the root and the names that they have outside of it: what is not there is passed.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath(name.lstrip("/"))
        for root in (_CGROUPS / controllers, _CGROUPS / "cpu") if controllers else (_CGROUPS, _CGROUPS / "unified"):
            yield from (root / part for part in (group, *group.parents))
