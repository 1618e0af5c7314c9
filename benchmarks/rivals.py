"""Rivals with pipelines of their own, over the source's files or over a copy that only their library reads."""
import contextlib
import math
import os
import random
from typing import Any, Iterator

import cv2
import numpy as np
import torch

from benchmarks.contestants import RESIZE, SIZE, Epoch, Job
from benchmarks.copies import copy_of
from benchmarks.decoder import Decoder, planar
from dataflows.load.reader import RecordReader
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.storage.store import Store


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


@contextlib.contextmanager
def dali(job: Job) -> Iterator[Epoch]:
    """NVIDIA DALI without a GPU: its readers, its decoders (which decode only the crop) and its antialiased resize."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    files = ImageNetFiles(job.source, job.split)
    names, labels = zip(*files)
    paths = [os.path.join(files.root, name) for name in names]

    @pipeline_def(batch_size=job.batch_size, num_threads=max(1, job.num_workers), device_id=None, seed=0)
    def pipeline() -> tuple[Any, Any]:
        encoded, classes = fn.readers.file(files=paths, labels=list(labels), name="reader",
                                           shuffle_after_epoch=job.training)
        if job.training:
            images = fn.decoders.image_random_crop(encoded, device="cpu", output_type=types.RGB,
                                                   random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3])
            images = fn.resize(images, size=[SIZE, SIZE], interp_type=types.INTERP_LINEAR, antialias=True)
            mirror = fn.random.coin_flip()
        else:
            images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
            images = fn.resize(images, resize_shorter=RESIZE, interp_type=types.INTERP_LINEAR, antialias=True)
            mirror = 0
        # With its default mean of 0 and deviation of 1 this only crops, mirrors and transposes.
        return fn.crop_mirror_normalize(images, crop=(SIZE, SIZE), mirror=mirror, dtype=types.UINT8,
                                        output_layout="CHW"), classes

    batches = DALIGenericIterator(pipeline(), ["images", "labels"], reader_name="reader", auto_reset=True,
                                  last_batch_policy=LastBatchPolicy.PARTIAL)
    yield lambda number: ((batch["images"], batch["labels"].reshape(-1).long()) for [batch] in batches)


@contextlib.contextmanager
def ffcv(job: Job, mode: str) -> Iterator[Epoch]:
    """FFCV's loader over its own file, whose images are of `mode` "raw" or "jpg": what the LMDB's records show.

    jpg encodes them anew, in its default quality of 90, and decodes them whole. FFCV resizes with OpenCV's INTER_AREA,
    and overwrites a batch while its third successor is in use. Its stages are compiled during the first epoch.
    """
    from ffcv.fields import decoders
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    folder = copy_of(job, f"ffcv-{mode}", lambda partial: _write_beton(job, partial, mode))
    if job.training:
        images = [decoders.RandomResizedCropRGBImageDecoder((SIZE, SIZE)), RandomHorizontalFlip()]
    else:
        images = [decoders.CenterCropRGBImageDecoder((SIZE, SIZE), ratio=SIZE / RESIZE)]
    loader = Loader(os.path.join(folder, "split.beton"), job.batch_size, num_workers=max(1, job.num_workers),
                    os_cache=True, order=OrderOption.RANDOM if job.training else OrderOption.SEQUENTIAL,
                    drop_last=False, pipelines={"image": [*images, ToTensor(), ToTorchImage()],
                                                "label": [decoders.IntDecoder(), ToTensor(), Squeeze()]})
    yield lambda number: iter(loader)


class _Pixels:
    """The records of an LMDB as FFCV's writer takes them."""

    def __init__(self, path: str) -> None:
        self._reader = RecordReader(Store(path))

    def __len__(self) -> int:
        return len(self._reader.store)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        return self._reader.pixels(number)


def _write_beton(job: Job, folder: str, mode: str) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    fields = {"image": RGBImageField(write_mode=mode), "label": IntField()}
    writer = DatasetWriter(os.path.join(folder, "split.beton"), fields, num_workers=max(1, job.num_workers))
    writer.from_indexed_dataset(_Pixels(job.lmdb))
