"""Runs one contestant in a fresh interpreter, an epoch whenever the parent asks for one: the child's side.

The child leads a process group of its own, so that its parent can stop, continue and kill it with everything that it
started, and so that Ctrl-C reaches the parent alone. It never outlives its parent: the parent's death closes the
lifeline. A thread waits for that, removes the child's folder, which its parent can no longer do, and kills the group.
As the group may be stopped at that moment, Linux is asked to continue the child when its parent dies.

Messages to the parent are dicts: {"open_s"} when ready, the figures of an epoch, {"closed": True}, or {"error"}. The
parent sends the number of an epoch, or None for the end.
"""
import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.contestants import SIZE, Contestant, Job

LOG = "log"  # in the child's folder
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(contestant: Contestant, job: Job, commands: Connection, lifeline: Connection, folder: str) -> None:
    """Runs epochs of one contestant until the parent sends None. `folder` is for its output and temporary files."""
    os.setpgid(0, 0)
    _end_with_parent(lifeline, folder)
    _redirect_output(os.path.join(folder, LOG))
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    # A spawned process would spawn its own workers too; users get their system's default, which comes first.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    try:
        started = time.perf_counter()
        with contestant.open(job) as epoch:
            commands.send({"open_s": time.perf_counter() - started})
            while (number := commands.recv()) is not None:
                commands.send(epoch(number) if contestant.own_figures
                              else run_epoch(epoch, number, job, "float32" if contestant.recipe else "uint8"))
        commands.send({"closed": True})
    except Exception:
        commands.send({"error": traceback.format_exc()})


def run_epoch(epoch: Any, number: int, job: Job, dtype: str) -> dict[str, Any]:
    """Consumes one epoch and returns its figures. Raises ValueError when it is not what the job asks for, with images
    of this dtype."""
    images, first_batch_s = 0, None
    main_thread = time.thread_time()
    started = time.perf_counter()
    for batch, labels in epoch(number):
        if first_batch_s is None:
            first_batch_s = time.perf_counter() - started
        _check(batch, labels, job, dtype)
        images += len(labels)
    seconds = time.perf_counter() - started
    if images != job.images:
        raise ValueError(f"an epoch yielded {images:,} images, and {job.images:,} are expected")
    return {"seconds": seconds, "images": images, "images_per_s": images / seconds, "first_batch_s": first_batch_s,
            "main_thread_us_per_image": (time.thread_time() - main_thread) / images * 1e6}


def _check(images: Any, labels: Any, job: Job, dtype: str) -> None:
    found = (str(images.dtype), *images.shape, str(labels.dtype), *labels.shape)
    count = len(labels)
    if found != (f"torch.{dtype}", count, 3, SIZE, SIZE, "torch.int64", count) or not 0 < count <= job.batch_size:
        raise ValueError(f"a batch is {found[:5]} with labels {found[5:]}; expected is {dtype} (B, 3, {SIZE}, {SIZE}) "
                         f"with int64 (B,), B from 1 to {job.batch_size}")


def _end_with_parent(lifeline: Connection, folder: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the kernel sends it to a stopped group without a parent

    def wait() -> None:
        lifeline.poll(None)  # nothing is ever sent: it returns when the parent's end is closed
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _redirect_output(log: str) -> None:
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(target, stream.fileno())
    os.close(target)
