"""Compiles functions with numba, and keeps the result on the disk where it can. Importing it imports numba.

numba keeps them beside their source, else in a folder of the user's, or where NUMBA_CACHE_DIR says. Where none of these
can be written, or what is there cannot be read, they are compiled anew in each process: slower, and no reason to fail.
"""
import logging
from typing import Any, Callable, TypeVar, cast

from numba import njit
from numba.core import event

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
logger = logging.getLogger(__name__)
_functions: list[Any] = []
_unkept: list[Exception] = []  # why not


def compiled(function: Kernel) -> Kernel:
    """A decorator: numba's form of a function, which runs without the GIL. A division by zero is not looked for."""
    return _compiled(function)


def compiled_short(function: Kernel) -> Kernel:
    """The same for what takes some microseconds: it keeps the GIL, which may take longer to get back than that."""
    return _compiled(function, nogil=False)


def inlined(function: Kernel) -> Kernel:
    """The same for a small function of the innermost loops: its code becomes a part of each kernel that calls it.

    It must be in the file of these kernels: numba compiles anew what is kept when the kernel's own file has changed.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Kernel, *, nogil: bool = True, **options: Any) -> Kernel:
    try:
        kernel = njit(nogil=nogil, cache=True, error_model="numpy", **options)(function)
    except (RuntimeError, OSError) as error:  # no folder can be written
        _unkept.append(error)
        kernel = njit(nogil=nogil, error_model="numpy", **options)(function)
    _functions.append(kernel)
    return cast(Kernel, kernel)


def make_ready(run: Callable[[], object], compiling: Callable[[], object]) -> None:
    """Calls `run`, which must call every compiled function; before the first compilation, if any, calls `compiling`.

    Whatever is wrong with what is kept on the disk, `run` is called again without it; a warning says so.
    """
    with event.install_listener("numba:compile", _Once(compiling)):
        try:
            run()
        except MemoryError:
            raise
        except Exception as error:  # of files that others may write, pickles among them
            for function in _functions:
                function._cache.disable()
            run()
            _unkept.append(error)
    if _unkept:
        logger.warning("compiled code cannot be kept on the disk (%s: %s), so each process compiles it anew, which "
                       "takes seconds. NUMBA_CACHE_DIR may name a folder for it", type(_unkept[0]).__name__, _unkept[0])
        _unkept.clear()


class _Once(event.Listener):
    """Calls a function at the first event that starts."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._waiting = [function]

    def on_start(self, event: Any) -> None:
        if self._waiting:
            self._waiting.pop()()

    def on_end(self, event: Any) -> None:
        pass
