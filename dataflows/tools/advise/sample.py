"""A sample of images, and the formats that it is written in, as a small LMDB each."""
import os
from typing import NamedTuple, Sequence

from dataflows.dump.prepare import Preparation
from dataflows.dump.space import in_pages
from dataflows.dump.split import write_lmdb
from dataflows.sources.source import ImageSource
from dataflows.tensorpack import DataFlow

# By the name that predict.py knows them by. Not compared again: the sample is thrown away.
PREPARATIONS = {
    "jpeg --no-tiles": Preparation("jpeg", tiles=False, fix=True),
    "jpeg": Preparation("jpeg", compare_pixels=False, fix=True),
    "jpeg --shorter-side 320": Preparation("jpeg", shorter_side=320, compare_pixels=False, fix=True),
    "jpeg --shorter-side 256": Preparation("jpeg", shorter_side=256, compare_pixels=False, fix=True),
    "uint8": Preparation("uint8", fix=True),
    "uint8 --max-side 500": Preparation("uint8", max_side=500, fix=True),
    "uint8 --shorter-side 256": Preparation("uint8", shorter_side=256, fix=True),
    "uint8 --max-side 256": Preparation("uint8", max_side=256, fix=True),
}


class Image(NamedTuple):
    """One image of a sample."""

    name: str
    content: bytes
    label: int
    stored_bytes: int  # as the source has it; of an LMDB whole pages


class Sample(ImageSource, DataFlow):
    """Yields `[name, label]`, and gives each file's content: a source of the dump. `len` is exact.

    Labels are numbered anew, from 0, in their order: those of other writers' files may be any numbers.
    """

    def __init__(self, root: str, images: Sequence[Image]) -> None:
        super().__init__()
        self.root = root
        self.images = images
        self._contents = {image.name: image.content for image in images}
        numbers = {label: number for number, label in enumerate(sorted({image.label for image in images}))}
        self.classes = [str(number) for number in numbers.values()]
        self.pointers = [[image.name, numbers[image.label]] for image in images]

    def read(self, name: str) -> bytes:
        """The content of one file."""
        return self._contents[name]


def dump(sample: Sample, preparation: Preparation, path: str, num_threads: int) -> dict[str, int]:
    """Writes the sample as the dump would, with an index; bytes of each record, in whole pages, by the image's name.

    What cannot be stored is left out. Raises ValueError when nothing is left.
    """
    index = write_lmdb(sample, preparation, path, num_threads)
    names = (os.fsdecode(bytes(name)) for name in index.name)
    return dict(zip(names, map(in_pages, index.nbytes.tolist())))
