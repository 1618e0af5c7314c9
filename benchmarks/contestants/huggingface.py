"""Hugging Face's datasets: an Arrow file, mapped into memory."""
import contextlib
import functools
import os
from typing import Any, Iterator

from benchmarks.contestants import Epoch, Job
from benchmarks.copies import copy_of, files_in_order
from benchmarks.dataloader import torch_epochs
from benchmarks.decoder import Decoder, planar

_RECORDS_PER_WRITE = 100  # an array of them must stay below 2 GB


@contextlib.contextmanager
def huggingface(job: Job) -> Iterator[Epoch]:
    """An Arrow file that `datasets` maps into memory, its rows decoded by a transform in torch's DataLoader.

    The DataLoader's processes ask for all rows of a batch at once.
    """
    from datasets import Dataset

    folder = copy_of(job, "datasets", lambda partial: _write_arrow(job, partial))
    rows = Dataset.from_file(os.path.join(folder, "split.arrow"))
    epoch = torch_epochs(rows.with_transform(functools.partial(_decode_rows, Decoder(job.training))), job)
    yield lambda number: (planar(batch["image"], batch["label"]) for batch in epoch(number))


def _decode_rows(decoder: Decoder, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"image": [decoder(jpeg) for jpeg in rows["jpeg"]], "label": rows["label"]}


def _write_arrow(job: Job, folder: str) -> None:
    import pyarrow

    files = files_in_order(job)
    schema = pyarrow.schema([("jpeg", pyarrow.binary()), ("label", pyarrow.int64())])
    with pyarrow.ipc.new_stream(os.path.join(folder, "split.arrow"), schema) as stream:
        for first in range(0, len(files), _RECORDS_PER_WRITE):
            names, labels = zip(*files.pointers[first:first + _RECORDS_PER_WRITE])
            stream.write_batch(pyarrow.record_batch([[files.read(name) for name in names], labels], schema=schema))
