"""What the order of an epoch is a function of, besides the file, the epoch and the ranks."""
import dataclasses
from zlib import crc32

import numpy as np

from dataflows.options import integer, one_of
from dataflows.order.pointers import RecordFile

SEQUENTIAL = ("local", "block", "shard", "sequential")
PARTITIONS = ("rotate", "pinned")
KINDS = ("shuffled", "unshuffled", *SEQUENTIAL)


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """Which records make an epoch, and how they are shuffled.

    kind: "shuffled" is a new permutation in each epoch, and "unshuffled" the order of the file: those of LMDBLoader.
        "sequential" is the order of the file, "local" shuffles it within a buffer, and "block" permutes blocks of it
        before that; "shard" does so with whole files, where there are several: those of LMDBIterLoader.
    seed: what shuffles and crops are a function of, together with the epoch; below 2**128.
    shuffle_buffer: records that "local", "block" and "shard" mix; 0 for none.
    block_size: records in a block of "block".
    indices: which records, int64 as `checked_indices` gives it; None for all.
    repeats: how often each comes in a row.
    partition: "rotate" gives a rank other records in each epoch, "pinned" the same range of the file in all.

    Raises ValueError for other values.
    """

    kind: str
    seed: int = 0
    shuffle_buffer: int = 50_000
    block_size: int = 256
    indices: np.ndarray | None = None
    repeats: int = 1
    partition: str = "rotate"

    def __post_init__(self) -> None:
        one_of("the kind of an order", self.kind, KINDS)
        one_of("partition", self.partition, PARTITIONS)
        for name, least, most in (("seed", 0, 2**128), ("shuffle_buffer", 0, 2**63 - 1),
                                  ("block_size", 1, 2**63 - 1), ("repeats", 1, 2**63 - 1)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least, most))

    @property
    def buffer_size(self) -> int:
        """How many records are shuffled locally; 0 for a kind that does not."""
        return self.shuffle_buffer if self.kind in ("local", "block", "shard") else 0

    def count(self, file: RecordFile) -> int:
        """How many samples an epoch has, over all ranks."""
        return self.repeats * (len(file) if self.indices is None else len(self.indices))

    def records(self, file: RecordFile) -> np.ndarray:
        """The record of each sample of an epoch, over all ranks and before any shuffle: int64 of shape (n,)."""
        return np.repeat(np.arange(len(file)) if self.indices is None else self.indices, self.repeats)

    def description(self, file: RecordFile, uneven: str) -> dict[str, int | str]:
        """What state_dict stores, to tell later whether it is the same order of the same file."""
        if self.kind in SEQUENTIAL:
            own: dict[str, int | str] = {"order": self.kind, "shuffle_buffer": self.buffer_size,
                                         "block_size": self.block_size if self.kind == "block" else 0}
        else:
            own = {"shuffle": self.kind == "shuffled"}
        if self.kind == "shard":
            own["shards"] = crc32(file.starts)
        if self.partition != "rotate":
            own["partition"] = self.partition
        chosen = 0 if self.indices is None else crc32(self.indices)
        return own | {"file": file.fingerprint(), "records": len(file), "seed": self.seed, "indices": chosen,
                      "repeats": self.repeats, "uneven": uneven}


def sequential_kind(order: str) -> str:
    """`order`, an option of LMDBIterLoader. Raises ValueError unless it is one of its four."""
    one_of("order", order, SEQUENTIAL)
    return order
