"""Loaders with worker processes, the same with threads, and which workers of this process are alive."""
import psutil
import torch

from dataflows import RandomResizedCrop
from helpers.waiting import eventually
from uint_lmdb_loader import LMDBLoader

CROP = RandomResizedCrop(16)


def processes(path, batch_size=2, *, cls=LMDBLoader, num_workers=2, **options):
    return cls(path, batch_size, num_workers=num_workers, worker_type="process", **options)


def threads(path, batch_size=2, *, cls=LMDBLoader, **options):
    return cls(path, batch_size, num_workers=2, **options)


def frozen(value):
    """A value as what compares by content: tensors with type, shape, dtype and bytes."""
    if isinstance(value, torch.Tensor):
        return type(value), value.shape, value.dtype, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(frozen, value))
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value


def batches_of(loader):
    return [frozen(batch) for batch in loader]


_others = set()  # children of earlier tests' making: the servers of multiprocessing live as long as the interpreter


def know_the_others():
    """What runs now is no worker of the test that begins."""
    _others.clear()
    _others.update(psutil.Process().children())


def workers():
    """The worker processes of this process, also those that have ended and were not waited for."""
    return [child for child in psutil.Process().children() if child not in _others]


def is_stopped(process):
    return process.status() == psutil.STATUS_STOPPED


def stop(process):
    process.suspend()
    assert eventually(lambda: is_stopped(process))


class NamedError(Exception):
    pass


def failing_at(path, place, raising):
    """A transform that fails for one record: that at `place` in the order."""
    wanted = []

    def remember(pixels):
        wanted.append(pixels.tobytes())
        return pixels

    list(LMDBLoader(path, 1, num_workers=0, transform=remember))
    return lambda pixels: raising() if pixels.tobytes() == wanted[place] else pixels


def raises(error):
    def raising():
        raise error
    return raising
