"""The chain of DataFlows from an LMDB to batches of pixels, from top to bottom. Loaders are adapters around it.

    LMDBData               [number, position]: a record's number and the sample's position in the epoch, no bytes
    LocallyShuffleData     the same, shuffled within a buffer; not for the orders of LMDBLoader, and "sequential"
    RestOfEpoch            the same, without what an interrupted run has had
    BatchData              [numbers, positions] of a batch
    PrefetchPages          the same, after asking for the pages of these records
    DecodeBatches          [images, labels] of a batch, decoded in threads
    MultiProcessRunnerZMQ  or the last two in processes, each of which makes every n-th batch
"""
import dataclasses
import functools
import math
from typing import Any, Callable

from dataflows.images.pipeline import Pipeline, Transform, pipeline_of
from dataflows.load.decode.decode_batches import DecodeBatches
from dataflows.load.decode.reader import RecordReader
from dataflows.load.meter import Meter
from dataflows.load.prefetch import AHEAD_BYTES, PrefetchPages
from dataflows.load.workers.parent import RoundRobinProcesses
from dataflows.options import integer, one_of
from dataflows.order.epoch import Epoch
from dataflows.order.local_shuffle import FiniteLocallyShuffleData
from dataflows.order.order import Order
from dataflows.order.parts import RestOfEpoch, Slice
from dataflows.order.pointers import BlockShuffledKeys, RecordFile, SequentialKeys, ShardShuffledKeys, ShuffledKeys
from dataflows.order.ranks import Ranks
from dataflows.processors import default_workers, ranks_here
from dataflows.storage.store import Store
from dataflows.tensorpack import BatchData, DataFlow

PREFETCH = 2  # batches ahead of the one in use: the loaders' default
_RESULT_BYTES = 2**20  # for what a callable makes of a whole image, in memory that processes share


@dataclasses.dataclass(frozen=True, eq=False)
class Decoding:
    """How records become batches, and by which workers: options of the loaders, which say more about each.

    Raises ValueError or TypeError for other values.
    """

    batch_size: int
    drop_last: bool = False
    transform: Transform | Pipeline | None = None
    channels_last: bool = False
    num_workers: int | None = None
    worker_type: str = "thread"
    prefetch: int = PREFETCH
    image_type: str | None = None
    target_transform: Callable[[Any], Any] | None = None
    pipeline: Pipeline = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", integer("batch_size", self.batch_size, 1))
        object.__setattr__(self, "prefetch", integer("prefetch", self.prefetch, 1))
        if self.num_workers is not None:
            object.__setattr__(self, "num_workers", integer("num_workers", self.num_workers, 0))
        one_of("worker_type", self.worker_type, ("thread", "process"))
        if self.worker_type == "process" and self.num_workers == 0:
            raise ValueError("worker_type='process' needs num_workers of at least 1")
        if not (self.target_transform is None or callable(self.target_transform)):
            raise TypeError(f"target_transform must be a callable on a label, not {self.target_transform!r}")
        object.__setattr__(self, "pipeline", pipeline_of(self.transform, self.image_type, "numpy"))

    @property
    def workers(self) -> int:
        """How many threads or processes were asked for; the default depends on the ranks that run here by now."""
        return default_workers() if self.num_workers is None else self.num_workers


def pointers_of(file: RecordFile, order: Order, epoch: Epoch, ranks: Ranks, part: tuple[int, int] = (0, 1)) -> DataFlow:
    """`[number, position]` of the samples of a rank, or of part i of n that its workers share."""
    options: dict[str, Any] = {"ranks": ranks, "indices": order.indices, "repeats": order.repeats,
                               "buffer_size": order.buffer_size, "pinned": order.partition == "pinned", "part": part}
    if order.kind == "shuffled":
        keys: SequentialKeys = ShuffledKeys(file, epoch, **options)
    elif order.kind == "block":
        keys = BlockShuffledKeys(file, epoch, order.block_size, **options)
    elif order.kind == "shard":
        keys = ShardShuffledKeys(file, epoch, **options)
    else:
        keys = SequentialKeys(file, epoch, **options)
    if not order.buffer_size:
        return keys
    i, n = part
    return FiniteLocallyShuffleData(keys, order.buffer_size, epoch, ranks.rank * n + i)


def batches_of(pointers: DataFlow, epoch: Epoch, batch_size: int, drop_last: bool = False) -> BatchData:
    """`[numbers, positions]` of each batch that is left of the epoch: lists of as many numbers as the batch has."""
    return BatchData(RestOfEpoch(pointers, epoch), batch_size, remainder=not drop_last, use_list=True)


def prefetched(batches: DataFlow, pointers: DataFlow, store: Store, meter: Meter, sharers: int = 1) -> PrefetchPages:
    """`batches` of `pointers`, whose pages are in memory or on their way; one of so many sharers of the page cache."""
    ahead_bytes = AHEAD_BYTES // ranks_here() // sharers
    if not isinstance(pointers, FiniteLocallyShuffleData) or store.private and sharers > 1:
        return PrefetchPages(batches, store, meter, ahead_bytes)
    entering = functools.partial(pointers.entering, sharers)
    held = min(pointers.buffer_size, len(store))
    return PrefetchPages(batches, store, meter, ahead_bytes, entering=entering, held=held)


def decoded(pointers: DataFlow, reader: RecordReader, decoding: Decoding, epoch: Epoch, meter: Meter,
            with_pointers: bool = False) -> DataFlow:
    """`[images, labels]` of each batch, as DecodeBatches describes them: the whole chain below `pointers`, whose
    numbers and positions follow if asked for."""
    batches = batches_of(pointers, epoch, decoding.batch_size, decoding.drop_last)
    largest = min(decoding.batch_size, len(pointers))
    workers = decoding.workers

    def decode(batches: DataFlow, num_threads: int, prefetch: int, sharers: int, seeds: bool) -> DecodeBatches:
        return DecodeBatches(prefetched(batches, pointers, reader.store, meter, sharers), reader, decoding.pipeline,
                             epoch, batch_size=largest, num_threads=num_threads, prefetch=prefetch, meter=meter,
                             channels_last=decoding.channels_last, seeds=seeds,
                             target_transform=decoding.target_transform, pointers=with_pointers)

    if decoding.worker_type == "thread":
        return decode(batches, workers, decoding.prefetch, sharers=1, seeds=False)
    parts = [decode(Slice(batches, i, workers), 0, 1, sharers=workers, seeds=True) for i in range(workers)]
    return RoundRobinProcesses(batches, parts, decoding.prefetch, meter, largest * _most_bytes(decoding.pipeline))


def _most_bytes(pipeline: Pipeline) -> int:
    """Of an image after the steps, as far as can be told. Memory that is not used costs nothing."""
    if pipeline.window is None:
        return _RESULT_BYTES if pipeline.steps else 0
    return 3 * math.prod(pipeline.window) * (4 if pipeline.steps else 1)  # float32, if a step makes that
