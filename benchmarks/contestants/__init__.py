"""The contestants, by name, and the contract between one of them and the process that measures it.

A contestant is a context manager, called with a Job, that yields a function `epoch`. `epoch(number)` returns an
iterable of `(images, labels)`: torch tensors, images uint8 RGB of shape (B, 3, 224, 224) with B at most the job's
batch size, labels int64 of shape (B,). Over one epoch these are the job's number of images, randomly cropped, mirrored
and shuffled for train, center-cropped for any other split. Contestants of a recipe take part in train alone, and their
images are normalized float32, after the transforms of benchmarks/recipes.py. What is expensive to make belongs before
the yield, what a training loop pays for in each epoch into `epoch`.

Contestants are named by module and function, so that listing them imports neither them nor their libraries.
"""
import contextlib
import dataclasses
import importlib
import importlib.util
from typing import Any, Callable, Iterable

SIZE = 224  # output pixels per side
RESIZE = 256  # shorter side before the center crop, in pixels
SHARDS = 13  # of the contestants that read several files
SHUFFLE_BUFFER = 50_000  # records, of LMDBIterLoader

Epoch = Callable[[int], Iterable[tuple[Any, Any]]]


@dataclasses.dataclass(frozen=True)
class Job:
    """What all contestants of one group do. Pickles."""

    source: str  # folder with one sub-folder per split
    split: str
    lmdb: str  # the split's LMDB file, in the group's format
    scratch: str  # folder for copies that a contestant makes on first use, kept for the next run
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
    by_format: bool = True  # whether what it reads depends on the group's format; else it is the source's bytes
    needs: tuple[str, ...] = ()  # others' modules, without which it is skipped; so it is where they do not start
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    limit: str | None = None  # the figure of limit.py that its processor time is compared with
    recipe: str = ""  # the transforms after cropping, of recipes.py; ratios are taken to contestants of the same
    one_file: bool = False  # it opens the LMDB file by itself, and knows no manifest
    own_figures: bool = False  # `epoch` returns figures and no batches: a measurement in a contestant's place

    def open(self, job: Job) -> contextlib.AbstractContextManager[Epoch]:
        """The context manager that yields `epoch`."""
        module, function = self.function.split(":")
        opened: contextlib.AbstractContextManager[Epoch] = getattr(importlib.import_module(module), function)(
            job, **self.options)
        return opened

    def missing(self) -> list[str]:
        """Those of the modules that it needs which are not installed."""
        return [module for module in self.needs if not _installed(module)]

    def takes_part(self, split: str, format: str) -> bool:
        """Whether it runs in this group."""
        return format in self.formats and (self.splits is None or split in self.splits)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


BASELINES = ("folder-pil", "tensorpack", "tensorpack-tuned", "pool", "memmap", "torchvision-trivial",
             "torchvision-erasing")  # the table's ratios are to these

_SOURCE: dict[str, Any] = {"formats": ("jpeg",), "by_format": False}  # one group shows what reads the source's bytes


def _recipe(reader: str, recipe: str, function: str, about: str, by_format: bool = True, **options: Any) -> Contestant:
    """One that does what torchvision's reference training does to each image."""
    return Contestant(f"{reader}-{recipe}", function, about, splits=("train",), by_format=by_format,
                      needs=("torchvision",), recipe=recipe, options={"recipe": recipe, **options})


def _recipes(recipe: str, what: str) -> tuple[Contestant, ...]:
    """The folder with torchvision, which is the baseline, and ours."""
    return (
        _recipe("torchvision", recipe, "torch_folder:torchvision", f"torch DataLoader over ImageFolder, {what}",
                by_format=False),
        _recipe("dataset", recipe, "ours:dataset", f"torch DataLoader over LMDBDataset, {what}"),
        _recipe("loader", recipe, "ours:loader", f"LMDBLoader, {what}"),
    )


# A new one also belongs into setup.py's extra `benchmark`, and into the table of docs/figures.md.
_ALL = (  # their functions are named from this folder on
    Contestant("folder-pil", "torch_folder:folder_pil", "torch DataLoader over a folder of files, PIL",
               by_format=False, needs=("PIL",)),
    Contestant("torchvision", "torch_folder:torchvision", "torch DataLoader over ImageFolder, its transforms",
               needs=("torchvision",), **_SOURCE),
    Contestant("tensorpack", "tensorpack:tensorpack", "the chain of tensorpack's documentation, OpenCV",
               one_file=True),
    Contestant("tensorpack-tuned", "tensorpack:tensorpack", "stock components in their fastest arrangement",
               options={"tuned": True}, one_file=True),
    Contestant("pool", "pool:pool", "bare thread pool over JPEGs in memory, simplejpeg", **_SOURCE),
    Contestant("memmap", "pool:memmap", "bare thread pool over a file of pixels, INTER_LINEAR",
               formats=("uint8",)),
    Contestant("webdataset", "webdataset:webdataset", "tar shards, DataLoader processes, simplejpeg",
               needs=("webdataset",), **_SOURCE),
    Contestant("datasets", "huggingface:huggingface", "Arrow file, DataLoader processes, simplejpeg",
               needs=("datasets",), **_SOURCE),
    Contestant("litdata", "litdata:litdata", "litdata's chunks, its loader's processes, simplejpeg",
               needs=("litdata",), **_SOURCE),
    Contestant("grain", "grain:grain", "ArrayRecord file, grain's threads, simplejpeg",
               needs=("grain", "array_record"), **_SOURCE),
    Contestant("spdl", "spdl:spdl", "folder of files, SPDL's thread pipeline, simplejpeg",
               needs=("spdl.pipeline",), **_SOURCE),
    Contestant("dali", "dali:dali", "folder of files, DALI on the CPU", needs=("nvidia.dali",), **_SOURCE),
    Contestant("ffcv-jpg", "ffcv:ffcv", "FFCV's file of JPEGs in its quality of 90, INTER_AREA",
               formats=("jpeg",), needs=("ffcv",), options={"mode": "jpg"}),
    Contestant("ffcv-raw", "ffcv:ffcv", "FFCV's file of pixels, INTER_AREA",
               formats=("uint8",), needs=("ffcv",), options={"mode": "raw"}),
    Contestant("dataset", "ours:dataset", "torch DataLoader over LMDBDataset", limit="limit_ms"),
    Contestant("loader", "ours:loader", "LMDBLoader", limit="limit_ms"),
    Contestant("loader-8-threads", "ours:loader", "LMDBLoader, 8 threads whatever --num-workers says",
               options={"num_workers": 8}, limit="limit_ms"),
    Contestant("loader-linear", "ours:loader", "LMDBLoader, antialias=False: OpenCV's INTER_LINEAR",
               options={"antialias": False}, limit="limit_linear_ms"),
    Contestant("loader-fast", "ours:loader", "LMDBLoader, fast_decode=True: planes, by our own decoder",
               formats=("jpeg",), options={"fast_decode": True}, limit="limit_fast_ms"),
    Contestant("loader-fast-libjpeg", "ours:loader", "the same by simplejpeg's fast options",
               formats=("jpeg",), options={"fast_decode": True, "decoder": "libjpeg"}),
    Contestant("loader-linear-fast", "ours:loader", "LMDBLoader with both", formats=("jpeg",),
               options={"antialias": False, "fast_decode": True}, limit="limit_linear_fast_ms"),
    Contestant("loader-linear-fast-libjpeg", "ours:loader", "LMDBLoader with both by simplejpeg's fast options: the "
               "work that rivals do", formats=("jpeg",),
               options={"antialias": False, "fast_decode": True, "decoder": "libjpeg"}),
    Contestant("loader-shards", "ours:loader", f"LMDBLoader over {SHARDS} shards", options={"shards": SHARDS},
               limit="limit_ms"),
    Contestant("iterloader", "ours:iterloader", "LMDBIterLoader", limit="limit_ms"),
    Contestant("iterloader-shards", "ours:iterloader", f"LMDBIterLoader over {SHARDS} shards",
               options={"shards": SHARDS}, limit="limit_ms"),
    *_recipes("erasing", "torchvision's recipe with RandomErasing(0.25)"),
    *_recipes("trivial", "torchvision's recipe with TrivialAugmentWide"),
    _recipe("loader-processes", "trivial", "ours:loader", "the same LMDBLoader, worker processes",
            worker_type="process"),
    _recipe("loader-callable", "trivial", "ours:whole_images", "LMDBLoader, the same as a callable on whole images, "
            "worker processes"),
)
CONTESTANTS = {one.name: dataclasses.replace(one, function=f"{__name__}.{one.function}") for one in _ALL}
LIMIT = Contestant("limit", "benchmarks.limit:limit", "what the crops alone take", own_figures=True)
