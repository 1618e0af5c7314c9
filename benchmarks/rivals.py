"""Contestants from other libraries, measured when installed. Where one leaves decoding open, it is OpenCV's."""
import contextlib
import glob
import math
import os
import random
from typing import Any, Callable, Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from benchmarks.contestants import RESIZE, SIZE, Epoch, Job
from benchmarks.opencv import center_crop, decode, random_crop
from dataflows.imagenet import ImageNetFiles

_SHUFFLE_BUFFER = 2000  # records that webdataset mixes, besides whole shards


class _Decoder:
    """JPEG bytes to a cropped image, uint8 of shape (224, 224, 3). Pickles, for libraries that start processes."""

    def __init__(self, training: bool) -> None:
        self._crop: Callable[[np.ndarray], np.ndarray] = random_crop if training else center_crop

    def __call__(self, jpeg: bytes) -> np.ndarray:
        return self._crop(decode(jpeg))


def _planar(images: np.ndarray | torch.Tensor, labels: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, W, 3) as a (B, 3, H, W) view, which costs nothing."""
    return torch.as_tensor(images).permute(0, 3, 1, 2), torch.as_tensor(labels, dtype=torch.int64)


@contextlib.contextmanager
def webdataset(job: Job) -> Iterator[Epoch]:
    """Tar shards, made of the source on first use, read by webdataset's loader in processes that batch for themselves.

    Train shuffles whole shards and then samples within a buffer.
    """
    import webdataset as wds

    shards = _write_shards(job)
    dataset = wds.WebDataset(shards, shardshuffle=len(shards) if job.training else False, empty_check=False)
    if job.training:
        dataset = dataset.shuffle(_SHUFFLE_BUFFER)
    dataset = (dataset.to_tuple("jpg", "cls").map_tuple(_Decoder(job.training), int)
               .batched(job.batch_size, collation_fn=default_collate, partial=True))
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=job.num_workers,
                           persistent_workers=job.num_workers > 0)
    yield lambda number: (_planar(*batch) for batch in loader)


def _write_shards(job: Job) -> list[str]:
    """Paths of tar files with the split's files, in the order in which a dump stores them."""
    import webdataset as wds

    folder = os.path.join(job.scratch, "webdataset", job.split)
    if not os.path.isdir(folder):
        files = ImageNetFiles(job.source, job.split, seed=0 if job.training else None)
        partial = folder + ".partial"
        os.makedirs(partial, exist_ok=True)
        per_shard = min(1000, math.ceil(len(files) / max(8, job.num_workers)))  # enough shards for every worker
        with wds.ShardWriter(os.path.join(partial, "%06d.tar"), maxcount=per_shard, verbose=0) as sink:
            for number, (name, label) in enumerate(files):
                sink.write({"__key__": f"{number:08d}", "jpg": files.read(name), "cls": label})
        os.rename(partial, folder)
    return sorted(glob.glob(os.path.join(glob.escape(folder), "*.tar")))


@contextlib.contextmanager
def spdl(job: Job) -> Iterator[Epoch]:
    """SPDL's pipeline of threads over the files: tasks of several samples each, then batches put together of them.

    A task per sample, and a stage that stacks, costs 10 % more processor time.
    """
    from spdl.pipeline import PipelineBuilder

    cv2.setNumThreads(0)  # parallel already
    files, decoder, workers = ImageNetFiles(job.source, job.split), _Decoder(job.training), max(1, job.num_workers)
    task = math.gcd(job.batch_size, 16)  # samples

    def load(pointers: list[list[Any]]) -> tuple[np.ndarray, list[int]]:
        return np.stack([decoder(files.read(name)) for name, _ in pointers]), [label for _, label in pointers]

    def join(parts: list[tuple[np.ndarray, list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
        return _planar(np.concatenate([images for images, _ in parts]), [label for _, part in parts for label in part])

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
