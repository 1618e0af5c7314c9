"""Which pages of a file the page cache is asked for, and which it gets back."""
import numpy as np

from dataflows.storage.paged_file import StoredBytes


def ask_for(file: StoredBytes, offsets: np.ndarray, nbytes: np.ndarray, sample: int) -> bool:
    """Asks the kernel for the pages of these records, int64 (n,) each, which will be read soon; whether it did.

    Does not ask again when all of them are in memory, as far as two pages of every `sample`-th tell.
    """
    # A crop touches some pages of its record; when memory is short the others go first. Between a record's quarter
    # and its end lies most of it. All records: one that is missed costs a fault and a wait for every page of it.
    ends, quarters = (offsets + nbytes - 1)[::sample], (offsets + nbytes // 4)[::sample]
    missing = not (file.resident(ends) and file.resident(quarters))
    if missing:
        file.will_need(file.extents(offsets, nbytes))
    return missing


def give_back(file: StoredBytes, offsets: np.ndarray, nbytes: np.ndarray) -> None:
    """Gives the pages of these records back to the kernel, so that a file larger than memory evicts nothing else."""
    file.drop(file.extents(offsets, nbytes))
