"""Rivals that read a file format of their own, written from the source on first use. All decode alike.

Each has the arrangement that its documentation recommends for speed, or where it leaves a choice, what was faster on
2 cores.
"""
import contextlib
import functools
import glob
import math
import os
import struct
from typing import Any, Iterator, Sequence

import numpy as np
from torch.utils.data import default_collate

from benchmarks.contestants import Epoch, Job
from benchmarks.copies import copy_of, files_in_order
from benchmarks.dataloader import torch_epochs
from benchmarks.decoder import Decoder, planar
from dataflows.sources.imagenet import ImageNetFiles

_SHUFFLE_BUFFER = 2000  # records that webdataset mixes, besides whole shards
_RECORDS_PER_WRITE = 100  # of Arrow; an array of them must stay below 2 GB
_LABEL = "<i"  # before the JPEG in grain's records


@contextlib.contextmanager
def webdataset(job: Job) -> Iterator[Epoch]:
    """Tar shards, read by webdataset's loader in processes that batch for themselves.

    Train shuffles whole shards and then samples within a buffer.
    """
    import webdataset as wds

    folder = copy_of(job, "webdataset", lambda partial: _write_shards(job, partial))
    shards = sorted(glob.glob(os.path.join(glob.escape(folder), "*.tar")))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards) if job.training else False, empty_check=False)
    if job.training:
        dataset = dataset.shuffle(_SHUFFLE_BUFFER)
    dataset = (dataset.to_tuple("jpg", "cls").map_tuple(Decoder(job.training), int)
               .batched(job.batch_size, collation_fn=default_collate, partial=True))
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=job.num_workers,
                           persistent_workers=job.num_workers > 0)
    yield lambda number: (planar(*batch) for batch in loader)


def _write_shards(job: Job, folder: str) -> None:
    import webdataset as wds

    files = files_in_order(job)
    per_shard = min(1000, math.ceil(len(files) / max(8, job.num_workers)))  # enough shards for every worker
    with wds.ShardWriter(os.path.join(folder, "%06d.tar"), maxcount=per_shard, verbose=0) as sink:
        for number, (name, label) in enumerate(files):
            sink.write({"__key__": f"{number:08d}", "jpg": files.read(name), "cls": label})


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


@contextlib.contextmanager
def grain(job: Job) -> Iterator[Epoch]:
    """An ArrayRecord file, read by key and decoded in grain's threads, which prefetch samples for two batches.

    Its worker processes, even when one iterator keeps them for all epochs, were no faster and cost a tenth more.
    """
    import grain as library

    folder = copy_of(job, "grain", lambda partial: _write_array_record(job, partial))
    records = library.MapDataset.source(library.sources.ArrayRecordDataSource(os.path.join(folder, "records")))
    load = functools.partial(_decode_record, Decoder(job.training))
    options = library.ReadOptions(num_threads=max(1, job.num_workers), prefetch_buffer_size=2 * job.batch_size)

    def epoch(number: int) -> Iterator[Any]:
        samples = (records.shuffle(seed=number) if job.training else records).map(load)
        batches = samples.to_iter_dataset(options).batch(job.batch_size, batch_fn=_stack)
        with contextlib.closing(iter(batches)) as iterator:  # its threads would live on
            yield from (planar(*batch) for batch in iterator)

    yield epoch


def _decode_record(decoder: Decoder, record: bytes) -> tuple[np.ndarray, int]:
    [label] = struct.unpack_from(_LABEL, record)
    return decoder(record[struct.calcsize(_LABEL):]), label


def _stack(samples: Sequence[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*samples)
    return np.stack(images), np.array(labels)


def _write_array_record(job: Job, folder: str) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    files = files_in_order(job)
    # One record a group, as grain asks for when reading by key. Compressing JPEGs would only cost time.
    writer = ArrayRecordWriter(os.path.join(folder, "records"), "group_size:1,uncompressed")
    for name, label in files:
        writer.write(struct.pack(_LABEL, label) + files.read(name))
    writer.close()
