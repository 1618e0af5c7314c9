"""Which module may import which, and what importing leaves alone: the terminal, optional packages, thread counts."""
import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

import dataflows

PACKAGE = pathlib.Path(dataflows.__file__).parent
ROOT = PACKAGE.parent
TIMEOUT_SECONDS = 120

# A folder may import itself, what is in an earlier row, and the modules beside the folders; no neighbour in its row.
TIERS = (("jpeg", "storage", "sources", "order"), ("images",), ("load", "dump"), ("tools",))
TIER = {folder: number for number, folders in enumerate(TIERS, 1) for folder in folders}  # 0: the modules beside them
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
    """Their names below dataflows; a folder's is that of its __init__."""
    names = (".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names)


def imports_of(module):
    """The modules of dataflows that a module imports."""
    path = PACKAGE.joinpath(*module.split("."))
    found = imported_modules(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    assert not found & set(ROOT_MODULES), module
    return {name for name in modules() if f"dataflows.{name}" in found}


@pytest.mark.parametrize("module", [module for module in modules() if module not in ("__init__", "__main__")])
def test_imports_point_down_the_tiers(module):
    tier = TIER.get(module.split(".")[0], 0)
    for other in imports_of(module):
        below = TIER.get(other.split(".")[0], 0)
        assert below < tier or other.split(".")[0] == module.split(".")[0] or below == 0 == tier, (module, other)


def test_imports_make_no_circle():
    graph = {module: imports_of(module) for module in modules()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_folder_is_a_hall():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= 14, folder


def test_the_name_of_a_module_is_not_hidden_by_the_package():
    for module in modules():
        assert module not in dataflows.__all__


def test_the_public_names_are_sorted_and_imported_when_asked_for():
    assert dataflows.__all__ == sorted(dataflows.__all__)
    for name in dataflows.__all__:
        assert getattr(dataflows, name).__name__ == name and name in dir(dataflows)
    with pytest.raises(AttributeError, match="module 'dataflows' has no attribute 'Nothing'"):
        _ = dataflows.Nothing
    alone = "import sys, dataflows; print(dataflows.__version__, *{'numpy', 'torch', 'cv2', 'lmdb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", alone], cwd=ROOT, text=True, capture_output=True,
                          timeout=TIMEOUT_SECONDS)
    assert (done.stdout, done.stderr) == (f"{dataflows.__version__}\n", "")


ALL = [f"dataflows.{name}" for name in modules() if not name.startswith("__")]


@pytest.mark.parametrize("names", [[name] for name in ROOT_MODULES] + [ALL],
                         ids=[*ROOT_MODULES, "dataflows"])
def test_importing_prints_nothing(names):
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"import {', '.join(names)}"], cwd=ROOT, text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_dump_imports_torch_only_to_resize():
    code = ("import sys, numpy\nfrom dataflows.dump.prepare import Preparation\nimport dump_imagenet\n"
            "from dataflows.images.codecs import encode\njpeg = encode(numpy.zeros((9, 9, 3), numpy.uint8), 90)\n"
            "for side in None, 9, 5:\n"
            "    Preparation('uint8', max_side=side)(jpeg)\n    print('torch' in sys.modules)\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True,
                          timeout=TIMEOUT_SECONDS)
    assert (done.stdout.split(), done.stderr) == (["False", "False", "True"], "")


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

torch.set_num_threads(3)  # tests have one, to which it might be set unnoticed
before = state()
from uint_lmdb_loader import LMDBDataset, LMDBLoader
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.compiled import ready
assert "numba" not in sys.modules
imported = state()
for path in sys.argv[1:]:
    for cls in (LMDBLoader, LMDBIterLoader):
        for transform in (RandomResizedCrop(16), CenterCrop(16, 20), RandomResizedCrop(16, antialias=False), None):
            for _ in cls(path, 4, transform=transform, num_workers=2):
                pass
    for cls in (LMDBDataset, LMDBIterDataset):
        for _ in cls(path):
            pass
ready.make_ready()  # whose thread may not have ended yet
used = state()
for name in before:
    if not before[name] == imported[name] == used[name]:
        print("changed:", name, before[name], imported[name], used[name])
for name in ("matplotlib", "PIL", "hypothesis", "pytest", "torchvision", "tensorflow", "IPython"):
    if name in sys.modules:
        print("imported:", name)
"""


def test_loaders_leave_global_state_and_optional_packages_alone(jpeg_lmdb, uint8_lmdb):
    done = subprocess.run([sys.executable, "-W", "error", "-c", STATE, jpeg_lmdb / "val.lmdb", uint8_lmdb / "val.lmdb"],
                          cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
