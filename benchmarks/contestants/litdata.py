"""litdata: chunks that its own tool writes."""
import contextlib
import functools
from typing import Any, Iterator

import numpy as np

from benchmarks.contestants import Epoch, Job
from benchmarks.copies import copy_of, files_in_order
from benchmarks.decoder import Decoder, planar
from dataflows.sources.imagenet import ImageNetFiles


@contextlib.contextmanager
def litdata(job: Job) -> Iterator[Epoch]:
    """Chunks of 64 MB made by litdata's `optimize`, read by its dataset and loader in processes.

    Train shuffles chunks and then within each, as its `shuffle` does.
    """
    from litdata import StreamingDataLoader, StreamingDataset

    folder = copy_of(job, "litdata", lambda partial: _write_chunks(job, partial))
    dataset = StreamingDataset(folder, shuffle=job.training,
                               transform=functools.partial(_decode_sample, Decoder(job.training)))
    loader = StreamingDataLoader(dataset, batch_size=job.batch_size, num_workers=job.num_workers,
                                 persistent_workers=job.num_workers > 0)
    yield lambda number: (planar(*batch) for batch in loader)


def _decode_sample(decoder: Decoder, sample: dict[str, Any]) -> tuple[np.ndarray, int]:
    return decoder(sample["jpeg"]), sample["label"]


def _write_chunks(job: Job, folder: str) -> None:
    from litdata import optimize

    files = files_in_order(job)
    optimize(functools.partial(_read_sample, files), list(files.pointers), folder, chunk_bytes="64MB", num_workers=1,
             reorder_files=False)


def _read_sample(files: ImageNetFiles, pointer: list[Any]) -> dict[str, Any]:
    return {"jpeg": files.read(pointer[0]), "label": pointer[1]}
