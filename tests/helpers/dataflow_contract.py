"""What every DataFlow of ours promises to the one after it in a chain, as checks that hold for any of them.

A check takes `make`, which makes a new DataFlow over the same data, and asserts. `CHECKS` is all of them.
"""
import copy
import itertools
import pickle
import threading

import numpy as np

from dataflows.tensorpack import DataFlow


def frozen(value):
    """A datapoint as nested tuples that compare by content: arrays become their dtype, shape and bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    return value


def datapoints(ds):
    return [frozen(datapoint) for datapoint in ds]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("dataflows")]


def is_a_tensorpack_dataflow(make):
    assert isinstance(make(), DataFlow)


def ends_after_exactly_len_datapoints(make):
    ds = make()
    size = len(ds)
    assert size > 0
    assert sum(1 for _ in itertools.islice(ds, size + 1)) == size


def yields_lists(make):
    assert all(isinstance(datapoint, list) for datapoint in make())


def repeats_itself_within_an_epoch(make):
    ds = make()
    assert datapoints(ds) == datapoints(ds)


def is_a_function_of_its_arguments(make):
    assert datapoints(make()) == datapoints(make())


def may_be_reset_before_each_iteration(make):
    ds = make()
    expected = datapoints(ds)
    for _ in range(2):
        ds.reset_state()
        assert datapoints(ds) == expected


def starts_afresh_after_an_abandoned_iteration(make):
    ds = make()
    expected = datapoints(ds)
    for taken in (0, 1, len(ds) // 2):
        iterator = iter(ds)
        assert [frozen(next(iterator)) for _ in range(taken)] == expected[:taken]
        del iterator
        assert not threads()
        assert datapoints(ds) == expected


def keeps_live_iterations_apart(make):
    ds = make()
    expected = datapoints(ds)
    first, second = iter(ds), iter(ds)
    ahead = [frozen(next(first))]
    pairs = [(frozen(a), frozen(b)) for a, b in zip(second, first)]  # the second is one behind
    assert ahead + [b for _, b in pairs] == expected
    assert [a for a, _ in pairs] == expected[:-1]


def leaves_datapoints_of_its_source_unchanged(make):
    ds = make()
    if not hasattr(ds, "ds"):
        return
    given = list(ds.ds)
    before = copy.deepcopy(given)

    class Source(DataFlow):
        def __len__(self):
            return len(given)

        def __iter__(self):
            return iter(given)

    ds.ds = Source()
    for _ in ds:
        pass
    assert datapoints(given) == datapoints(before)


def pickles(make):
    ds = make()
    assert datapoints(pickle.loads(pickle.dumps(ds))) == datapoints(ds)


CHECKS = (is_a_tensorpack_dataflow, ends_after_exactly_len_datapoints, yields_lists, repeats_itself_within_an_epoch,
          is_a_function_of_its_arguments, may_be_reset_before_each_iteration,
          starts_afresh_after_an_abandoned_iteration, keeps_live_iterations_apart,
          leaves_datapoints_of_its_source_unchanged, pickles)
