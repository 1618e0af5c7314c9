"""Meta's SPDL: a pipeline of threads over the files."""
import contextlib
import math
import random
from typing import Any, Iterator

import cv2
import numpy as np
import torch

from benchmarks.contestants import Epoch, Job
from benchmarks.decoder import Decoder, planar
from dataflows.sources.imagenet import ImageNetFiles


@contextlib.contextmanager
def spdl(job: Job) -> Iterator[Epoch]:
    """SPDL's pipeline of threads over the files: tasks of several samples each, then batches put together of them.

    A task per sample, and a stage that stacks, costs 10 % more processor time.
    """
    from spdl.pipeline import PipelineBuilder

    cv2.setNumThreads(0)  # parallel already
    files, decoder, workers = ImageNetFiles(job.source, job.split), Decoder(job.training), max(1, job.num_workers)
    task = math.gcd(job.batch_size, 16)  # samples

    def load(pointers: list[list[Any]]) -> tuple[np.ndarray, list[int]]:
        return np.stack([decoder(files.read(name)) for name, _ in pointers]), [label for _, label in pointers]

    def join(parts: list[tuple[np.ndarray, list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
        return planar(np.concatenate([images for images, _ in parts]), [label for _, part in parts for label in part])

    def epoch(number: int) -> Iterator[Any]:
        pointers = list(files)
        if job.training:
            random.Random(number).shuffle(pointers)
        pipeline = (PipelineBuilder().add_source(pointers).aggregate(task)
                    .pipe(load, concurrency=workers, output_order="completion" if job.training else "input")
                    .aggregate(job.batch_size // task).pipe(join).add_sink(2).build(num_threads=workers))
        with pipeline.auto_stop():
            yield from pipeline

    yield epoch
