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
from typing import IO, Callable, Iterator

from dataflows.dump.recovery.journal import journal_path
from dataflows.storage.flush import flush
from dataflows.system import running_system
from dataflows.terminal import printable

logger = logging.getLogger(__name__)
_LOCK, _JOURNAL = "lock", journal_path("")
_TRIES = 3


def own_name() -> str:
    """A name that no other attempt has, on whatever machine."""
    return f"{running_system()}-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def left_attempts(work: str, number: int) -> Iterator[list[str]]:
    """Folders of attempts at a shard that ended on this machine, to go on with: nobody else has them in the body.

    An attempt is over where its lock can be had. Those of other machines are left alone: nobody can tell.
    """
    found = glob.glob(_folder(glob.escape(work), number, f"{running_system()}-*"))
    with contextlib.ExitStack() as held:
        yield [folder for folder in sorted(found) if _take(folder, held)]


@contextlib.contextmanager
def new_attempt(work: str, number: int) -> Iterator[str]:
    """A folder of its own for an attempt at a shard."""
    name = own_name()
    folder, hidden = _folder(work, number, name), os.path.join(work, f"new.{name}")
    os.mkdir(hidden)
    file = open(os.path.join(hidden, _LOCK), "wb")
    try:
        _lock(file)
        os.rename(hidden, folder)  # only now others see it
        yield folder
    finally:
        _let_go(folder, file)


def _folder(work: str, number: int, name: str) -> str:
    return os.path.join(work, f"{number:05d}.{name}")


def _take(folder: str, held: contextlib.ExitStack) -> bool:
    """Whether the folder of an attempt could be had, until the end of `held`."""
    try:
        file = open(os.path.join(folder, _LOCK), "rb+")
    except OSError:
        return False
    if not _lock(file):
        file.close()
        return False
    held.callback(_let_go, folder, file)
    return True


def _lock(file: IO[bytes]) -> bool:
    """Whether a lock could be had, as it cannot where the file system has none."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _let_go(folder: str, file: IO[bytes]) -> None:
    """Ends an attempt, and removes its folder where there is nothing to go on with: no journal.

    It is out of sight before its lock is let go, and is removed after that: network file systems keep what is open.
    """
    aside = os.path.join(os.path.dirname(folder), f"old.{own_name()}")
    with contextlib.suppress(OSError):
        if not any(name.endswith(_JOURNAL) for name in os.listdir(folder)):
            os.rename(folder, aside)
    file.close()
    if os.path.isdir(aside):
        remove(aside)


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
