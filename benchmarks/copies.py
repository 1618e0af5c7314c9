"""Copies of a split in other libraries' formats: made once, beside the dumps, and kept for the next run."""
import os
import shutil
from typing import Callable

from benchmarks.contestants import Job
from dataflows.sources.imagenet import ImageNetFiles


def copy_of(job: Job, name: str, write: Callable[[str], None]) -> str:
    """The folder of the job's copy called `name`, which `write(folder)` fills if there is none yet.

    It gets its name when it is complete; what a run leaves that dies before is removed by the next one. Whether it is
    still what the source holds is not checked: remove it after changing the source.
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
