"""Whether a dump will fit on the disk, estimated from a sample before it begins."""
import contextlib
import errno
import os
from typing import Any, Callable, Sequence

import numpy as np

from dataflows.dump.write import Packed
from dataflows.storage.paged_file import PAGE
from dataflows.system import free_bytes
from dataflows.threads import map_ordered

_HEADER_BYTES = 16  # of the first page of a record: LMDB stores it in whole pages, which are the system's
_SAMPLE = 128  # images, or 1 %: to within about 5 % on ImageNet
SURE = 1.05


def refuse_full_disk(folder: str | os.PathLike[str], pointers: Sequence[Any], pack: Callable[[Any], Packed],
                     count: int, num_threads: int) -> None:
    """Raises OSError if `count` more images, such as those of `pointers` when packed, will not fit into a folder.

    What `pack` gives without a value takes no place.
    """
    if free_bytes(folder) is not None:
        refuse_too_small(folder, SURE * count * record_bytes(pointers, pack, num_threads))


def record_bytes(pointers: Sequence[Any], pack: Callable[[Any], Packed], num_threads: int) -> float:
    """What a record takes in a file, on average over a sample of the images of `pointers`."""
    size = min(_SAMPLE, max(16, len(pointers) // 100), len(pointers))
    # One after another: a pointer may hold its image.
    sample = (pointers[i] for i in np.linspace(0, len(pointers) - 1, size).astype(int).tolist())
    with contextlib.closing(map_ordered(pack, sample, num_threads, num_threads)) as packed:
        sizes = [in_pages(len(image.value)) for image in packed if image.value is not None]
    return float(np.mean(sizes or [PAGE]))


def in_pages(nbytes: int) -> int:
    """What a record of so many bytes takes in the file."""
    return -(-(nbytes + _HEADER_BYTES) // PAGE) * PAGE


def refuse_too_small(folder: str | os.PathLike[str], needed: float) -> None:
    """Raises OSError if so many bytes will not fit into a folder."""
    free = free_bytes(folder)
    if free is not None and needed > free:
        raise OSError(errno.ENOSPC, f"the dump needs about {needed / 1e9:,.2f} GB and {os.fspath(folder)} has "
                                    f"{free / 1e9:,.2f} GB free. Free some, give another target, or store less with "
                                    f"format='jpeg', max_side=N or shorter_side=N")


def existing_folder(path: str) -> str:
    """A folder, or the nearest one above it that is there."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
