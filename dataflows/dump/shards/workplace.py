"""The folder of an unfinished dump into shards, `train.shards.partial`, in which the attempts of all tasks do not meet.

    plan/                     see plan.py
    00017.facts               shard 17 is done; see facts.py
    00017.SYSTEM-PID-RANDOM/  an attempt at it: an unfinished dump of one file, with its journal, and a lock that tells
                              whether the attempt goes on
    00017.SYSTEM-PID-RANDOM.count    how many images a task of Ray has done in it

SYSTEM is a name of the machine, until it is started again. What is moved to a final name is complete, and on the disk.
The merge removes the folder.
"""
import contextlib
import fcntl
import glob
import logging
import os
import secrets
import shutil
from typing import Callable, Iterator

from dataflows.storage.flush import flush
from dataflows.system import running_system
from dataflows.terminal import printable

logger = logging.getLogger(__name__)
_LOCK = "lock"
_TRIES = 3


def own_name() -> str:
    """A name that no other attempt has, on whatever machine."""
    return f"{running_system()}-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def left_attempts(work: str, number: int) -> Iterator[list[str]]:
    """Folders of attempts at a shard that ended on this machine, to go on with: nobody else has them in the body.

    An attempt is over where its lock can be had. Those of other machines are left alone: nobody can tell.
    """
    with contextlib.ExitStack() as held:
        yield [folder for folder in sorted(glob.glob(_folder(glob.escape(work), number, f"{running_system()}-*")))
               if _lock(folder, held)]


@contextlib.contextmanager
def new_attempt(work: str, number: int) -> Iterator[str]:
    """A folder of its own for an attempt at a shard. It stays, if it is not empty."""
    name = own_name()
    folder, hidden = _folder(work, number, name), os.path.join(work, f"new.{name}")
    os.mkdir(hidden)
    with contextlib.ExitStack() as held, open(os.path.join(hidden, _LOCK), "wb"):
        _lock(hidden, held)
        os.rename(hidden, folder)  # only now others see it
        try:
            yield folder
        finally:
            if os.path.isdir(folder) and os.listdir(folder) == [_LOCK]:
                remove(folder)


def _folder(work: str, number: int, name: str) -> str:
    return os.path.join(work, f"{number:05d}.{name}", "")


def _lock(folder: str, held: contextlib.ExitStack) -> bool:
    """Whether the lock of an attempt could be had, as it cannot where the file system has none."""
    try:
        file = held.enter_context(open(os.path.join(folder, _LOCK), "rb+"))
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def put(path: str, write: Callable[[str], object]) -> None:
    """Has `write` make a file under a name of its own, and gives it its name when it is on the disk."""
    temporary = f"{path}.{own_name()}"
    try:
        write(temporary)
        flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    flush(os.path.dirname(path) or ".")


def plan_folder(work: str) -> str:
    """Where the plan is."""
    return os.path.join(work, "plan")


def clear(work: str) -> None:
    """Removes all that is unfinished. The plan goes at once, so that nobody finds half of one."""
    with contextlib.suppress(OSError):
        os.rename(plan_folder(work), f"{plan_folder(work)}.{own_name()}")
    remove(work)


def remove(folder: str) -> None:
    """Removes a folder with all that is in it; a warning says so where that fails."""
    for _ in range(_TRIES):  # an attempt that nobody needs may still write there
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
    logger.warning("%s is done with, and cannot be removed. Remove it", printable(folder))
