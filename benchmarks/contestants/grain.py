"""Google's grain: an ArrayRecord file."""
import contextlib
import functools
import os
import struct
from typing import Any, Iterator, Sequence

import numpy as np

from benchmarks.contestants import Epoch, Job
from benchmarks.copies import copy_of, files_in_order
from benchmarks.decoder import Decoder, planar

_LABEL = "<i"  # before the JPEG in a record


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
