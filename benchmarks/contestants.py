"""Who is measured, and the contract between a contestant and the process that measures it.

A contestant is a context manager, called with a Job, that yields a function `epoch`. `epoch(number)` returns an
iterable of `(images, labels)`: torch tensors, images uint8 RGB of shape (B, 3, 224, 224) with B at most the job's
batch size, labels int64 of shape (B,). Over one epoch these are the job's number of images, randomly cropped, mirrored
and shuffled for train, center-cropped for any other split. What is expensive to make belongs before the yield, what a
training loop pays for in each epoch into `epoch`.

Contestants are named by module and function, so that listing them imports neither them nor their libraries.
"""
import contextlib
import dataclasses
import importlib
import importlib.util
from typing import Any, Callable, Iterable

SIZE = 224  # output pixels per side
RESIZE = 256  # shorter side before the center crop, in pixels

Epoch = Callable[[int], Iterable[tuple[Any, Any]]]


@dataclasses.dataclass(frozen=True)
class Job:
    """What all contestants of one group do. Pickles."""

    source: str  # folder with one sub-folder per split
    split: str
    lmdb: str  # the split's LMDB file, in the group's format
    scratch: str  # folder for files that a contestant makes of the source, kept for the next run
    images: int  # in one epoch
    batch_size: int
    num_workers: int  # processes or threads, whichever the contestant uses

    @property
    def training(self) -> bool:
        """Whether crops and order are random."""
        return self.split == "train"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to load a split."""

    name: str
    function: str  # "module:function"
    about: str  # one line
    formats: tuple[str, ...] = ("jpeg", "uint8")  # groups it takes part in
    splits: tuple[str, ...] | None = None  # None: all
    reads_lmdb: bool = True  # else what it reads does not depend on the format
    needs: str | None = None  # module without which it is skipped
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def open(self, job: Job) -> contextlib.AbstractContextManager[Epoch]:
        """The context manager that yields `epoch`."""
        module, function = self.function.split(":")
        opened: contextlib.AbstractContextManager[Epoch] = getattr(importlib.import_module(module), function)(
            job, **self.options)
        return opened

    def importable(self) -> bool:
        """Whether the library that it needs is installed."""
        try:
            return self.needs is None or importlib.util.find_spec(self.needs) is not None
        except ModuleNotFoundError:  # the parent of a dotted name is missing
            return False

    def takes_part(self, split: str, format: str) -> bool:
        """Whether it runs in this group."""
        return format in self.formats and (self.splits is None or split in self.splits)


BASELINES = ("folder-pil", "tensorpack", "tensorpack-tuned")  # the ratios of the table are to these

_ALL = (
    Contestant("folder-pil", "benchmarks.folder:folder_pil", "torch DataLoader over a folder of files, PIL",
               reads_lmdb=False, needs="PIL"),
    Contestant("torchvision", "benchmarks.folder:torchvision", "torch DataLoader over ImageFolder, its transforms",
               formats=("jpeg",), reads_lmdb=False, needs="torchvision"),
    Contestant("tensorpack", "benchmarks.stock:tensorpack", "the chain of tensorpack's documentation, OpenCV"),
    Contestant("tensorpack-tuned", "benchmarks.stock:tensorpack", "stock components in their fastest arrangement",
               options={"tuned": True}),
    Contestant("webdataset", "benchmarks.rivals:webdataset", "tar shards, DataLoader processes, OpenCV",
               formats=("jpeg",), reads_lmdb=False, needs="webdataset"),
    Contestant("spdl", "benchmarks.rivals:spdl", "folder of files, thread pipeline, OpenCV",
               formats=("jpeg",), reads_lmdb=False, needs="spdl.pipeline"),
    Contestant("dali", "benchmarks.rivals:dali", "folder of files, DALI on the CPU",
               formats=("jpeg",), reads_lmdb=False, needs="nvidia.dali"),
    Contestant("dataset", "benchmarks.ours:dataset", "torch DataLoader over LMDBDataset"),
    Contestant("loader", "benchmarks.ours:loader", "LMDBLoader"),
    Contestant("loader-linear", "benchmarks.ours:loader", "LMDBLoader, antialias=False: OpenCV's INTER_LINEAR",
               splits=("train",), options={"antialias": False}),
    Contestant("iterloader", "benchmarks.ours:iterloader", "LMDBIterLoader"),
)
CONTESTANTS = {contestant.name: contestant for contestant in _ALL}
