"""One progress bar over all shards of a task: images, MB/s, shards that are done, images that were left out."""
import contextlib
import time
from typing import Any, Iterator, Sequence

from dataflows.dump.shards.plan import Plan
from dataflows.dump.write import Packed
from dataflows.terminal import plural, progress_bar


class ShardsBar:
    """The bar. Its rate, and what it expects, are those of images that were dumped since it is there."""

    def __init__(self, bar: Any, shards: int) -> None:
        self._bar, self._shards = bar, shards
        self._started, self._bytes = time.perf_counter(), 0
        self._done = self._images = self._skipped = self.failed = 0

    def count(self, packed: Packed) -> None:
        """Counts one image."""
        self._bytes += len(packed.value or b"")
        self._skipped += packed.value is None
        self._bar.update()
        self._bar.set_postfix_str(self._told(), refresh=False)

    def finish(self, images: int, resumed: int) -> None:
        """Counts a shard of so many images, of which some were there before: they say nothing of the rate."""
        self._done += 1
        self._images += images
        if not self._bar.disable:  # such a bar has no numbers
            self._bar.initial += resumed
        self.show(self._images)

    def show(self, images: int) -> None:
        """Shows a number of images that is known otherwise."""
        self._bar.n = images
        self._bar.set_postfix_str(self._told(), refresh=True)

    def _told(self) -> str:
        rate = self._bytes / 1e6 / (time.perf_counter() - self._started)
        told = [f"{rate:.1f} MB/s"] * bool(self._bytes) + [f"{self._done}/{plural(self._shards, 'shard')}"]
        told += [f"{self._skipped:,} skipped"] * bool(self._skipped) + [f"{self.failed} failed"] * bool(self.failed)
        return ", ".join(told)


@contextlib.contextmanager
def shards_bar(plan: Plan, numbers: Sequence[int], shown: bool) -> Iterator[ShardsBar]:
    """A bar over these shards."""
    total = sum(map(plan.size, numbers))
    with progress_bar(f"writing {plan.split}", total, shown=shown, unit=" images") as bar:
        yield ShardsBar(bar, len(numbers))
