"""Whether a dump fits on the disk, told from a sample before it begins."""
import contextlib
import errno
import os
from typing import Any, Callable, Sequence

import numpy as np

from dataflows.parallel import map_ordered
from dataflows.system import free_bytes
from dataflows.write import Packed

_SAMPLE = 128  # images, or 1 %: to within about 5 % on ImageNet
_PAGE = 4096  # of LMDB: each record takes whole pages, the first of which starts with a header
_SURE = 1.05


def refuse_full_disk(folder: str | os.PathLike[str], pointers: Sequence[Any], pack: Callable[[Any], Packed],
                     count: int, num_threads: int) -> None:
    """Raises OSError if `count` more images, such as those of `pointers` when packed, will not fit into a folder.

    What `pack` gives without a value takes no place.
    """
    free = free_bytes(folder)
    if free is None:
        return
    size = min(_SAMPLE, max(16, len(pointers) // 100), len(pointers))
    sample = [pointers[i] for i in np.linspace(0, len(pointers) - 1, size).astype(int).tolist()]
    with contextlib.closing(map_ordered(pack, sample, num_threads, num_threads)) as packed:
        sizes = [-(-(len(image.value) + 16) // _PAGE) * _PAGE for image in packed if image.value is not None]
    needed = _SURE * count * float(np.mean(sizes or [_PAGE]))
    if needed > free:
        raise OSError(errno.ENOSPC, f"the dump needs about {needed / 1e9:,.2f} GB and {os.fspath(folder)} has "
                                    f"{free / 1e9:,.2f} GB free. Free some, give another --target, or store less with "
                                    f"--format jpeg, --max-side or --shorter-side")
