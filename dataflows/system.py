"""Calls to the operating system that it may refuse: hints about memory and files, and facts about the machine.

Sandboxes refuse calls that they do not know, FUSE and network file systems those that they do not have, and containers
may hide /proc and /sys. Nothing but speed may depend on these: a hint tells whether it was taken, and a fact is missing
where it is not told. So every hint and every look at such a fact is one of these functions.
"""
import contextlib
import mmap
import os
import shutil
import sys
from typing import Iterator

if sys.platform == "linux":
    import resource


def advise(fd: int, start: int, nbytes: int, plan: str) -> bool:
    """Tells the kernel what is planned with a stretch of an open file; whether it took the hint.

    plan: "RANDOM", "WILLNEED" or "DONTNEED", as posix_fadvise has them. nbytes: 0 means to the end of the file.
    """
    try:
        os.posix_fadvise(fd, start, nbytes, getattr(os, f"POSIX_FADV_{plan}"))
    except (AttributeError, OSError):
        return False
    return True


def advise_map(content: mmap.mmap, plan: str, start: int = 0, nbytes: int | None = None) -> bool:
    """The same for a map, by madvise; `start` is a whole number of pages, and by default all of the map is meant."""
    try:
        content.madvise(getattr(mmap, f"MADV_{plan}"), start, len(content) - start if nbytes is None else nbytes)
    except (AttributeError, OSError, ValueError):  # ValueError: the last page of a file may be beyond its map
        return False
    return True


def told(path: str) -> list[list[str]]:
    """The words of each line of a file in /proc or /sys; none where there is no such file, or it may not be read."""
    try:
        with open(path, errors="surrogateescape") as file:  # paths in it may be any bytes
            return [line.split() for line in file]
    except OSError:
        return []


def allow_open_files(more: int) -> None:
    """Raises this process's soft limit on open files, as far as the hard one allows, if it needs so many more.

    The soft one is 1,024 on most systems for the sake of programs that call select; a user may raise it at will.
    """
    with contextlib.suppress(NameError, OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = len(os.listdir("/proc/self/fd")) + more
        if soft != resource.RLIM_INFINITY and soft < needed:
            most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def allowed_cpus() -> int:
    """How many processors this process may run on; those of the machine where the system does not tell."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError, OverflowError):  # the last one: Python has asked for ever larger sets
        return os.cpu_count() or 1


def running_system() -> str:
    """A name that only processes on this machine have, until it is started again: that of its host where the system
    tells no other.
    """
    words = next(iter(told("/proc/sys/kernel/random/boot_id")), [os.uname().nodename])
    return "".join(c for c in words[0] if c.isalnum())[:32]


def load() -> float:
    """How many processes wanted a processor, over the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def major_faults() -> int:
    """Pages that this thread has waited for so far, also for those that were on their way; 0 where nobody counts."""
    try:
        return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
    except (NameError, OSError, ValueError):  # NameError: it is not Linux
        return 0


def disk_bytes() -> int | None:
    """What this process has read from disks so far, in all of its threads, pages of maps included; None where the
    system does not tell.
    """
    return next(iter(_numbers("/proc/self/io", "read_bytes:")), None)


def memory_bytes() -> int | None:
    """The memory of the machine; None where the system does not tell."""
    try:
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return pages * page_bytes if pages > 0 and page_bytes > 0 else None


def free_bytes(folder: str | os.PathLike[str]) -> int | None:
    """What there is room for on the file system of a folder; None where that does not tell, or says that it has none
    at all, as FUSE says for a file system that was not asked to tell.
    """
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free if usage.total else None


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Has the OSErrors of the body name a file: those of reading and mapping do not by themselves."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = path
        raise


def available_memory() -> int:
    """Bytes that this process and the page cache may take: of the system, and of its control group if that has a limit;
    0 where nobody tells.
    """
    found = [total for total in (memory_bytes(),) if total is not None]
    found += [1024 * value for value in _numbers("/proc/meminfo", "MemAvailable:")]
    for limit, used in (("memory.max", "anon"), ("memory/memory.limit_in_bytes", "total_rss")):
        for allowed in _numbers(f"/sys/fs/cgroup/{limit}"):
            folder = os.path.dirname(f"/sys/fs/cgroup/{limit}")
            found.append(allowed - sum(_numbers(f"{folder}/memory.stat", used)))
    return max(0, min(found, default=0))


def _numbers(path: str, name: str = "") -> list[int]:
    """The number after this name, or alone in its line, in a file that may not be there or say "max"."""
    rests = [words[1:] if name else words for words in told(path) if words and (not name or words[0] == name)]
    return [int(words[0]) for words in rests if words and words[0].isdigit()]
