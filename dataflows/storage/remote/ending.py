"""The end of a program that has used obstore.

Threads of its runtime hand on what came, and take Python's lock for that. One that waits for it when the interpreter
ends is ended by CPython with pthread_exit, which cannot pass the frames of Rust, and aborts the process: exit code 134
or 139 for a program that had done all it had to. So the program waits until none of them is under way.
"""
import contextlib
import glob
import time

_NAME = "tokio"
_EVERY_SECONDS = 0.02
_MOST_SECONDS = 2.0


def let_threads_return() -> None:
    """Returns when the threads of that runtime have all slept for a moment, at once if there are none.

    No request may be under way. Where the system does not show threads, a tenth of a second has to do.
    """
    before, deadline = _threads(), time.monotonic() + _MOST_SECONDS
    if before is None:
        time.sleep(5 * _EVERY_SECONDS)
    while before and time.monotonic() < deadline:
        time.sleep(_EVERY_SECONDS)  # without Python's lock: who waits for it wakes up every 5 ms, and then has it
        now = _threads()
        if now == before and all(state == "S" for state, _ in before.values()):
            return
        before = now


def _threads() -> dict[str, tuple[str, int]] | None:
    """{number: (state, how often it has stopped running)} of the runtime's threads; None where that is not shown."""
    found: dict[str, tuple[str, int]] = {}
    paths = glob.glob("/proc/self/task/*/status")
    for path in paths:
        with contextlib.suppress(OSError, ValueError, KeyError), open(path, encoding="utf-8", errors="replace") as file:
            told = dict(line.split(":", 1) for line in file if ":" in line)
            if told["Name"].strip().startswith(_NAME):
                switches = sum(int(told[f"{kind}_ctxt_switches"]) for kind in ("voluntary", "nonvoluntary"))
                found[path] = told["State"].strip()[0], switches
    return found if paths else None
