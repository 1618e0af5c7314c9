"""What all tests of worker processes share: both loaders, a small file, fork, and nobody else's processes."""
import multiprocessing

import pytest

from helpers.worker_processes import know_the_others
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader


@pytest.fixture(params=[LMDBLoader, LMDBIterLoader], ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def path(jpeg_lmdb):
    return jpeg_lmdb / "train.lmdb"


@pytest.fixture(autouse=True)
def _fork():
    """As Python before 3.14 does by default."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture(autouse=True)
def _know_the_others():
    know_the_others()
