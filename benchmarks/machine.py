"""Tells what machine and which versions a run's figures are of."""
import argparse
import importlib.metadata
import platform
from typing import Any

_PACKAGES = ("imagenet-lmdb", "torch", "tensorpack", "lmdb", "numpy", "opencv-python", "opencv-python-headless",
             "Pillow", "msgpack", "simplejpeg", "torchvision", "webdataset", "datasets", "pyarrow", "litdata", "grain",
             "array_record", "spdl-core", "ffcv", "nvidia-dali-cuda120", "nvidia-dali-cuda130")


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a reader of the figures has to know of the machine and of the run."""
    from dataflows.processors import usable_cpus

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"arguments": vars(arguments), "versions": versions, "system": platform.platform(),
            "processor": _processor(), "cpu_count": usable_cpus()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
