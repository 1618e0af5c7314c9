"""Ray itself: as the program has it, the cluster of RAY_ADDRESS, or one on this machine that ends with the dump."""
import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from typing import Any, Iterator

from dataflows.processors import default_workers

_PATIENCE_S = 20
_STORE_BYTES = 80 * 2**20  # Ray's memory for results, of which there are none to speak of


def refuse_without_ray() -> None:
    """Raises ValueError, with the remedy, where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("engine='ray' needs Ray, which is not installed here. Install it: pip install "
                         "'imagenet-lmdb[ray]'; or dump in parts with part='I/N'")


@contextlib.contextmanager
def running(num_workers: int) -> Iterator[Any]:
    """Ray as the program has it; else as RAY_ADDRESS says; else one of our own, which ends with the body."""
    address = os.environ.get("RAY_ADDRESS")
    with contextlib.ExitStack() as stack:
        if address:
            _refuse_unreachable(address)
        else:
            stack.enter_context(_environment())  # which Ray reads when it is imported
        import ray

        if not ray.is_initialized():
            stack.enter_context(_own_signals())
            folder = tempfile.mkdtemp(prefix="ray-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(ray.shutdown)
            ours = {"num_cpus": max(default_workers(), num_workers), "include_dashboard": False, "_temp_dir": folder,
                    "object_store_memory": _STORE_BYTES}
            try:
                ray.init(address or "local", log_to_driver=False, configure_logging=False, **({} if address else ours))
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                where = f"be reached at RAY_ADDRESS={address}" if address else "be started on this machine"
                raise OSError(f"Ray cannot {where}: {str(error).strip().splitlines()[0]}") from error
        yield ray


def _refuse_unreachable(address: str) -> None:
    """Raises OSError where nobody listens: Ray would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d{1,5})", address)
    try:
        if found is not None:
            socket.create_connection((found[1], int(found[2])), _PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise OSError(f"Ray cannot be reached at RAY_ADDRESS={address}: {error}. Correct it, or unset it to use a Ray "
                      f"on this machine") from error


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What a Ray of our own reads: it tells nobody of its use, and asks for a token that is written nowhere.

    Where Ray was imported before, it has made up its mind about tokens.
    """
    ours = {"RAY_USAGE_STATS_ENABLED": "0"}
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    new = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back how this program ends on SIGTERM, which Ray changes."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
