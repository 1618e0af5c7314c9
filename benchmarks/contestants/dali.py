"""NVIDIA DALI: its own readers and decoders, on the CPU."""
import contextlib
import os
from typing import Any, Iterator

from benchmarks.contestants import RESIZE, SIZE, Epoch, Job
from dataflows.sources.imagenet import ImageNetFiles


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
