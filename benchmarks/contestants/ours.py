"""This project's loaders and dataset."""
import contextlib
from typing import Any, Iterator

from benchmarks.contestants import RESIZE, SHUFFLE_BUFFER, SIZE, Epoch, Job
from benchmarks.dataloader import torch_epochs
from dataflows import CenterCrop, RandomResizedCrop
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader


def transform(job: Job, **options: bool) -> RandomResizedCrop | CenterCrop:
    return RandomResizedCrop(SIZE, **options) if job.training else CenterCrop(SIZE, resize=RESIZE, **options)


@contextlib.contextmanager
def dataset(job: Job) -> Iterator[Epoch]:
    """torch's DataLoader over LMDBDataset."""
    with contextlib.closing(LMDBDataset(job.lmdb, transform=transform(job))) as samples:
        yield torch_epochs(samples, job)


def _epochs(loader: Any) -> Epoch:
    def epoch(number: int) -> Iterator[Any]:
        loader.set_epoch(number)
        return iter(loader)

    return epoch


@contextlib.contextmanager
def loader(job: Job, num_workers: int | None = None, **options: bool) -> Iterator[Epoch]:
    """LMDBLoader: shuffled keys for train, the file's order otherwise. `num_workers` overrides the job's; the options
    are the transform's.
    """
    threads = job.num_workers if num_workers is None else num_workers
    with LMDBLoader(job.lmdb, job.batch_size, transform=transform(job, **options), num_workers=threads,
                    shuffle=job.training) as batches:
        yield _epochs(batches)


@contextlib.contextmanager
def iterloader(job: Job) -> Iterator[Epoch]:
    """LMDBIterLoader: sequential, with a local shuffle for train."""
    with LMDBIterLoader(job.lmdb, job.batch_size, transform=transform(job), num_workers=job.num_workers,
                        shuffle_buffer=SHUFFLE_BUFFER if job.training else 0) as batches:
        yield _epochs(batches)
