"""The folder of an unfinished dump into shards, `train.shards.partial`, in which the attempts of all tasks do not meet.

    plan/                     see plan.py
    00017.facts               shard 17 is done; see facts.py
    00017.SYSTEM-PID-RANDOM/  an attempt at it: an unfinished dump of one file, with its journal
    00017.SYSTEM-PID-RANDOM.count    how many images a task of Ray has done in it

SYSTEM is a name of the machine, until it is started again. What is moved to a final name is complete, and on the disk.
The merge removes the folder.
"""
import contextlib
import glob
import logging
import os
import secrets
import shutil
from typing import Callable

from dataflows.dump.recovery.journal import is_abandoned
from dataflows.storage.flush import flush
from dataflows.system import running_system
from dataflows.terminal import printable

logger = logging.getLogger(__name__)


def own_name() -> str:
    """A name that no other attempt has, on whatever machine."""
    return f"{running_system()}-{os.getpid()}-{secrets.token_hex(4)}"


def left_attempts(work: str, number: int, name: str) -> list[str]:
    """Folders of attempts at a shard, whose LMDB is called `name`, that ended on this machine, to go on with.

    An attempt is over where its journal can be locked. Those of other machines are left alone: nobody can tell.
    """
    found = sorted(glob.glob(os.path.join(glob.escape(work), f"{number:05d}.{running_system()}-*", "")))
    return [folder for folder in found if is_abandoned(os.path.join(folder, name))]


def new_attempt(work: str, number: int) -> str:
    """A folder of its own for an attempt at a shard."""
    folder = os.path.join(work, f"{number:05d}.{own_name()}")
    os.mkdir(folder)
    return folder


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


def remove(folder: str) -> None:
    """Removes a folder with all that is in it; a warning says so where that fails."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("%s is done with, and cannot be removed: %s. Remove it", printable(folder),
                       printable(str(error)))
