"""Start methods and the exit of the interpreter, tried on training scripts."""

import pytest

from helpers.training_script import GUARD, script

TIMEOUT_SECONDS = 100
IDENTITY = """
for cls in (LMDBLoader, LMDBIterLoader):
    pairs = zip(make(cls=cls, num_workers={n}), make(cls=cls, worker_type="thread"), strict=True)
    say(all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs))
"""
FAILURES = """
try:
    list(make(fail, num_workers=1))
except ZeroDivisionError as error:
    say(error, *getattr(error, "__notes__", [{path!r}]))
batches = iter(make(num_workers=1, repeats=20))
next(batches)
[worker] = multiprocessing.active_children()
os.kill(worker.pid, signal.SIGKILL)
try:
    list(batches)
except WorkerDied as error:
    say(error)
try:
    list(make(lambda pixels: pixels))
except TypeError as error:
    say(error)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_other_start_methods_give_the_same_batches_and_failures(path, tmp_path, method):
    code = IDENTITY.format(n=2 if method == "forkserver" else 1) + FAILURES.format(path=str(path))
    with script(tmp_path, path, code, method=method) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, err) == (0, "")
    first, second, failure, death, refusal = out.splitlines()
    assert first == second == "True"
    assert failure.startswith("no ") and str(path) in failure
    assert "killed by SIGKILL" in death
    for words in ("worker_type='process'", repr(method), "lambda", "top of a module", "threads"):
        assert words in refusal


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_without_the_guard_it_fails_and_does_not_hang(path, tmp_path, method):
    unguarded = GUARD.replace('if __name__ == "__main__":', "if True:").replace("method!r}", "method!r}, force=True")
    with script(tmp_path, path, "say(len(list(make(num_workers=1))))", method=method, guard=unguarded) as process:
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 1
    assert "WorkerDied" in err and "if __name__ == '__main__'" in err


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_do_not_outlive_a_killed_parent(path, tmp_path, method):
    """`script` asserts that nothing is left. The random faults above fork, and kill parents, too."""
    code = "batches = iter(make(slow, repeats=20, num_workers=1)); next(batches); say('go'); time.sleep(600)"
    with script(tmp_path, path, code, method=method) as process:
        assert process.stdout.readline() == "go\n"
        process.kill()
        process.wait()


EXITS = {
    "the end of the script": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "a stopped worker": ("os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)", 0, ""),
    "os._exit": ("os._exit(4)", 4, ""),
    "a thread that goes on": ("threading.Thread(target=list, args=(batches,), daemon=True).start(); time.sleep(0.3)", 0,
                              ""),
    "somebody who keeps the main module": ("""
import types
sys.modules["keeper"] = types.ModuleType("keeper")
sys.modules["keeper"].main = sys.modules["__main__"]""", 0, ""),
    "a process of multiprocessing": ("""
def child():
    global more
    more = iter(make(slow, repeats=20))
    next(more)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)
process = multiprocessing.Process(target=child)
process.start()
process.join()
sys.exit(process.exitcode)""", 0, ""),
}
FORKS = """
for number, code in enumerate({codes}):
    pid = os.fork()
    if pid == 0:  # an interpreter that exits in its own way, without the seconds that a new one takes to import torch
        os.dup2(os.open(f"{{sys.argv[0]}}.{{number}}", os.O_WRONLY | os.O_CREAT), 2)
        globals()["batches"] = iter(make(slow, repeats=20))
        next(batches)
        exec(code, globals())
        return
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture(scope="module")
def exits(jpeg_lmdb, tmp_path_factory):
    """Exit code and stderr of each of EXITS, in mid-epoch. `script` asserts that nothing is left."""
    folder = tmp_path_factory.mktemp("exits")
    code = FORKS.format(codes=[code for code, _, _ in EXITS.values()])
    with script(folder, jpeg_lmdb / "train.lmdb", code) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        assert (process.returncode, err) == (0, "")
        errors = [folder / f"train.py.{number}" for number in range(len(EXITS))]
        results = dict(zip(EXITS, zip(map(int, out.split()), [error.read_text() for error in errors])))
        for error in errors:
            error.unlink()
    return results


@pytest.mark.parametrize("name", EXITS)
def test_the_interpreter_may_exit_in_mid_epoch(exits, name):
    (_, status, last), (code, err) = EXITS[name], exits[name]
    assert code == status, err
    assert (err.splitlines() or [""])[-1] == last
    assert err.count("Traceback") == bool(last)


def test_what_a_transform_prints_is_not_lost(path, tmp_path):
    code = "list(make(lambda pixels: print('seen') or pixels, num_workers=1))"
    with script(tmp_path, path, code) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (out, err) == ("seen\n" * 23, "")
