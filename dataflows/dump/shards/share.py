"""How many shards there are, and which of them are one task's."""
import math
import re
from typing import Any

from dataflows.options import integer

Part = tuple[int, int]  # number of the task, from 0, and of how many
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
_PART = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


def byte_count(name: str, value: Any) -> int:
    """A number of bytes, or a text with a unit: kB, MB, GB and TB are powers of 1,000, and KiB to TiB of 1,024.

    Raises ValueError, with the `name` of the option, for all else, and for less than one byte.

    >>> byte_count("shard_bytes", "1.5GB"), byte_count("shard_bytes", "2 MiB"), byte_count("shard_bytes", 10**6)
    (1500000000, 2097152, 1000000)
    """
    if not isinstance(value, str):
        return integer(name, value, 1)
    found = _BYTES.fullmatch(value.strip())
    if found is None or found[3] and not found[2]:
        raise ValueError(f"{name} must be a number of bytes, such as 1000000000, 1GB or 512MiB, not {value!r}")
    unit = (1024 if found[3] else 1000) ** " kmgt".index(found[2].lower() or " ")
    return integer(name, int(float(found[1]) * unit), 1)


def part_of(value: Any) -> Part:
    """(number, of how many), as a tuple or as the text "3/8". Raises ValueError for what is neither."""
    pair = [*map(int, found.groups())] if isinstance(value, str) and (found := _PART.fullmatch(value)) else value
    try:
        number, count = (integer("part", each, 0) for each in pair)
        if not number < count:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"part must be I/N, the number of a task and of how many, such as 0/8 to 7/8, not {value!r}. "
                         f"Tasks are numbered from 0: a Slurm array of N is --array=0-(N-1)") from None
    return number, count


def share(shards: int, part: Part | None) -> list[int]:
    """The shards of one task: each N-th, so that no task has more than one shard more than another.

    >>> share(7, (1, 3)), share(2, (3, 4)), share(3, None)
    ([1, 4], [], [0, 1, 2])
    """
    number, count = part or (0, 1)
    return [*range(number, shards, count)]


def shards_of(images: int, record_bytes: float, shard_bytes: int) -> int:
    """How many shards of about `shard_bytes` these images fill: one at least, and one image in each at least.

    >>> shards_of(1000, 100_000.0, 30_000_000), shards_of(3, 100_000.0, 1000), shards_of(3, 10.0, 1000)
    (4, 3, 1)
    """
    return max(1, min(images, math.ceil(images * record_bytes / shard_bytes)))
