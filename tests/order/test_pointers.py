"""The order of an epoch: each record once, as a function of (seed, epoch) and of nothing else."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorpack.dataflow import DataFromList

from dataflows.order.epoch import Epoch
from dataflows.order.local_shuffle import FiniteLocallyShuffleData, not_yet_shuffled
from dataflows.order.pointers import (
    BlockShuffledKeys,
    SequentialKeys,
    ShardShuffledKeys,
    ShuffledKeys,
    permuted_runs,
)
from dataflows.tensorpack import DataFlow
from helpers.records import Records

sizes = st.integers(1, 300)
buffers = st.integers(1, 400)
seeds = st.integers(0, 2**64)
epochs = st.integers(0, 10_000)


def epoch_of(seed, number):
    epoch = Epoch(seed)
    epoch.go_to(number)
    return epoch


def shuffled(size, seed=0, epoch=0):
    return [number for number, _ in ShuffledKeys(Records(size), epoch_of(seed, epoch))]


def block_shuffled(size, block_size, seed=0, epoch=0):
    return [number for number, _ in BlockShuffledKeys(Records(size), epoch_of(seed, epoch), block_size)]


def locally_shuffled(size, buffer_size, seed=0, epoch=0):
    ds = DataFromList([[number] for number in range(size)], shuffle=False)
    return [number for [number] in FiniteLocallyShuffleData(ds, buffer_size, epoch_of(seed, epoch))]


def test_sequential_keys_come_in_the_order_of_the_file():
    assert list(SequentialKeys(Records(3), Epoch())) == [[0, 0], [1, 1], [2, 2]]
    assert list(SequentialKeys(Records(9), Epoch(), part=(1, 3))) == [[3, 3], [4, 4], [5, 5]]
    assert list(SequentialKeys(Records(1), Epoch(), part=(0, 3))) == []


def test_pointers_are_a_number_and_its_place_in_the_epoch():
    for keys in (ShuffledKeys(Records(9), Epoch()), BlockShuffledKeys(Records(9), Epoch(), 2)):
        numbers, positions = zip(*keys)
        assert sorted(numbers) == list(positions) == list(range(9)) and numbers != positions


@pytest.mark.parametrize("cls", [ShuffledKeys, BlockShuffledKeys, ShardShuffledKeys, FiniteLocallyShuffleData],
                         ids=lambda c: c.__name__)
def test_the_examples_in_docstrings_are_literally_true(cls):
    def shown(datapoints):
        return " ".join(map(str, datapoints))

    numbers = DataFromList([[number] for number in range(8)], shuffle=False)
    example = {
        ShuffledKeys: "4 records: " + "    and in the next epoch: ".join(
            shown(ShuffledKeys(Records(4), epoch_of(0, number))) for number in (0, 1)),
        ShardShuffledKeys: f"3 files of 2 records: {shown(ShardShuffledKeys(Records(6, (0, 2, 4)), Epoch()))}",
        BlockShuffledKeys: f"6 records in blocks of 2: {shown(BlockShuffledKeys(Records(6), Epoch(), 2))}",
        FiniteLocallyShuffleData: "ds: 0 1 2 3 4 5 6 7    buffer_size=4:    " + shown(
            number for [number] in FiniteLocallyShuffleData(numbers, 4, Epoch())),
    }[cls]
    assert example in map(str.strip, cls.__doc__.splitlines())  # Python 3.13 takes the indentation away


@given(sizes, seeds, epochs)
def test_shuffled_keys_are_a_permutation(size, seed, epoch):
    assert sorted(shuffled(size, seed, epoch)) == list(range(size))


@given(sizes, st.integers(1, 400), seeds, epochs)
def test_blocks_are_a_permutation_of_runs(size, block_size, seed, epoch):
    order = block_shuffled(size, block_size, seed, epoch)
    assert sorted(order) == list(range(size))
    starts = [place for place, number in enumerate(order) if number % block_size == 0]
    for start, end in zip(starts, [*starts[1:], size]):
        assert order[start:end] == list(range(order[start], min(order[start] + block_size, size)))


def test_blocks_of_one_are_a_full_shuffle_and_one_block_is_the_file():
    assert block_shuffled(50, 1) == shuffled(50)
    assert block_shuffled(50, 50) == block_shuffled(50, 1000) == list(range(50))


@pytest.mark.parametrize("block_size", [0, -1, 1.5])
def test_a_wrong_block_size_is_refused(block_size):
    with pytest.raises(ValueError, match="block_size must be an integer of at least 1, not "):
        BlockShuffledKeys(Records(7), Epoch(), block_size)


@given(sizes, buffers, seeds, epochs)
def test_a_local_shuffle_is_a_permutation(size, buffer_size, seed, epoch):
    assert sorted(locally_shuffled(size, buffer_size, seed, epoch)) == list(range(size))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 140_000])
def test_keys_that_fill_several_chunks_are_a_permutation(size):
    assert sorted(shuffled(size)) == list(range(size))


def test_numbers_are_plain_integers():
    assert {type(number) for number in shuffled(9)} == {int}
    for keys in (SequentialKeys(Records(9), Epoch()), BlockShuffledKeys(Records(9), Epoch(), 2)):
        assert {type(value) for pointer in keys for value in pointer} == {int}


@given(seeds, epochs)
def test_an_order_is_a_function_of_seed_and_epoch(seed, epoch):
    assert shuffled(50, seed, epoch) == shuffled(50, seed, epoch)
    assert locally_shuffled(50, 20, seed, epoch) == locally_shuffled(50, 20, seed, epoch)
    assert block_shuffled(50, 3, seed, epoch) == block_shuffled(50, 3, seed, epoch)


def test_numpys_global_generator_has_no_part_in_it():
    np.random.seed(1)
    orders = [shuffled(50), locally_shuffled(50, 20), block_shuffled(50, 3)]
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    assert [shuffled(50), locally_shuffled(50, 20), block_shuffled(50, 3)] == orders
    np.random.seed(1)
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("order", [lambda s, e: shuffled(50, s, e), lambda s, e: locally_shuffled(50, 20, s, e),
                                   lambda s, e: block_shuffled(50, 3, s, e)],
                         ids=["shuffled", "locally shuffled", "in blocks"])
def test_seeds_and_epochs_differ_from_each_other(order):
    orders = [tuple(order(seed, epoch)) for seed in range(12) for epoch in range(12)]
    assert len(set(orders)) == len(orders)


def test_golden_orders():
    # Change these only if you know what you are doing: runs that are repeated or resumed would see other batches.
    assert shuffled(12, 0, 0) == GOLDEN_SHUFFLED[0, 0]
    assert shuffled(12, 0, 1) == GOLDEN_SHUFFLED[0, 1]
    assert shuffled(12, 1, 0) == GOLDEN_SHUFFLED[1, 0]
    assert locally_shuffled(12, 4, 0, 0) == GOLDEN_LOCAL[0, 0]
    assert locally_shuffled(12, 4, 0, 1) == GOLDEN_LOCAL[0, 1]
    assert locally_shuffled(12, 4, 1, 0) == GOLDEN_LOCAL[1, 0]
    assert block_shuffled(12, 3, 0, 0) == GOLDEN_BLOCKS[0, 0]
    assert block_shuffled(12, 3, 0, 1) == GOLDEN_BLOCKS[0, 1]
    assert block_shuffled(12, 3, 1, 0) == GOLDEN_BLOCKS[1, 0]


GOLDEN_SHUFFLED = {
    (0, 0): [9, 11, 1, 5, 6, 3, 4, 10, 8, 7, 2, 0],
    (0, 1): [7, 2, 4, 11, 0, 6, 1, 8, 9, 3, 5, 10],
    (1, 0): [6, 2, 8, 10, 1, 5, 3, 4, 7, 0, 9, 11],
}
GOLDEN_LOCAL = {
    (0, 0): [0, 2, 1, 6, 5, 8, 9, 3, 10, 11, 7, 4],
    (0, 1): [0, 2, 4, 1, 5, 7, 6, 3, 9, 10, 8, 11],
    (1, 0): [0, 1, 3, 4, 5, 7, 6, 10, 11, 9, 8, 2],
}
GOLDEN_BLOCKS = {
    (0, 0): [9, 10, 11, 3, 4, 5, 6, 7, 8, 0, 1, 2],
    (0, 1): [0, 1, 2, 9, 10, 11, 3, 4, 5, 6, 7, 8],
    (1, 0): [6, 7, 8, 0, 1, 2, 3, 4, 5, 9, 10, 11],
}


@given(sizes, buffers, seeds)
def test_a_local_shuffle_brings_nothing_forward_by_more_than_its_buffer(size, buffer_size, seed):
    order = locally_shuffled(size, buffer_size, seed)
    assert all(number - place <= buffer_size for place, number in enumerate(order))


@given(sizes, buffers)
def test_a_local_shuffle_reads_at_most_two_datapoints_for_each_that_it_yields(size, buffer_size):
    read = 0

    class Source(DataFlow):
        def __len__(self):
            return size

        def __iter__(self):
            nonlocal read
            for number in range(size):
                read += 1
                yield [number]

    for place, _ in enumerate(FiniteLocallyShuffleData(Source(), buffer_size, Epoch()), 1):
        assert read <= min(2 * place, place + buffer_size)  # so the first comes at once
    assert read == size


def left_after(size, buffer_size, yielded):
    epoch = epoch_of(3, 4)
    shuffle = FiniteLocallyShuffleData(SequentialKeys(Records(size), epoch), buffer_size, epoch, 1)
    order = [number for number, _ in shuffle]
    assert [number for number, _ in shuffle.from_place(yielded)] == order[yielded:]
    left = not_yet_shuffled(size, yielded, buffer_size, epoch, 1, 0)
    assert sorted(left.tolist()) == sorted(order[yielded:])


@given(st.integers(0, 60), st.integers(1, 40), st.data())
def test_what_is_left_of_a_local_shuffle_is_told_without_it(size, buffer_size, data):
    left_after(size, buffer_size, data.draw(st.integers(0, size)))


@pytest.mark.parametrize("size, buffer_size", [(20_001, 9), (20_000, 5000), (8193, 4096), (8193, 8192), (8192, 5000),
                                               (8191, 9000), (16_385, 8192)])
def test_what_is_left_of_a_local_shuffle_beyond_a_block_of_its_draws(monkeypatch, size, buffer_size):
    monkeypatch.setattr("dataflows.order.local_shuffle._STEPS", 2 * 4096)
    for yielded in (1, 4095, 4096, 4097, size // 2, size - 3, size - 1, size):
        left_after(size, buffer_size, yielded)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=8), seeds)
def test_runs_are_permuted_whole(lengths, seed):
    runs = np.array([value for value, length in lengths for _ in range(length)], np.int64)
    order = permuted_runs(runs, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(runs)))
    for place, number in enumerate(order[:-1].tolist()):
        if number + 1 < len(runs) and runs[number] == runs[number + 1]:
            assert order[place + 1] == number + 1


def test_a_buffer_larger_than_the_data_shuffles_all_of_it():
    first_places = {locally_shuffled(40, 1000, seed).index(39) for seed in range(60)}
    assert min(first_places) < 25 and max(first_places) > 35
    assert locally_shuffled(1, 1000) == [0]
    assert locally_shuffled(0, 1000) == []


def test_a_buffer_of_one_reorders_neighbours_at_most():
    assert all(abs(number - place) <= 10 for place, number in enumerate(locally_shuffled(20, 1)) if number > place)
    assert sorted(locally_shuffled(20, 1)) == list(range(20))


@pytest.mark.parametrize("order", [shuffled(2000), locally_shuffled(2000, 200)], ids=["shuffled", "locally shuffled"])
def test_a_shuffle_is_not_sequential(order):
    order = np.array(order)
    assert (np.diff(order) == 1).mean() < 0.02
    assert (order == np.arange(2000)).mean() < 0.02
    assert 0.4 < (np.diff(order) > 0).mean() < 0.6


def test_a_local_shuffle_mixes_as_far_as_its_buffer_reaches():
    displacement = np.abs(np.array(locally_shuffled(5000, 250)) - np.arange(5000))
    assert 100 < displacement.mean() < 500


def test_a_change_of_epoch_in_mid_iteration_is_for_the_next_iteration():
    ds_epoch = Epoch(0)
    for ds in (ShuffledKeys(Records(50), ds_epoch), BlockShuffledKeys(Records(50), ds_epoch, 3),
               FiniteLocallyShuffleData(SequentialKeys(Records(50), ds_epoch), 20, ds_epoch)):
        ds_epoch.go_to(0)
        expected = list(ds)
        running = iter(ds)
        head = [next(running) for _ in range(10)]
        ds_epoch.go_to(1)
        assert head + list(running) == expected
        assert list(ds) != expected


def test_streams_of_one_epoch_are_independent():
    epoch = Epoch(0)
    assert epoch.generator(1).random() != epoch.generator(2).random()


def test_a_local_shuffle_is_as_long_as_its_source():
    assert len(FiniteLocallyShuffleData(SequentialKeys(Records(7), Epoch()), 3, Epoch())) == 7


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be a non-negative integer, not -1"):
        Epoch(-1)


@pytest.mark.parametrize("buffer_size", [0, -1])
def test_an_empty_buffer_is_refused(buffer_size):
    with pytest.raises(ValueError, match=f"shuffle_buffer must be an integer of at least 1, not {buffer_size}"):
        FiniteLocallyShuffleData(SequentialKeys(Records(7), Epoch()), buffer_size, Epoch())
