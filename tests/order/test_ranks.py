"""What each rank reads: every sample once over all ranks, also after interruptions by another number of ranks."""
import collections
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from dataflows.load.chain import pointers_of
from dataflows.load.late_ranks import LateRanks
from dataflows.order.epoch import Epoch
from dataflows.order.order import Order
from dataflows.order.parts import RestOfEpoch
from dataflows.order.pointers import SequentialKeys, checked_indices
from dataflows.order.ranks import UNEVEN, Ranks, left_over
from dataflows.tensorpack import BatchData
from helpers.records import Records

counts = st.integers(1, 90)
worlds = st.integers(1, 7)
unevens = st.sampled_from(UNEVEN)
epochs = st.integers(0, 20)
some = settings(max_examples=50)  # of chains, which cost more than positions
ROTATING = ["shuffled", "local", "block", "shard", "sequential"]
PINNED = [f"{order} pinned" for order in (*ROTATING, "unshuffled")]
rotating, pinned, orders = map(st.sampled_from, (ROTATING, PINNED, ROTATING + PINNED))


@st.composite
def contents(draw):
    """What an epoch is made of: records, and which of them how often, as options of keys."""
    records = draw(st.integers(1, 60))
    indices = draw(st.none() | st.lists(st.integers(0, records - 1), min_size=1, max_size=30))
    starts = sorted({0, *draw(st.lists(st.integers(0, records - 1), max_size=5))})
    return Records(records, starts), {"indices": indices, "repeats": draw(st.integers(1, 3))}


def chain(order, content, ranks, epoch):
    """A loader's pointers."""
    store, options = content
    kind, *partition = order.split()
    indices = checked_indices(options["indices"], store)
    return pointers_of(store, Order(kind, 3, 5, 4, indices, options["repeats"], *partition), epoch, ranks)


def at(number, done=(), skip=0):
    epoch = Epoch(3)
    epoch.go_to(number, done, skip)
    return epoch


def ranks_of(world_size, uneven):
    return [Ranks(rank, world_size, uneven) for rank in range(world_size)]


def all_pointers(order, content, world_size, uneven, epoch):
    """The pointers of each rank."""
    return [list(map(tuple, chain(order, content, ranks, epoch))) for ranks in ranks_of(world_size, uneven)]


def numbers_by_position(order, content, epoch):
    """The record number at each position of the epoch: what a single process reads without a local shuffle."""
    [pointers] = all_pointers(order, content, 1, "keep", at(epoch))
    numbers = dict((position, number) for number, position in pointers)
    return [numbers[position] for position in range(len(pointers))]


# --- positions


@given(counts, worlds, unevens, epochs)
@pytest.mark.parametrize("kind", ["strided", "contiguous"])
def test_ranks_share_all_positions(kind, count, world_size, uneven, turn):
    shares = [ranks.strided(count) if kind == "strided" else ranks.contiguous(count, turn)
              for ranks in ranks_of(world_size, uneven)]
    assert [len(share) for share in shares] == [ranks.size(count) for ranks in ranks_of(world_size, uneven)]
    positions = sorted(np.concatenate(shares).tolist())
    expected = {"keep": count, "drop": count - count % world_size, "pad": count + -count % world_size}[uneven]
    assert positions == list(range(expected))


@given(counts, worlds, unevens)
def test_sizes_are_equal_unless_kept_and_then_they_differ_by_one(count, world_size, uneven):
    sizes = {ranks.size(count) for ranks in ranks_of(world_size, uneven)}
    assert max(sizes) - min(sizes) <= (uneven == "keep")


@given(counts, worlds, unevens, epochs)
def test_a_strided_share_is_every_nth_and_a_contiguous_one_is_a_range(count, world_size, uneven, turn):
    for ranks in ranks_of(world_size, uneven):
        assert (np.diff(ranks.strided(count)) == world_size).all()
        assert (np.diff(ranks.contiguous(count, turn)) == 1).all()


@given(counts, worlds, st.sampled_from(["pad", "drop"]), epochs)
def test_ranges_move_so_that_a_rank_reads_all_within_world_size_epochs(count, world_size, uneven, first):
    everything = set(range(world_size * Ranks(0, world_size, uneven).size(count)))
    for ranks in ranks_of(world_size, uneven):
        turns = [[*ranks.contiguous(count, turn)] for turn in range(first, first + world_size)]
        assert set().union(*turns) == everything


@given(counts, worlds, epochs)
def test_ranges_that_are_kept_stay(count, world_size, turn):
    for ranks in ranks_of(world_size, "keep"):
        assert [*ranks.contiguous(count, turn)] == [*ranks.contiguous(count, 0)]


@given(counts, worlds, st.sampled_from(["pad", "drop"]), epochs)
def test_shuffled_ranks_are_those_of_distributed_sampler(count, world_size, uneven, epoch):
    content = Records(count), {"indices": None, "repeats": 1}
    permutation = numbers_by_position("shuffled", content, epoch)
    for ranks, pointers in enumerate(all_pointers("shuffled", content, world_size, uneven, at(epoch))):
        sampler = DistributedSampler(permutation, world_size, ranks, shuffle=False, drop_last=uneven == "drop")
        assert [number for number, _ in pointers] == [permutation[i] for i in sampler]


# --- chains of pointers


@some
@given(orders, contents(), worlds, unevens, epochs)
def test_every_sample_comes_once_over_all_ranks(order, content, world_size, uneven, epoch):
    alone = numbers_by_position(order, content, epoch)
    streams = all_pointers(order, content, world_size, uneven, at(epoch))
    numbers = dict((position, number) for stream in streams for number, position in stream)
    assert len(numbers) == sum(map(len, streams))  # no position comes twice, not even one that pads
    own = {position for position in numbers if position < len(alone)}
    assert len(alone) - len(own) == (len(alone) % world_size if uneven == "drop" else 0)
    assert len(numbers) - len(own) == (-len(alone) % world_size if uneven == "pad" else 0)
    assert all(number == alone[position % len(alone)] for position, number in numbers.items())


@some
@given(orders, contents(), epochs)
def test_indices_and_repeats_say_what_comes_how_often(order, content, epoch):
    store, options = content
    chosen = range(len(store)) if options["indices"] is None else options["indices"]
    alone = numbers_by_position(order, content, epoch)
    assert collections.Counter(alone) == collections.Counter(list(chosen) * options["repeats"])
    in_rows = np.array(alone).reshape(-1, options["repeats"])
    assert (in_rows == in_rows[:, :1]).all()
    if order in ("local", "sequential"):
        assert in_rows[:, 0].tolist() == list(chosen)


@some
@given(orders, contents(), worlds, unevens, epochs)
def test_the_length_of_a_chain_is_exact(order, content, world_size, uneven, epoch):
    for ranks in ranks_of(world_size, uneven):
        pointers = chain(order, content, ranks, at(epoch))
        assert len(pointers) == len(list(pointers))


@some
@given(orders, contents(), worlds, unevens, st.integers(1, 9), st.booleans())
def test_batch_counts_are_exact_and_equal_unless_kept(order, content, world_size, uneven, batch_size, remainder):
    sizes = [len(chain(order, content, ranks, at(0))) for ranks in ranks_of(world_size, uneven)]
    assume(remainder or min(sizes) >= batch_size)  # tensorpack's BatchData refuses to drop all
    batches = [BatchData(RestOfEpoch(chain(order, content, ranks, at(0)), at(0)), batch_size, remainder=remainder,
                         use_list=True) for ranks in ranks_of(world_size, uneven)]
    counts = [len(list(ds)) for ds in batches]
    assert counts == [len(ds) for ds in batches]
    assert max(counts) - min(counts) <= (uneven == "keep")


@some
@given(st.sampled_from(["local", "sequential"]), contents(), worlds, st.sampled_from(["pad", "keep"]), epochs)
def test_a_rank_reads_the_file_forward_within_its_range(order, content, world_size, uneven, epoch):
    store, options = content
    for ranks in ranks_of(world_size, uneven):
        positions = [position for _, position in SequentialKeys(store, at(epoch), ranks=ranks, **options)]
        assert positions == sorted(positions)


@some
@given(contents(), worlds, unevens, epochs, st.integers(1, 5))
def test_parts_of_a_rank_are_the_rank(content, world_size, uneven, epoch, parts):
    store, options = content
    for ranks in ranks_of(world_size, uneven):
        keys = [SequentialKeys(store, at(epoch), ranks=ranks, part=(i, parts), **options) for i in range(parts)]
        assert [len(list(part)) for part in keys] == [len(part) for part in keys]
        assert list(itertools.chain(*keys)) == list(SequentialKeys(store, at(epoch), ranks=ranks, **options))


@some
@given(pinned, contents(), worlds, unevens)
def test_a_pinned_rank_reads_one_range_in_every_epoch(order, content, world_size, uneven):
    count = len(numbers_by_position(order, content, 0))
    for ranks in ranks_of(world_size, uneven):
        pointers = [sorted(map(tuple, chain(order, content, ranks, at(epoch)))) for epoch in range(3)]
        assert pointers[0] == pointers[1] == pointers[2]
        assert sorted(position for _, position in pointers[0]) == [*ranks.contiguous(count, 0)]


@some
@given(contents(), worlds, epochs)
def test_a_pinned_rank_shuffles_its_range_and_repeats_in_a_row(content, world_size, epoch):
    store, options = content
    assume(len(store) > 30 and options["indices"] is None)
    for ranks in ranks_of(world_size, "drop"):
        [one, other] = [[position // options["repeats"] for _, position in
                         chain("shuffled pinned", content, ranks, at(number))] for number in (epoch, epoch + 1)]
        runs = [[key for key, _ in itertools.groupby(stream)] for stream in (one, other)]
        assert sorted(runs[0]) == sorted(runs[1]) == sorted(set(one))
        assert runs[0] != runs[1] or len(runs[0]) < 5


def test_pinned_ranks_shuffle_by_numbers_of_their_own():
    content = Records(400), {"indices": None, "repeats": 1}
    streams = all_pointers("shuffled pinned", content, 2, "drop", at(0))
    assert len({tuple(position % 200 for _, position in stream) for stream in streams}) == 2


@some
@given(st.sampled_from(["shard", "shard pinned"]), contents(), worlds, unevens, epochs)
def test_shards_are_read_whole(order, content, world_size, uneven, epoch):
    store, options = content
    store, options = Records(len(store), store.starts), {"indices": None, "repeats": options["repeats"]}
    indices = checked_indices(None, store)
    kind, *partition = order.split()
    for ranks in ranks_of(world_size, uneven):
        keys = pointers_of(store, Order(kind, 3, 0, 4, indices, options["repeats"], *partition), at(epoch), ranks)
        numbers = [number for number, position in keys if position < len(store) * options["repeats"]]
        shards = [np.searchsorted(store.starts, number, side="right") for number in numbers]
        met = [key for key, _ in itertools.groupby(shards)]
        assert len(met) - len(set(met)) <= 1  # of ranges that move, one may end in a shard whose rest comes first
        for shard in set(met):
            own = [number for number, of in zip(numbers, shards) if of == shard]
            assert partition == [] or own == sorted(own)


def test_the_files_of_a_shard_order_come_in_another_order_in_each_epoch():
    store = Records(40, range(0, 40, 4))
    order, alone = Order("shard", shuffle_buffer=0), Ranks(0, 1, "keep")
    epochs = [[number for number, _ in pointers_of(store, order, at(epoch), alone)] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [[*range(40)]] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all((np.diff(np.array(epoch).reshape(-1, 4)) == 1).all() for epoch in epochs)
    [alone] = all_pointers("shard", (Records(9), {"indices": None, "repeats": 1}), 1, "keep", at(2))
    assert alone == all_pointers("local", (Records(9), {"indices": None, "repeats": 1}), 1, "keep", at(2))[0]


def test_local_shuffles_of_ranks_and_interruptions_have_numbers_of_their_own():
    content = Records(400), {"indices": None, "repeats": 1}
    streams = all_pointers("local", content, 2, "drop", at(0)) + all_pointers("local", content, 2, "drop",
                                                                              at(0, ((5, 0),)))
    places = [tuple(position % 200 for _, position in stream) for stream in streams]
    assert len(set(places)) == 4


# --- interruptions


@st.composite
def interruptions(draw):
    """World sizes and samples of each rank, of up to three interrupted runs of an epoch."""
    return draw(st.lists(st.tuples(worlds, st.integers(0, 25)), max_size=3))


@some
@given(orders, contents(), interruptions(), worlds, unevens, epochs)
def test_what_is_left_comes_once_over_any_number_of_ranks(order, content, runs, world_size, uneven, epoch):
    alone = numbers_by_position(order, content, epoch)
    seen, done = [], ()
    for size, samples in runs:
        for stream in all_pointers(order, content, size, uneven, at(epoch, done)):
            seen += stream[:samples]
        done = (*done, (size, samples))
    rest = all_pointers(order, content, world_size, uneven, at(epoch, done))
    assert len(set(map(len, rest))) == 1 or uneven == "keep"
    seen += itertools.chain(*rest)
    positions = collections.Counter(position for _, position in seen if position < len(alone))
    assert set(positions.values()) <= {1}
    assert len(alone) - len(positions) < (world_size if uneven == "drop" else 1)
    assert all(number == alone[position] for number, position in seen if position < len(alone))
    assert {number for number, _ in seen} <= set(alone)


@some
@given(orders, contents(), interruptions(), worlds, unevens, epochs, st.integers(0, 40))
def test_the_rest_of_a_rank_is_its_epoch_without_what_is_done(order, content, done, world_size, uneven, epoch, skip):
    place = at(epoch, tuple(done), skip)
    for ranks in ranks_of(world_size, uneven):
        pointers = chain(order, content, ranks, place)
        assert list(RestOfEpoch(pointers, place)) == list(pointers)[skip:]


@some
@given(orders, contents(), worlds, unevens, epochs)
def test_nothing_is_left_of_an_epoch_that_was_finished(order, content, world_size, uneven, epoch):
    samples = max(map(len, all_pointers(order, content, world_size, uneven, at(epoch))))
    dropped = len(numbers_by_position(order, content, epoch)) % world_size if uneven == "drop" else 0
    [rest] = all_pointers(order, content, 1, uneven, at(epoch, ((world_size, samples),)))
    assert len(rest) == dropped


def test_left_over_leaves_out_the_first_ones_of_each_rank():
    def stream(positions, ranks, interruptions, samples):
        return np.array(ranks.strided(len(positions))[:samples], int)

    assert left_over(10, (), "keep", stream).tolist() == list(range(10))
    assert left_over(10, ((2, 3),), "keep", stream).tolist() == [6, 7, 8, 9]
    assert left_over(10, ((2, 3), (4, 1)), "keep", stream).tolist() == []
    assert left_over(10, ((2, 3), (3, 1)), "keep", stream).tolist() == [9]
    assert left_over(10, ((1, 0), (2, 0)), "keep", stream).tolist() == list(range(10))


# --- options


def test_without_torch_distributed_there_is_one_rank():
    assert LateRanks(None, None, "pad")() == Ranks(0, 1, "pad")
    assert LateRanks(np.int64(1), np.int64(3), "keep")() == Ranks(1, 3, "keep")


@pytest.mark.parametrize("rank, world_size, uneven, message", [
    (0, None, "pad", "rank=0 and world_size=None: give both, or neither"),
    (None, 2, "pad", "rank=None and world_size=2: give both, or neither"),
    (2, 2, "pad", "rank must be below world_size=2, not 2"), (-1, 2, "pad", "rank must be a non-negative integer"),
    (0, 0, "pad", "world_size must be an integer of at least 1, not 0"),
    (0.0, 2, "pad", "rank must be a non-negative integer, not 0.0"), (0, "2", "pad", "world_size must be an integer"),
    (0, 2, "stretch", "uneven must be 'pad', 'drop' or 'keep', not 'stretch'")])
def test_wrong_ranks_are_refused(rank, world_size, uneven, message):
    with pytest.raises(ValueError, match=message):
        LateRanks(rank, world_size, uneven)


@pytest.mark.parametrize("indices, message", [
    ([], "indices must be a list or array of one or more"), ([1.0], "not float64 of shape"),
    ([[1]], "of shape \\(1, 1\\)"), ([True, False], "turn a mask into numbers with numpy.flatnonzero"),
    (["1"], "indices must"), ([0, 9], "record numbers from 0 to 8 of train.lmdb, not 9"), ([-1], "not -1"),
    (3, "indices must be a list")])
def test_wrong_indices_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        SequentialKeys(Records(9), Epoch(), indices=indices)


def test_later_changes_of_an_array_of_indices_are_not_seen():
    indices = np.array([1, 2, 3])
    keys = SequentialKeys(Records(9), Epoch(), indices=indices)
    indices[:] = 8
    assert [number for number, _ in keys] == [1, 2, 3]
