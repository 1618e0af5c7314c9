"""Whether crops can be made from planes in this process, and each thread's memory for that.

What numba has compiled is loaded when it is first needed, half a second, or compiled, which takes longer, once on a
machine. Importing this imports neither numba nor what it compiles.
"""
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Iterator

if TYPE_CHECKING:
    from dataflows.images.fast.crops import FastCrops

logger = logging.getLogger(__name__)
_local = threading.local()
_lock = threading.Lock()
_ready: list[bool] = []


def _renew_lock() -> None:
    """After a fork, in the child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def make_ready() -> bool:
    """Loads, or compiles, what crops are made with; whether it works here. Thread-safe.

    Where it does not, one warning says why, and crops are made as if there were no tiles.
    """
    with _lock:
        if not _ready:
            _ready.append(_prepared())
        return _ready[0]


@contextlib.contextmanager
def without() -> Iterator[None]:
    """Has this process do without in the body, as where numba does not work: to compare."""
    before, crops = list(_ready), _local.__dict__.pop("crops", None)
    _ready[:] = [False]
    try:
        yield
    finally:
        _ready[:] = before
        if crops is not None:
            _local.crops = crops


def _prepared() -> bool:
    try:
        from dataflows.images.fast import crops
        from dataflows.jpeg import compiled

        compiled.make_ready(crops.run_all, lambda: logger.warning(
            "compiling the decoder of fast_decode=True, which takes some 20 seconds, once on a machine. `python -m "
            "dataflows compile` does so ahead of time"))
    except MemoryError:
        raise
    except Exception as error:  # packages that do not fit each other raise nearly anything
        logger.warning("fast_decode=True takes libjpeg's fast options here, and no decoder of ours: that needs numba, "
                       "which does not work (%s: %s). `pip install --upgrade numba` may mend it",
                       type(error).__name__, error)
        return False
    return True


def own_crops() -> "FastCrops | None":
    """This thread's; None where it does not work here."""
    if not hasattr(_local, "crops"):
        if not make_ready():
            return None
        from dataflows.images.fast import crops

        _local.crops = crops.FastCrops()
    own: FastCrops = _local.crops
    return own
