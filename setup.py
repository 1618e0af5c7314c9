"""Installs the three root modules, the package `dataflows`, and the console script `dump-imagenet`."""
import pathlib
import re

from setuptools import find_packages, setup

# Read, and not imported: what the package needs may not be installed yet.
_PACKAGE = (pathlib.Path(__file__).parent / "dataflows" / "__init__.py").read_text(encoding="utf-8")
[VERSION] = re.findall('^__version__ = "(.+?)"', _PACKAGE, re.MULTILINE)

setup(
    name="imagenet-lmdb",
    version=VERSION,
    description="ImageNet in one LMDB file per split, and fast tensorpack dataflow loaders that feed it to PyTorch",
    long_description=(pathlib.Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="imagenet-lmdb contributors",
    license="MIT",
    license_files=["LICENSE"],
    keywords="imagenet lmdb tensorpack dataflow pytorch dataloader",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        # Those that all tests were run with, in the versions of constraints.txt.
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.10",
    py_modules=["dump_imagenet", "uint_lmdb_loader", "uint_lmdb_iterloader"],
    packages=find_packages(include=["dataflows", "dataflows.*"]),
    package_data={"dataflows": ["py.typed"], "dataflows.tools.sheet": ["page.css"]},
    # Each bound is the oldest release that has what we use, or that runs on Python 3.10.
    install_requires=[
        "tensorpack>=0.11,<0.12",  # private parts of it are used: docs/design.md has the table
        "lmdb>=1.3",               # first for Python 3.10; fixes a crash in reused transactions
        "opencv-python>=4.11",     # cv2.IMREAD_COLOR_RGB
        "simplejpeg>=1.8",         # NumPy 2; JPEG decoding into memory of ours
        "numpy>=1.23.5",           # what opencv-python 4.11 asks for
        "torch>=2.3",              # uint8 antialiased resize (2.1), NumPy 2 (2.3)
        "Pillow>=10.1",            # ImageFont.load_default(size)
        "msgpack>=1.0.3",          # first for Python 3.10
        "msgpack-numpy>=0.4.8",    # of 2022; older ones are not tested
        "numba>=0.57",             # for Python 3.11; older ones are not tested
        "tqdm>=4.62",
        "threadpoolctl>=3.1",      # ThreadpoolController
    ],
    extras_require={
        "plot": ["matplotlib>=3.7"],
        "devkit": ["scipy>=1.8"],  # first for Python 3.10
        "ray": ["ray>=2.60"],  # of the dump; older ones are not tested
        # Frameworks that train from the loaders, as docs/frameworks.md and the examples do.
        "lightning": ["lightning>=2.6"],
        "accelerate": ["accelerate>=1.15"],
        "ray-train": ["ray[train]>=2.60"],
        # Files at URLs: obstore reads records; the others open data sets, and read where obstore cannot.
        "remote": ["fsspec[http]>=2024.12", "obstore>=0.8", "s3fs>=2024.12"],
        # What benchmark.py compares with, as it was run; each is left out where it is missing or does not start.
        "benchmark": ["datasets>=5.2", "grain>=0.2.18", "litdata>=0.2.76", "spdl-core>=0.8", "webdataset>=1.0.2",
                      "matplotlib>=3.7"],
        "docs": ["mkdocs>=1.6", "mkdocstrings[python]>=1.0", "ruff>=0.5"],  # ruff breaks signatures into lines
        "test": ["pytest>=7.4", "hypothesis>=6.80", "matplotlib>=3.7", "psutil>=5", "scipy>=1.8", "torchdata>=0.11",
                 "mfusepy>=3.1", "pytest-xdist>=3.5", "setuptools>=77", "lightning>=2.6", "accelerate>=1.15",
                 "fsspec[http]>=2024.12", "obstore>=0.8", "s3fs>=2024.12", "moto[s3,server]>=5",
                 "ray[train]>=2.60"],
    },
    entry_points={"console_scripts": ["dump-imagenet=dump_imagenet:main"]},
)
