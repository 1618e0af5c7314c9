"""Which module may import which, and what importing leaves alone: the terminal, optional packages, thread counts."""
import ast
import pathlib
import subprocess
import sys

import pytest

import dataflows

PACKAGE = pathlib.Path(dataflows.__file__).parent
ROOT = PACKAGE.parent
TIMEOUT_SECONDS = 120

# Each module may import only those before it.
CORE = ("quiet", "options", "arguments", "interrupts", "terminal", "system", "processors", "flush", "threads",
        "available", "stats", "meter", "jpeg", "cutting", "compiled", "kernels", "huffman", "tiling", "pickled",
        "msgpacked", "epoch", "names", "folders", "tars", "annotations", "metadata", "layouts", "imagenet",
        "record", "index", "pillow", "audit", "pages", "environment", "paths", "content", "store", "shuffle",
        "prefetch", "ranks", "keys", "crop", "decode", "resize", "reader", "prepare", "report", "parallel",
        "memory", "messages", "processes", "batch", "write", "verify", "journal", "publish", "unfinished",
        "packing", "columns", "space", "summary", "check", "finish", "adapter", "dataset", "quality")
TOOLS = ("predict", "sampling", "disk", "measure", "advise", "bins", "plain", "provenance", "look", "statements",
         "info", "views", "sheet", "markup", "rates", "page")
ORDER = (*CORE, *(f"tools.{name}" for name in TOOLS))
PUBLIC = {"__init__": ("crop",), "tools.__init__": (), "__main__": ORDER}  # what packages may import
ROOT_MODULES = ("dump_imagenet", "uint_lmdb_loader", "uint_lmdb_iterloader")


def imported_modules(path):
    """The names of the modules that a file imports anywhere in it, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules():
    return sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def file_of(module):
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def test_every_module_has_a_place_in_the_order():
    assert set(modules()) - set(PUBLIC) == set(ORDER)


@pytest.mark.parametrize("module", modules())
def test_imports_point_down_the_order(module):
    ours = {f"dataflows.{name}" for name in modules()}
    allowed = PUBLIC[module] if module in PUBLIC else ORDER[:ORDER.index(module)]
    found = {name.removeprefix("dataflows.") for name in imported_modules(file_of(module)) & ours}
    assert found <= set(allowed)
    assert not imported_modules(file_of(module)) & set(ROOT_MODULES)


def test_the_name_of_a_module_is_not_hidden_by_the_package():
    for module in modules():
        assert module not in dataflows.__all__


@pytest.mark.parametrize("names", [[name] for name in ROOT_MODULES] + [[f"dataflows.{name}" for name in ORDER]],
                         ids=[*ROOT_MODULES, "dataflows"])
def test_importing_prints_nothing(names):
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"import {', '.join(names)}"], cwd=ROOT, text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


STATE = """
import cv2, logging, os, signal, sys, threading, torch
import numpy as np, random, multiprocessing

def state():
    return {
        "torch threads": torch.get_num_threads(), "torch interop threads": torch.get_num_interop_threads(),
        "OpenCV threads": cv2.getNumThreads(), "OpenCV OpenCL": cv2.ocl.useOpenCL(),
        "torch sharing": torch.multiprocessing.get_sharing_strategy(), "torch dtype": torch.get_default_dtype(),
        "start method": multiprocessing.get_start_method(allow_none=True), "folder": os.getcwd(),
        "numpy seed": np.random.get_state()[1].tolist(), "random": random.getstate(),
        "torch seed": torch.initial_seed(), "handlers": logging.getLogger().handlers[:],
        "level": logging.getLogger().level, "threads": threading.active_count(), "numpy errors": np.geterr(),
        "SIGINT": signal.getsignal(signal.SIGINT), "grad": torch.is_grad_enabled(),
    }

before = state()
from uint_lmdb_loader import LMDBDataset, LMDBLoader
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from dataflows import CenterCrop, RandomResizedCrop
imported = state()
for path in sys.argv[1:]:
    for cls in (LMDBLoader, LMDBIterLoader):
        for transform in (RandomResizedCrop(16), CenterCrop(16, 20), RandomResizedCrop(16, antialias=False), None):
            for _ in cls(path, 4, transform=transform, num_workers=2):
                pass
    for cls in (LMDBDataset, LMDBIterDataset):
        for _ in cls(path):
            pass
used = state()
for name in before:
    if not before[name] == imported[name] == used[name]:
        print("changed:", name, before[name], imported[name], used[name])
for name in ("matplotlib", "PIL", "numba", "hypothesis", "pytest", "torchvision", "tensorflow", "IPython"):
    if name in sys.modules:
        print("imported:", name)
"""


def test_loaders_leave_global_state_and_optional_packages_alone(jpeg_lmdb, uint8_lmdb):
    done = subprocess.run([sys.executable, "-W", "error", "-c", STATE, jpeg_lmdb / "val.lmdb", uint8_lmdb / "val.lmdb"],
                          cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
