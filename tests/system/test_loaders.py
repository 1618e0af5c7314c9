"""LMDBLoader and LMDBIterLoader as a training loop meets them: epochs, early ends, closing, forks, exits."""
import collections
import gc
import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store
from helpers.dataflow_contract import threads
from helpers.paths import ROOT
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

TIMEOUT_SECONDS = 60
LOADERS = [LMDBLoader, LMDBIterLoader]


@pytest.fixture(params=LOADERS, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def path(jpeg_lmdb):
    return jpeg_lmdb / "train.lmdb"


def samples(batches):
    """Each sample of batches of whole images as (label, pixels)."""
    return [(label, image.numpy().tobytes()) for images, labels in batches
            for image, label in zip(images, labels.tolist())]


def labels_of(batches):
    return [label for _, labels in batches for label in labels.tolist()]


def images_of(batches):
    return [images.clone() for images, _ in batches]


def equal(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


# --- epochs


@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
@pytest.mark.parametrize("options", [{}, {"num_workers": 0}, {"num_workers": 8, "prefetch": 5}, {"batch_size": 1},
                                     {"batch_size": 100}], ids=str)
def test_every_sample_comes_once_an_epoch(cls, options, image_format, request):
    path = request.getfixturevalue(f"{image_format}_lmdb") / "train.lmdb"
    reader = RecordReader(Store(path))
    records = [reader.pixels(number) for number in range(23)]
    expected = collections.Counter((label, pixels.transpose(2, 0, 1).tobytes()) for pixels, label in records)
    assert len(expected) == 23
    loader = cls(path, **{"batch_size": 4, "num_workers": 2} | options)
    for _ in range(3):
        assert collections.Counter(samples(loader)) == expected


def test_with_drop_last_what_comes_comes_once(cls, path):
    loader = cls(path, 5, drop_last=True)
    assert len(loader) == 4
    seen = samples(loader)
    assert len(seen) == len(set(seen)) == 20


@pytest.mark.parametrize("loader", [lambda path: LMDBLoader(path, 5, shuffle=False),
                                    lambda path: LMDBIterLoader(path, 5, shuffle_buffer=0)])
def test_without_shuffling_the_order_is_that_of_the_file(loader, path):
    loader = loader(path)
    for _ in range(2):
        assert samples(loader) == [(label, image.numpy().tobytes()) for image, label in LMDBDataset(path)]


def test_a_shuffled_epoch_is_a_function_of_seed_and_epoch(cls, path):
    one, other = (cls(path, 4, transform=RandomResizedCrop(16), seed=3) for _ in range(2))
    epochs = [images_of(one) for _ in range(3)]
    assert equal(epochs[0], images_of(other))
    other.set_epoch(2)
    assert equal(epochs[2], images_of(other))
    one.set_epoch(0)
    assert equal(epochs[0], images_of(one))
    assert not equal(epochs[0], epochs[1]) and not equal(epochs[1], epochs[2])
    assert not equal(epochs[0], images_of(cls(path, 4, transform=RandomResizedCrop(16), seed=4)))


def test_each_iteration_is_the_next_epoch(cls, path):
    ours, reference = (cls(path, 4) for _ in range(2))
    for epoch in range(3):
        reference.set_epoch(epoch)
        assert samples(ours) == samples(reference)


def test_an_epoch_left_early_counts(cls, path):
    ours, reference = (cls(path, 4) for _ in range(2))
    for _ in ours:
        break
    reference.set_epoch(1)
    assert samples(ours) == samples(reference)


def test_set_epoch_in_mid_epoch_is_for_the_next(cls, path):
    ours, reference = (cls(path, 4) for _ in range(2))
    running = iter(ours)
    head = [next(running)]
    ours.set_epoch(7)
    assert samples(head + list(running)) == samples(reference)
    reference.set_epoch(7)
    assert samples(ours) == samples(reference)


def test_the_shuffles_are_not_sequential(cls, path):
    labels = labels_of(LMDBLoader(path, 4, shuffle=False))
    assert all(labels_of(cls(path, 4, seed=seed)) != labels for seed in range(3))


def test_a_small_shuffle_buffer_shuffles_locally(path):
    order = {sample: number for number, sample in enumerate(samples(LMDBIterLoader(path, 4, shuffle_buffer=0)))}
    places = [order[sample] for sample in samples(LMDBIterLoader(path, 4, shuffle_buffer=3))]
    assert sorted(places) == list(range(23)) and places != list(range(23))
    assert all(number - place <= 3 for place, number in enumerate(places))


@pytest.mark.parametrize("transform", [RandomResizedCrop(16), RandomResizedCrop(16, antialias=False),
                                       CenterCrop(16, 20)], ids=["random", "aliased", "center"])
def test_batches_are_the_same_with_any_number_of_workers_and_any_prefetch(cls, path, transform):
    expected = images_of(cls(path, 6, transform=transform, num_workers=0))
    for options in ({"num_workers": 1}, {"num_workers": 2, "prefetch": 1}, {"num_workers": 8, "prefetch": 9}):
        assert equal(images_of(cls(path, 6, transform=transform, **options)), expected)


def test_crops_do_not_depend_on_the_batch_size(cls, path):
    one, other = (torch.cat(images_of(cls(path, size, transform=RandomResizedCrop(16)))) for size in (3, 10))
    assert torch.equal(one, other)


# --- several at once, and leaving early


def test_two_iterations_of_one_loader_do_not_disturb_each_other(cls, path):
    ours, reference = (cls(path, 4) for _ in range(2))
    expected = [samples(reference), samples(reference)]
    pairs = list(zip(ours, ours, strict=True))
    assert [samples(a for a, _ in pairs), samples(b for _, b in pairs)] == expected  # two epochs
    assert not threads()


def test_two_loaders_and_a_dataset_on_one_file(path):
    one, other, dataset = LMDBLoader(path, 4), LMDBIterLoader(path, 4), LMDBDataset(path)
    expected = sorted((label, image.numpy().tobytes()) for image, label in dataset)
    pairs = []
    for pair in zip(one, other, strict=True):
        dataset[len(pairs)]
        pairs.append(pair)
    assert sorted(samples(a for a, _ in pairs)) == sorted(samples(b for _, b in pairs)) == expected
    one.close()
    assert len(samples(other)) == 23 and dataset[22]


def test_an_early_break_leaves_no_thread(cls, path):
    loader = cls(path, 2, transform=RandomResizedCrop(16), num_workers=3)
    for taken in range(1, 5):
        for number, _ in enumerate(loader, 1):
            assert threads()
            if number == taken:
                break
        assert not threads()
    assert len(list(loader)) == 12


def test_an_exception_in_the_loop_leaves_no_thread(cls, path):
    loader = cls(path, 2)
    with pytest.raises(KeyError):
        for _ in loader:
            raise KeyError
    gc.collect()
    assert not threads()
    assert len(list(loader)) == 12


def test_a_loader_that_is_dropped_in_mid_iteration_leaves_no_thread(cls, path):
    batches = iter(cls(path, 2, num_workers=3))
    next(batches)
    assert threads()
    del batches
    assert not threads()


def test_an_iterator_outlives_the_name_of_its_loader(cls, path):
    batches = iter(cls(path, 2, num_workers=3))
    gc.collect()
    assert len(list(batches)) == 12


def test_a_failure_while_a_batch_is_converted_leaves_no_thread(cls, path):
    loader = cls(path, 2, transform=lambda pixels: pixels[:8, :8] / 255, normalize=((0.5,) * 3, (0.5,) * 3))
    with pytest.raises(ValueError, match="normalize") as caught:
        next(iter(loader))
    assert caught.tb is not None  # a debugger or a notebook keeps the traceback, and with it each frame of the chain
    assert not threads()


# --- a callable that fails


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_a_transform_raises_arrives_with_file_and_key(cls, path, num_workers):
    def transform(pixels):
        raise LookupError("no such thing")

    loader = cls(path, 4, transform=transform, num_workers=num_workers)
    for _ in range(2):
        with pytest.raises(LookupError, match="no such thing") as caught:
            next(iter(loader))
        if hasattr(caught.value, "add_note"):  # Python 3.11 and later
            assert any(str(path) in note and "key 000000" in note for note in caught.value.__notes__)
        assert not threads()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_transform_that_raises_stop_iteration_does_not_end_the_epoch(cls, path, num_workers):
    calls = iter(range(6))

    def transform(pixels):
        return pixels[:next(calls) + 1]  # raises StopIteration at the seventh sample

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(cls(path, 2, transform=transform, num_workers=num_workers and 1))


def test_a_batch_before_the_failure_is_not_lost(path):
    calls = iter(range(100))

    def transform(pixels):
        if next(calls) == 5:
            raise LookupError
        return pixels

    batches = iter(LMDBLoader(path, 2, transform=transform, num_workers=1))
    assert len(next(batches)[1]) == len(next(batches)[1]) == 2
    with pytest.raises(LookupError):
        next(batches)


# --- closing


def test_closing_ends_iterations_and_refuses_new_ones(cls, path):
    loader = cls(path, 2, num_workers=2)
    started, not_started = iter(loader), iter(loader)
    next(started)
    loader.close()
    assert not threads()
    for batches in (started, not_started):
        with pytest.raises(StopIteration):
            next(batches)
    with pytest.raises(RuntimeError, match="the loader is closed; make a new one"):
        iter(loader)
    loader.close()
    assert len(loader) == 12


def test_closing_in_the_loop_ends_the_loop(cls, path):
    loader = cls(path, 2, num_workers=2)
    seen = []
    for images, _ in loader:
        loader.close()
        assert not threads()
        seen.append(len(images))
    assert seen == [2]


def test_closing_from_another_thread_ends_the_loop(cls, path):
    waiting, closed, gate, failures = threading.Event(), threading.Event(), threading.Event(), []

    def slow(pixels):
        waiting.set()
        assert gate.wait(TIMEOUT_SECONDS)
        return pixels

    def close():
        assert waiting.wait(TIMEOUT_SECONDS)
        try:
            loader.close()
        except Exception as error:
            failures.append(error)
        closed.set()

    def open_gate():
        assert waiting.wait(TIMEOUT_SECONDS)
        closed.wait(0.5)  # close() may wait for the call that runs, or not
        gate.set()

    loader = cls(path, 1, transform=slow, num_workers=1, prefetch=1)
    helpers = [threading.Thread(target=target) for target in (close, open_gate)]
    for helper in helpers:
        helper.start()
    count = sum(1 for _ in loader)
    for helper in helpers:
        helper.join()
    assert failures == [] and count < 23
    assert not threads()


def test_a_loader_is_a_context_manager(cls, path):
    with cls(path, 2, num_workers=2) as loader:
        batches = iter(loader)
        next(batches)
        assert threads()
    assert not threads()
    with pytest.raises(RuntimeError, match="closed"):
        iter(loader)


def test_batches_outlive_their_closed_loader(cls, uint8_lmdb):
    with cls(uint8_lmdb / "train.lmdb", 4) as loader:
        held = [(images, [image.clone() for image in images]) for images, _ in loader]
    del loader
    gc.collect()
    assert all(torch.equal(image, copy) for images, copies in held for image, copy in zip(images, copies))


# --- the file


def test_a_missing_file_is_refused(cls, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no LMDB file {tmp_path / 'none.lmdb'}.*dump_imagenet.py"):
        cls(tmp_path / "none.lmdb", 4)


def test_a_file_that_is_no_lmdb_is_refused(cls, tmp_path):
    (tmp_path / "no.lmdb").write_bytes(b"hello" * 5000)
    with pytest.raises(ValueError, match=f"{tmp_path / 'no.lmdb'} cannot be read as an LMDB file"):
        cls(tmp_path / "no.lmdb", 4)


@pytest.mark.parametrize("form", [str, os.fsdecode, pathlib.Path])
def test_a_path_is_a_string_or_a_path(cls, path, form):
    assert len(cls(form(path), 4)) == 6


# --- processes


def in_child(function):
    """The exit code of `function` in a forked child: 0 if it returns true."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if function() else 1)
        finally:
            os._exit(2)
    timer = threading.Timer(TIMEOUT_SECONDS, os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        timer.cancel()


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_loader_works_in_a_forked_child(cls, path, used_before, antialias):
    loader = cls(path, 4, transform=RandomResizedCrop(16, antialias=antialias), num_workers=2)
    expected = images_of(cls(path, 4, transform=RandomResizedCrop(16, antialias=antialias)))
    if used_before:
        list(loader)
        loader.set_epoch(0)
    assert in_child(lambda: equal(images_of(loader), expected)) == 0
    assert equal(images_of(loader), expected)


def test_a_fork_in_mid_iteration_harms_neither_side(cls, path):
    loader = cls(path, 2, transform=RandomResizedCrop(16), num_workers=2)
    expected = images_of(cls(path, 2, transform=RandomResizedCrop(16)))
    batches = iter(loader)
    head = images_of([next(batches)])

    def child():
        loader.set_epoch(0)
        return equal(images_of(loader), expected)

    assert in_child(child) == 0
    assert equal(head + images_of(batches), expected)


RUN = """
import sys
from {module} import {cls}
from dataflows import RandomResizedCrop
from dataflows.images.compiled import ready
loader = {cls}(sys.argv[1], 2, transform=RandomResizedCrop(16), num_workers=2)
batches = iter(loader)
next(batches)
ready.make_ready()  # whose thread ends by itself, and an interrupt before that has another exit code
"""


def run(cls, path, code, **options):
    code = RUN.format(module=cls.__module__, cls=cls.__name__) + code
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code, path], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("code", ["", "import gc; gc.disable(); cycle = [batches]; cycle.append(cycle); del batches"])
def test_an_interpreter_may_exit_in_mid_iteration(path, code):
    with run(LMDBLoader, path, code) as process:
        assert process.communicate(timeout=TIMEOUT_SECONDS) == ("", "")
    assert process.returncode == 0


def test_an_interrupt_ends_the_loop_and_leaves_no_thread(cls, path):
    code = """
import threading
loader.close()
started, never = threading.Event(), threading.Event()
def stuck(pixels):
    if started.is_set():
        never.wait(0.2)
    return pixels
try:
    for images, labels in {cls}(sys.argv[1], 1, transform=stuck, num_workers=2):
        if not started.is_set():
            started.set()
            print("started", flush=True)
except KeyboardInterrupt:
    print("interrupted", end=" ")
print([t.name for t in threading.enumerate() if t.name.startswith("dataflows")], flush=True)
""".replace("{cls}", cls.__name__)
    with run(cls, path, code) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=TIMEOUT_SECONDS) == ("interrupted []\n", "")
    assert process.returncode == 0


def test_an_interrupt_that_nobody_catches_ends_the_process(path):
    code = """
print("started", flush=True)
while True:
    for batch in loader:
        pass
"""
    with run(LMDBLoader, path, code) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode in (-signal.SIGINT, 130)
    assert err.splitlines()[-1] == "KeyboardInterrupt" and err.count("Traceback") == 1


def test_decoding_threads_do_not_multiply(uint8_lmdb):
    """Each of num_workers threads decodes by itself: torch's and OpenCV's pools would make num_workers squared."""
    def threads_of_process():
        return len(os.listdir("/proc/self/task"))

    if not os.path.isdir("/proc/self/task"):
        pytest.skip("counts threads as Linux does")
    list(LMDBLoader(uint8_lmdb / "train.lmdb", 4, transform=RandomResizedCrop(224), num_workers=0))
    before = threads_of_process()  # with the pool of this thread
    for _ in LMDBLoader(uint8_lmdb / "train.lmdb", 4, transform=RandomResizedCrop(224), num_workers=3):
        assert threads_of_process() <= before + 3


def test_memory_stays_flat_over_epochs(uint8_lmdb):
    loader = LMDBLoader(uint8_lmdb / "train.lmdb", 4, transform=RandomResizedCrop(64), num_workers=2)
    seen = set()
    for _ in range(6):
        seen |= {images.data_ptr() for images, _ in loader}
    assert len(seen) <= 6  # of 36 batches
    assert np.all([pointer % 16 == 0 for pointer in seen])
