"""Compiles functions with numba, and keeps the result on the disk where it can. Importing it imports numba.

numba keeps them beside their source, else in a folder of the user's, or where NUMBA_CACHE_DIR says. Where none of these
can be written, or what is there cannot be read, they are compiled anew in each process: slower, and no reason to fail.
"""
import functools
import hashlib
import logging
from pathlib import Path
from typing import Any, Callable, TypeVar, cast

from numba import njit
from numba.core import event

Int = Any  # in kernels: an int, or what numpy has for it, which type checkers do not take for one
Kernel = TypeVar("Kernel", bound=Callable[..., Any])
logger = logging.getLogger(__name__)
_functions: list[Any] = []
_unkept: list[Exception] = []  # why not


def compiled(function: Kernel) -> Kernel:
    """A decorator: numba's form of a function, which runs without the GIL. A division by zero is not looked for.

    For numbers that are written out in a call, np.int64(0) and not 0, numba would compile a form of the function each.
    """
    return _compiled(function)


def inlined(function: Kernel) -> Kernel:
    """The same for a small function of the innermost loops: its code becomes a part of each kernel that calls it."""
    return _compiled(function, forceinline=True)


def _compiled(function: Kernel, **options: Any) -> Kernel:
    try:
        kernel = njit(nogil=True, cache=True, error_model="numpy", **options)(function)
    except (RuntimeError, OSError) as error:  # no folder can be written
        _unkept.append(error)
        kernel = njit(nogil=True, error_model="numpy", **options)(function)
    else:
        if kernel is not function:  # as it is with NUMBA_DISABLE_JIT
            kernel._cache._cache_file._source_stamp = _stamp()
    _functions.append(kernel)
    return cast(Kernel, kernel)


@functools.cache
def _stamp() -> str:
    """What tells the sources of all kernels from others. numba's own looks at the times of the one file with the
    function that is called, and would go on with what is kept of those that it calls."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for folder in ("jpeg", "images/compiled"):
        for path in sorted(package.joinpath(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


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
