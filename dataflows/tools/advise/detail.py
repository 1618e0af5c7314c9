"""Measures what shrunk images give up: how many crops are enlarged, and how far they are from crops of full images."""
import contextlib

import numpy as np
from PIL import Image

from dataflows.images.transforms import RandomResizedCrop
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store
from dataflows.tools.advise.limits import until
from dataflows.tools.advise.steps import SIZE

_EPOCHS = 20  # of crops that are counted; those of the first are compared
_COMPARED = 60  # images


def compare(path: str, full: str, deadline: float) -> tuple[float, float | None]:
    """(share of the crops that have fewer than SIZE pixels on a side, PSNR of a crop in dB) of a dump.

    `full` is a dump of the same images in their full size, whose crops are the reference; the PSNR is None where all
    are equal. Ends at `deadline`, by time.monotonic, or little longer.
    """
    with contextlib.closing(Store(path)) as shrunk, contextlib.closing(Store(full)) as whole:
        assert shrunk.index is not None and whole.index is not None
        crops, count = RandomResizedCrop(SIZE), len(shrunk)
        plans = [crops.plan(shrunk.index.height, shrunk.index.width, np.arange(count), 0, epoch)
                 for epoch in range(_EPOCHS)]
        enlarged = float(np.mean([plan[:, 2:4].min(axis=1) < SIZE for plan in plans]))
        same = {bytes(name): number for number, name in enumerate(whole.index.name)}
        pixels, original = (RecordReader(store).pixels for store in (shrunk, whole))
        errors = [_squared_error(pixels(number)[0], original(same[name])[0], plans[0][number, :4])
                  for number, name in until(deadline, enumerate(map(bytes, shrunk.index.name[:_COMPARED])))
                  if name in same]  # not so for a damaged JPEG: nothing but decoding it tells
    error = float(np.mean(errors)) if errors else 0.0
    return enlarged, float(10 * np.log10(255**2 / error)) if error else None


def _squared_error(pixels: np.ndarray, original: np.ndarray, box: np.ndarray) -> float:
    """The mean over a crop, resized by Pillow, which takes the same place to a fraction of a pixel from both."""
    def crop(image: np.ndarray) -> np.ndarray:
        top, left, height, width = box * np.tile(np.divide(image.shape[:2], pixels.shape[:2]), 2)
        return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR,
                                                        (left, top, left + width, top + height)), float)

    return float(np.mean((crop(pixels) - crop(original))**2))
