"""What a task says of its shards when it is done: a summary of its own, for the whole has none yet."""
import dataclasses
import os
from typing import Sequence

from dataflows.dump.columns import labels_text
from dataflows.dump.findings import left_out
from dataflows.dump.one_file import Options
from dataflows.dump.shards.merge import join
from dataflows.dump.shards.plan import Plan
from dataflows.dump.shards.share import Part
from dataflows.dump.summary import Busy, Summary, fields, stages
from dataflows.storage.index import index_path
from dataflows.storage.shards.files import shard_name
from dataflows.storage.shards.manifest import manifest_path
from dataflows.terminal import plural, printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartSummary(Summary):
    """What a task did of a dump into shards; `path` is a pattern of all of them."""

    part: Part | None  # number of the task, and of how many; None for the plan alone
    shards: list[int]  # the numbers of its shards, all of which are complete
    of: int  # shards in all
    images: int  # in all
    manifest: str  # that the merge will write

    def __str__(self) -> str:
        if self.part is not None:
            return super().__str__()
        labels = labels_text(self.num_classes, self.vectors)
        planned = (f"plan of {self.path}: {plural(self.images, 'image')} {labels} as {self.format} in "
                   f"{plural(self.of, 'shard')}, listed in {self.seconds:.1f} s. Source: {self.layout}")
        return "\n".join(map(printable, [planned, *left_out(self.left_out)]))

    def _what(self) -> str:
        assert self.part is not None
        number, count = self.part
        return f"part {number}/{count} of {self.path}, {len(self.shards):,} of {plural(self.of, 'shard')}"


def part_summary(plan: Plan, part: Part | None, numbers: Sequence[int], options: Options, *, resumed: int, busy: Busy,
                 seconds: float) -> PartSummary:
    """The summary of a part whose shards have these numbers."""
    content = join(plan, numbers, whole=False, is_there=options.is_there).content
    path = options.placed(os.path.join(
        plan.target, shard_name(plan.split, 0, plan.shards).replace("-00000-of-", "-*-of-", 1)))
    return PartSummary(
        **fields(path, index_path(path), content), part=part, shards=[*numbers], of=plan.shards, images=plan.images,
        resumed=resumed, manifest=options.placed(manifest_path(plan.target, plan.split)), seconds=seconds,
        stages=stages(options.num_workers, content.count - resumed, seconds, **busy._asdict()))
