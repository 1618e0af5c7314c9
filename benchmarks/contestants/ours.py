"""This project's loaders and dataset."""
import contextlib
import os
from typing import Any, Iterator

from benchmarks import recipes
from benchmarks.contestants import RESIZE, SHUFFLE_BUFFER, SIZE, Epoch, Job
from benchmarks.dataloader import torch_epochs
from benchmarks.inputs import max_side
from dataflows import CenterCrop, RandomResizedCrop
from dataflows.dump.split import dump_split
from dataflows.images.compiled import ready
from dataflows.storage.shards.files import find_split
from dataflows.storage.store import Store
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader


def transform(job: Job, **options: bool) -> RandomResizedCrop | CenterCrop:
    return RandomResizedCrop(SIZE, **options) if job.training else CenterCrop(SIZE, resize=RESIZE, **options)


@contextlib.contextmanager
def dataset(job: Job, recipe: str = "") -> Iterator[Epoch]:
    """torch's DataLoader over LMDBDataset. A recipe is given as torchvision has it, as are those of `loader`."""
    steps = recipes.transforms(recipe) if recipe else transform(job)
    with contextlib.closing(LMDBDataset(job.lmdb, transform=steps)) as samples:
        yield torch_epochs(samples, job)


def _path(job: Job, shards: int) -> str:
    """The job's file, or the manifest of the same records in so many files, which are dumped if they are missing."""
    if not shards:
        return job.lmdb
    index = Store(job.lmdb).index
    assert index is not None, "benchmarks dump with an index"
    format = index.meta.format
    folder = os.path.join(job.scratch, f"{format}-{shards}-shards")
    found = find_split(folder, job.split)
    return found or dump_split(job.source, folder, job.split, format=format, max_side=max_side(format), shards=shards,
                               resume=True, progress=False).path


def _epochs(loader: Any) -> Epoch:
    def epoch(number: int) -> Iterator[Any]:
        loader.set_epoch(number)
        return iter(loader)

    return epoch


@contextlib.contextmanager
def loader(job: Job, num_workers: int | None = None, recipe: str = "", worker_type: str = "thread",
           shards: int = 0, decoder: str = "ours", **options: bool) -> Iterator[Epoch]:
    """LMDBLoader: shuffled keys for train, the file's order otherwise. `num_workers` overrides the job's; the options
    are those of the crop, where there is no recipe. With `shards`, over so many files. With
    decoder="libjpeg", `fast_decode` is as where numba is missing.
    """
    workers = job.num_workers if num_workers is None else num_workers
    steps = recipes.transforms(recipe) if recipe else transform(job, **options)
    with ready.without() if decoder == "libjpeg" else contextlib.nullcontext(), LMDBLoader(
            _path(job, shards), job.batch_size, transform=steps, num_workers=workers, worker_type=worker_type,
                    shuffle=job.training) as batches:
        yield _epochs(batches)


@contextlib.contextmanager
def whole_images(job: Job, recipe: str) -> Iterator[Epoch]:
    """LMDBLoader with a callable that it knows nothing of: it decodes whole images, and PIL crops them."""
    from torchvision.transforms import Compose

    augment = Compose(recipes.on_pil_images(recipe)).__call__  # a Compose itself would be taken apart
    with LMDBLoader(job.lmdb, job.batch_size, transform=augment, image_type="pil", num_workers=job.num_workers,
                    worker_type="process", normalize=(recipes.MEAN, recipes.STD)) as batches:
        yield _epochs(batches)


@contextlib.contextmanager
def iterloader(job: Job, shards: int = 0) -> Iterator[Epoch]:
    """LMDBIterLoader: sequential, with a local shuffle for train. With `shards`, over so many files."""
    with LMDBIterLoader(_path(job, shards), job.batch_size, transform=transform(job), num_workers=job.num_workers,
                        shuffle_buffer=SHUFFLE_BUFFER if job.training else 0) as batches:
        yield _epochs(batches)
