"""Measures the least processor time that an image takes on this machine: a limit to compare loaders with.

    limit = decode a whole image x the share of its area that the crop depends on + resize that share

in ms of processor time per image. Each term is a mean over a sample of the job's records; pixels need no decoding. The
cost of pointers, batches, threads and Python is not in it. A loader that decodes whole images cannot reach the limit;
one that decodes little more than the crop comes near.
"""
import contextlib
from typing import Any, Callable, Iterator

import cv2
import numpy as np
import torch

from benchmarks.contestants import SIZE, Job
from benchmarks.contestants.ours import transform
from benchmarks.decoder import decode_fast
from benchmarks.opencv import decode
from dataflows.images.plan import FLIP, regions
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store
from dataflows.tools.advise.steps import resize_ms, thread_ms

SAMPLE = 300  # records


@contextlib.contextmanager
def limit(job: Job) -> Iterator[Callable[[int], dict[str, Any]]]:
    """Yields `epoch(number)`, which measures the sample with that epoch's crops and returns its means.

    images          how many
    decode_ms       a whole image by cv2.imdecode; 0 for pixels
    decode_fast_ms  the same by simplejpeg with its fast options, which give other pixels
    share           the part of the image's area that the crop depends on
    resize_ms       that part to the size of the crop, antialiased, into the planes of a batch
    resize_linear_ms   the same with INTER_LINEAR
    limit_ms, limit_linear_ms, limit_fast_ms, limit_linear_fast_ms   the formula above, with either of each
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with contextlib.closing(Store(job.lmdb)) as store:
        reader, count = RecordReader(store), min(SAMPLE, len(store))
        numbers = [i * len(store) // count for i in range(count)]  # spread evenly
        yield lambda epoch: _means([_costs(reader, number, job, epoch) for number in numbers])


def _costs(reader: RecordReader, number: int, job: Job, epoch: int) -> tuple[float, ...]:
    """Of one record: ms to decode, decode fast, resize, and resize by INTER_LINEAR; and the share."""
    image, decode_ms, fast_ms = reader.view(number)[0].copy(), 0.0, 0.0  # read from the file before the clock starts
    if image.ndim == 1:
        fast_ms, _ = thread_ms(lambda: decode_fast(image))
        decode_ms, image = thread_ms(lambda: decode(image))
    crops, (height, width) = transform(job), image.shape[:2]
    plan = crops.plan(np.array([height]), np.array([width]), np.array([number]), 0, epoch)
    [region] = regions(plan, (SIZE, SIZE)).tolist()
    share = region[2] * region[3] / (height * width)
    return decode_ms, fast_ms, *resize_ms(image, region, plan[0, FLIP]), share


def _means(costs: list[tuple[float, ...]]) -> dict[str, Any]:
    decode_ms, fast_ms, antialiased_ms, linear_ms, share = np.mean(costs, axis=0).tolist()
    return {"images": len(costs), "decode_ms": decode_ms, "decode_fast_ms": fast_ms, "share": share,
            "resize_ms": antialiased_ms, "resize_linear_ms": linear_ms, "limit_ms": decode_ms * share + antialiased_ms,
            "limit_linear_ms": decode_ms * share + linear_ms, "limit_fast_ms": fast_ms * share + antialiased_ms,
            "limit_linear_fast_ms": fast_ms * share + linear_ms}
