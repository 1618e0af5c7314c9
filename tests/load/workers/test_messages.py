"""What workers send: results of any kind as from threads, and exceptions at their place with all that they say."""
import os
import pickle
import sys
import threading

import lmdb
import numpy as np
import pytest
import torch

from dataflows.errors import RecordError
from helpers.waiting import eventually
from helpers.worker_processes import (
    CROP,
    NamedError,
    batches_of,
    failing_at,
    frozen,
    processes,
    raises,
    threads,
    workers,
)

# --- results


RESULTS = {
    "arrays": lambda pixels: pixels[:20, :30],
    "arrays of several shapes": lambda pixels: pixels[::2],
    "float arrays": lambda pixels: pixels[:20, :30] / np.float32(255),
    "other arrays": lambda pixels: pixels[:2].astype(">u4"),
    "numbers of numpy": lambda pixels: pixels.mean(),
    "tensors": lambda pixels: torch.from_numpy(pixels[:20, :30]),
    "permuted tensors": lambda pixels: torch.from_numpy(pixels[:20, :30]).permute(2, 0, 1),
    "tensors of several shapes": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
    "bfloat16": lambda pixels: torch.from_numpy(pixels[:20, :30]).bfloat16(),
    "tensors with a gradient": lambda pixels: torch.nn.Parameter(torch.ones(2)),
    "a tensor or an array": lambda pixels: pixels[:9, :9] if pixels.sum() % 2 else torch.zeros(9),
    "dicts": lambda pixels: {"crop": torch.from_numpy(pixels[:4]), "views": [pixels.shape, "text"]},
    "None": lambda pixels: None,
}


@pytest.mark.parametrize("transform", RESULTS.values(), ids=RESULTS)
def test_whatever_a_callable_returns_arrives_as_from_threads(path, transform):
    outcomes = []
    for make in (threads, processes):
        loader = make(path, 3, transform=transform)
        try:
            outcomes.append([(frozen(b), images.stride() if isinstance(images, torch.Tensor) else 0)
                             for b in loader for images in b[:1]])
        except (TypeError, ValueError) as error:  # what torch refuses, it refuses in either case
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_pil_images_arrive_as_from_threads(path):
    image = pytest.importorskip("PIL.Image")

    def transform(pixels):
        return image.fromarray(pixels).resize((12, 10))

    assert batches_of(processes(path, transform=transform)) == batches_of(threads(path, transform=transform))


def test_tensors_within_other_things_hold_no_files_open(path):
    """torch's own pickling for processes sends one handle for each: 1,024 of them are all that a process may have."""
    def files():
        return len(os.listdir("/proc/self/fd"))

    before = files()
    loader = processes(path, 23, transform=lambda pixels: {"crop": torch.from_numpy(pixels[:4])})
    kept = []
    for images, _ in loader:
        kept.append(images)
    del loader, _
    assert eventually(lambda: files() <= before)
    assert kept[0][0]["crop"].shape[0] == 4


# --- exceptions


class NoisyError(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")


class OwnPickle(NamedError):
    """As several libraries have them: what is added to it later does not travel."""

    def __reduce__(self):
        return type(self), self.args


@pytest.mark.parametrize("error", [NamedError, OwnPickle])
@pytest.mark.parametrize("place", [0, 1, 7, 22])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_an_exception_comes_at_its_place_and_names_file_and_key(path, place, num_workers, error):
    loader = processes(path, 1, num_workers=num_workers, transform=failing_at(path, place, raises(error("no"))))
    got = []
    with pytest.raises(NamedError, match="^no") as failed:
        for batch in loader:
            got.append(batch)
    assert len(got) == place
    assert "in raising" in str(failed.value.__cause__)  # the worker's traceback
    if sys.version_info >= (3, 11):
        [note] = failed.value.__notes__
        assert str(path) in note and "key 000000" in note
    assert not workers()


def test_a_wrong_record_is_named(jpeg_lmdb, tmp_path):
    """By file and key, in the very exception of the threads."""
    with lmdb.open(str(tmp_path / "broken.lmdb"), subdir=False, map_size=2**24) as env:
        with lmdb.open(str(jpeg_lmdb / "train.lmdb"), subdir=False, readonly=True, lock=False) as source:
            with source.begin() as read, env.begin(write=True) as txn:
                for key, value in read.cursor():
                    txn.put(key, value[:50] if key == b"00000004" else value)
    errors = []
    for make in (threads, processes):
        with pytest.raises(RecordError, match="broken.lmdb.*00000004") as failed:
            list(make(tmp_path / "broken.lmdb", transform=CROP))
        errors.append(str(failed.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(("error", "expected", "text"), [
    (NoisyError(3, "why"), RuntimeError, r"NoisyError: why \(3\)"),  # pickles, and then does not unpickle
    (type("Local", (Exception,), {})("x"), RuntimeError, "Local: x"),
    (ValueError(threading.Lock()), RuntimeError, "ValueError: <unlocked"),
    (SystemExit(3), SystemExit, "^3$"),
    (KeyboardInterrupt("own"), KeyboardInterrupt, "own"),
    (MemoryError("much"), MemoryError, "much"),
    (StopIteration(), RuntimeError, "StopIteration"),
], ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "")
def test_any_exception_arrives(path, error, expected, text):
    """As itself, or if it does not pickle as a RuntimeError that says all."""
    loader = processes(path, 1, transform=failing_at(path, 5, raises(error)))
    with pytest.raises(expected, match=text) as failed:
        list(loader)
    if sys.version_info >= (3, 11) and expected is RuntimeError and not isinstance(error, StopIteration):
        assert str(path) in str(failed.value)
    assert not workers()


def test_results_that_do_not_pickle_are_refused(path):
    with pytest.raises(TypeError, match="worker_type='process' sends what the transform returns.*generator.*threads"):
        list(processes(path, transform=lambda pixels: (row for row in pixels)))
    assert not workers()


class Unreadable:
    def __reduce__(self):
        return pickle.loads, (b"",)


def test_results_that_do_not_unpickle_raise_what_unpickling_raises(path):
    with pytest.raises(EOFError):
        list(processes(path, transform=lambda pixels: Unreadable()))
    assert not workers()
