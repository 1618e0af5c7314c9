"""Which steps of a dump into shards are one call's: all of them, or the plan, or a part of the shards."""
from typing import Any, NamedTuple

from dataflows.dump.shards.on_ray.running import refuse_without_ray
from dataflows.dump.shards.share import Part, byte_count, part_of
from dataflows.options import integer, one_of


class Steps(NamedTuple):
    """Options of dump_split, checked."""

    shards: int | None  # or shard_bytes
    shard_bytes: int | None
    part: Part | None
    ray: bool
    plan_only: bool

    def goes_on(self, *, resume: bool, overwrite: bool) -> bool:
        """Whether with the plan of other tasks, or of a dump that was interrupted."""
        return resume or self.part is not None or self.ray or self.plan_only and not overwrite


def steps_of(shards: Any, shard_bytes: Any, part: Any, engine: Any, plan: bool, *, overwrite: bool, samples: bool,
             shared: bool) -> Steps | None:
    """The steps; None for a dump into one file. samples: the source is a program's. shared: there is a
        folder that all tasks may share.

    Raises ValueError for options out of range, and for those that contradict each other.
    """
    if engine is not None:
        one_of("engine", engine, ("ray",))
    if shards is not None and shard_bytes is not None:
        raise ValueError("shards=N and shard_bytes=B both say how many shards there are. Give one of them")
    if shards is None and shard_bytes is None:
        only = [name for name, given in (("part", part is not None), ("engine", engine is not None), ("plan", plan))
                if given]
        if only:
            raise ValueError(f"{only[0]} is for a dump into several files. Give shards=N or shard_bytes=B, too")
        return None
    steps = Steps(None if shards is None else integer("shards", shards, 1),
                  None if shard_bytes is None else byte_count("shard_bytes", shard_bytes),
                  None if part is None else part_of(part), engine is not None, plan)
    _refuse_contradictions(steps, overwrite, samples)
    if not shared and (steps.part is not None or steps.ray or steps.plan_only):
        raise ValueError("part, engine and plan need a folder that all tasks share, for the plan and for what is "
                         "unfinished, and the target is a URL. Give scratch=DIR, too")
    return steps


def _refuse_contradictions(steps: Steps, overwrite: bool, samples: bool) -> None:
    if steps.part is not None and (steps.ray or steps.plan_only):
        raise ValueError(f"part='I/N' dumps some shards in this process, and {'engine' if steps.ray else 'plan'} does "
                         f"something else. Give one of them")
    if steps.part is not None and overwrite:
        raise ValueError("overwrite=True cannot be a part's: none knows whether it is the first. Give it once before "
                         "the parts, with plan=True")
    if steps.ray and samples:
        raise ValueError("engine='ray' needs a source of files: samples of a program are in its process only. Use "
                         "part='I/N' in several programs")
    if steps.ray:
        refuse_without_ray()
