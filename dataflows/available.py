"""How much memory there is to take."""
import os

from dataflows.system import memory_bytes, told


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
