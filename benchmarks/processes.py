"""Reads what a tree of processes costs from Linux's /proc: processor time, and memory of its own.

Memory means anonymous and shared pages, RssAnon + RssShmem; the anonymous ones, which may leak, are also given alone.
Pages of mapped files, an LMDB's among them, are page cache: they are not the process's own and go away when memory is
short. Elsewhere than on Linux the figures are None.
"""
import os

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_CALLS_PER_SEARCH = 10  # for new processes


def available() -> bool:
    """Whether this system has what the figures come from."""
    return os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def tree(root: int) -> list[int]:
    """Process ids of `root` and all of its living descendants."""
    pids = [root]
    for pid in pids:  # grows on the way
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            pids += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return pids


def cpu_seconds(root: int) -> float | None:
    """User and system time that `root` and its descendants, living and reaped, have used so far."""
    if not available():
        return None
    ticks = 0
    for pid in tree(root):
        after_name = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        ticks += sum(map(int, after_name[11:15]))  # utime, stime, cutime, cstime
    return ticks / _TICKS


def anonymous_bytes(root: int) -> int | None:
    """Anonymous memory of `root` and its descendants now: RssAnon, where forked processes count a shared page each."""
    if not available():
        return None
    return sum(_kilobytes(f"/proc/{pid}/status", b"RssAnon:") for pid in tree(root)) * 1024


class PeakMemory:
    """The most memory that a tree of processes had at any call of `sample`, in bytes.

    Resident sizes are cheap to read, and count a page once for every forked process that shares it. The true share of
    their sum (Pss) costs the kernel a walk through all page tables, so it is taken only when the sum has grown by a
    tenth since the last walk. A lone process needs no walk.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._pids: list[int] = []
        self._calls = 0
        self._walked = 0  # resident kilobytes at the last walk
        self._share = 1.0
        self.bytes = 0 if available() else None

    def sample(self) -> None:
        """Looks once: 0.05 ms a process, and 0.5 ms where it also looks for new processes, at every tenth call."""
        if self.bytes is None:
            return
        if self._calls % _CALLS_PER_SEARCH == 0:
            self._pids = tree(self._root)
        self._calls += 1
        resident = sum(_kilobytes(f"/proc/{pid}/status", b"RssAnon:", b"RssShmem:") for pid in self._pids)
        if len(self._pids) > 1 and resident > 1.1 * self._walked:
            self._walked = resident
            shares = sum(_kilobytes(f"/proc/{pid}/smaps_rollup", b"Pss_Anon:", b"Pss_Shmem:") for pid in self._pids)
            self._share = shares / resident if shares else 1.0  # old kernels have no such lines
        self.bytes = max(self.bytes, round(resident * self._share * 1024))


def _kilobytes(path: str, *names: bytes) -> int:
    return sum(int(line.split()[1]) for line in _read(path).splitlines() if line.startswith(names))


def _read(path: str) -> bytes:
    """The file's content, or nothing when the process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
