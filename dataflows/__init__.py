"""The components that the dump and the loaders are made of: tensorpack DataFlows, and the pure functions under them.

What users need of it is here by name, and imported when it is first asked for. The loaders themselves are in
uint_lmdb_loader.py and uint_lmdb_iterloader.py, and the dump is in dump_imagenet.py.
"""
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataflows.dump.verify import verify
    from dataflows.errors import Damaged, Locked, NoChecksums, RecordError, Refused, WorkerDied
    from dataflows.images.transforms import CenterCrop, RandomResizedCrop
    from dataflows.load.shuffle_quality import shuffle_quality

__version__ = "0.1.0"  # setup.py reads it from here

__all__ = ["CenterCrop", "Damaged", "Locked", "NoChecksums", "RandomResizedCrop", "RecordError", "Refused",
           "WorkerDied", "shuffle_quality", "verify"]

_HOMES = {"dataflows.errors": ("Damaged", "Locked", "NoChecksums", "RecordError", "Refused", "WorkerDied"),
          "dataflows.images.transforms": ("CenterCrop", "RandomResizedCrop"),
          "dataflows.load.shuffle_quality": ("shuffle_quality",),
          "dataflows.dump.verify": ("verify",)}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
