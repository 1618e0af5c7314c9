"""FFCV: its own file of JPEGs or pixels, compiled loops."""
import contextlib
import os
from typing import Iterator

import numpy as np

from benchmarks.contestants import RESIZE, SIZE, Epoch, Job
from benchmarks.copies import copy_of
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store


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
