"""Copies of a split in other libraries' formats: made once, beside the dumps, and kept for the next run."""
import os
import shutil
from typing import Callable

from benchmarks.contestants import Job
from dataflows.sources.imagenet import ImageNetFiles


def copy_of(job: Job, name: str, write: Callable[[str], None]) -> str:
    """The folder of the job's copy called `name`, which `write(folder)` fills if there is none yet.

    The folder gets its name when it is complete. The next run removes what an interrupted one has left. Nobody checks
    whether the copy still is what the source holds: remove it after a change of the source.
    """
    folder = os.path.join(job.scratch, name, job.split)
    if not os.path.isdir(folder):
        partial = folder + ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(partial)
        write(partial)
        os.rename(partial, folder)
    return folder


def files_in_order(job: Job) -> ImageNetFiles:
    """The split's files, in the order in which a dump stores them: shuffled once for train."""
    return ImageNetFiles(job.source, job.split, seed=0 if job.training else None)
