"""shuffle_quality: known answers for each order of sorted and of shuffled files."""
import logging
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorpack.dataflow import DataFromList

from dataflows.dump.write import Packed, PackedLMDBSerializer
from dataflows.load.shuffle_quality import ShuffleQuality, entropy, shuffle_quality, shuffled_entropy
from dataflows.storage import record
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

CLASSES, PER_CLASS, BATCH = 40, 100, 50
COUNT = CLASSES * PER_CLASS


def write(path, labels):
    """An LMDB, without an index, of one-pixel images with these labels."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    records = [Packed(record.pack([pixel, int(label)])) for label in labels]
    PackedLMDBSerializer.save(DataFromList(records, shuffle=False), str(path))
    return path


@pytest.fixture(scope="module")
def sorted_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("quality") / "sorted.lmdb", np.arange(COUNT) // PER_CLASS)


@pytest.fixture(scope="module")
def shuffled_file(tmp_path_factory):
    labels = np.random.default_rng(1).permutation(COUNT) // PER_CLASS
    return write(tmp_path_factory.mktemp("quality") / "shuffled.lmdb", labels)


def quality(cls, path, batch_size=BATCH, epochs=2, **options):
    with cls(path, batch_size, **options) as loader:
        return shuffle_quality(loader, epochs)


# --- what each order gives


def test_a_sorted_file_in_order_has_one_class_in_each_batch(sorted_file):
    found = quality(LMDBIterLoader, sorted_file, order="sequential")
    assert (found.samples, found.batch_size, found.epochs) == (COUNT, BATCH, 2)
    assert found.entropy == found.mixing == found.from_file == found.from_previous == 0
    assert found.coverage == 1
    assert 4 < found.full_entropy < math.log2(CLASSES)


def test_a_full_shuffle_is_what_the_expectation_is_of(sorted_file):
    found = quality(LMDBLoader, sorted_file, epochs=5)
    assert found.mixing == pytest.approx(1, abs=0.01)
    assert found.from_file == pytest.approx(1 / 3, abs=0.01)
    assert found.from_previous == pytest.approx(1 / 3, abs=0.01)
    assert found.coverage == 1


def test_blocks_are_in_between(sorted_file):
    blocks = quality(LMDBIterLoader, sorted_file, order="block", block_size=10, shuffle_buffer=0)
    mixed = quality(LMDBIterLoader, sorted_file, order="block", block_size=10, shuffle_buffer=400)
    local = quality(LMDBIterLoader, sorted_file, order="local", shuffle_buffer=400)
    assert 0 < blocks.mixing < local.mixing < mixed.mixing < 0.99
    assert blocks.entropy <= math.log2(BATCH // 10)
    for found in (blocks, mixed):
        assert found.from_file == pytest.approx(1 / 3, abs=0.04)
        assert found.from_previous == pytest.approx(1 / 3, abs=0.04)
    assert 0.03 < local.from_file < 0.15  # as far as its buffer reaches: a tenth of the file
    assert blocks.coverage == mixed.coverage == local.coverage == 1


def test_a_shuffled_file_is_well_mixed_in_its_own_order_but_each_epoch_is_the_same(shuffled_file):
    found = quality(LMDBIterLoader, shuffled_file, order="sequential")
    assert found.mixing == pytest.approx(1, abs=0.01)
    assert found.from_file == found.from_previous == 0


def test_reverse_order_is_half_an_epoch_from_the_file(sorted_file):
    found = quality(LMDBLoader, sorted_file, shuffle=False, indices=np.arange(COUNT)[::-1])
    assert found.from_file == pytest.approx(1 / 2, abs=1e-3)
    assert found.from_previous == 0


def test_one_class_cannot_be_mixed(sorted_file):
    found = quality(LMDBLoader, sorted_file, indices=np.arange(PER_CLASS))
    assert found.entropy == found.full_entropy == 0
    assert found.mixing == 1


def test_one_batch_has_the_entropy_of_all_labels(sorted_file):
    for shuffle in (True, False):
        found = quality(LMDBLoader, sorted_file, batch_size=COUNT, shuffle=shuffle)
        assert found.entropy == pytest.approx(math.log2(CLASSES))
        assert found.full_entropy == pytest.approx(math.log2(CLASSES))


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_labels_need_not_be_class_numbers(cls, sorted_file, tmp_path):
    """The measures are of how often each occurs, and not of what it is."""
    names = np.random.default_rng(2).integers(-2**62, 2**62, CLASSES)
    path = write(tmp_path / "any.lmdb", names[np.arange(COUNT) // PER_CLASS])
    assert str(quality(cls, path)) == str(quality(cls, sorted_file))


def test_one_epoch_has_none_before_it(sorted_file):
    found = quality(LMDBLoader, sorted_file, epochs=1)
    assert found.from_previous is None
    assert "1 epoch\n" in str(found) and "before" not in str(found)


# --- what an epoch covers


def test_a_batch_that_is_dropped_is_not_covered(sorted_file):
    found = quality(LMDBLoader, sorted_file, batch_size=3000, drop_last=True)
    assert (found.samples, found.coverage) == (3000, 0.75)


def test_a_subset_and_repetitions_are_covered_as_they_should_be(sorted_file):
    found = quality(LMDBLoader, sorted_file, indices=np.arange(0, COUNT, 4), repeats=3)
    assert (found.samples, found.coverage) == (3 * COUNT // 4, 1)
    assert found.from_file == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("uneven", ["pad", "drop", "keep"])
@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_ranks_are_measured_by_their_share(cls, uneven, sorted_file):
    for rank in range(3):
        found = quality(cls, sorted_file, rank=rank, world_size=3, uneven=uneven)
        assert found.samples in (COUNT // 3, COUNT // 3 + 1)
        assert 0.999 < found.coverage <= 1
    if cls is LMDBIterLoader and uneven == "drop":
        assert found.from_previous is None  # another part of the file in each epoch


# --- the entropy


def test_entropy_is_in_bits():
    assert entropy(np.array([7, 7, 7])) == 0
    assert entropy(np.array([0, 5])) == 1
    assert entropy(np.array([0, 1, 2, 3] * 2)) == 2


def test_expected_entropy_by_hand():
    assert shuffled_entropy([5], [1, 2, 5]) == 0
    assert shuffled_entropy([1, 1], [2]) == pytest.approx(1)
    # Two of 0 0 1 1: of six pairs, four have two classes.
    assert shuffled_entropy([2, 2], [2]) == pytest.approx(4 / 6)
    assert shuffled_entropy([2, 0, 2], [2, 2, 1]) == pytest.approx(2 / 3 * 4 / 6)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any), st.data())
def test_expected_entropy_is_that_of_many_shuffles(counts, data):
    labels = np.repeat(np.arange(len(counts)), counts)
    size = data.draw(st.integers(1, len(labels)))
    rng = np.random.default_rng(0)
    drawn = [entropy(rng.permutation(labels)[:size]) for _ in range(300)]
    assert shuffled_entropy(counts, [size]) == pytest.approx(np.mean(drawn), abs=0.01 + 4 * np.std(drawn) / 300**0.5)


# --- as part of a loader


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_the_loaders_own_place_does_not_change(cls, tiled_lmdb):
    def labels_of(batches):
        return [labels.tolist() for _, labels in batches]

    with cls(tiled_lmdb / "train.lmdb", 4, seed=3) as loader, cls(tiled_lmdb / "train.lmdb", 4, seed=3) as other:
        expected = [labels_of(other), labels_of(other), labels_of(other)]
        running = iter(loader)
        head = [next(running)]
        state = loader.state_dict()
        report = shuffle_quality(loader, 4)
        assert loader.state_dict() == state
        assert labels_of(head + list(running)) == expected[0]
        assert labels_of(loader) == expected[1]
        assert shuffle_quality(loader, 4) == report
        loader.load_state_dict(loader.state_dict() | {"samples": 8})
        assert shuffle_quality(loader, 4) == report
        assert labels_of(loader) == expected[2][2:]


def test_it_looks_at_what_the_loader_yields(tiled_lmdb):
    with LMDBLoader(tiled_lmdb / "train.lmdb", 4) as loader:
        for epoch in range(3):
            chosen = [loader.labels[numbers].tolist() for numbers, _ in loader.pointers(epoch)]
            assert chosen == [labels.tolist() for _, labels in loader]


def test_labels_come_from_the_index_without_a_warning(tiled_lmdb, sorted_file, caplog):
    with caplog.at_level(logging.WARNING):
        found = quality(LMDBLoader, tiled_lmdb / "train.lmdb", batch_size=4)
        assert not caplog.records
        assert found.full_entropy == pytest.approx(shuffled_entropy([9, 8, 6], [4, 4, 4, 4, 4, 3]))
        quality(LMDBLoader, sorted_file)
    [warning] = caplog.records
    assert "has no index" in warning.getMessage()


def test_a_report_can_be_read():
    assert str(ShuffleQuality(50_000, 256, 2, 7.42, 7.75, 0.338, 0.319, 1.0)) == """\
50,000 samples in batches of 256, 2 epochs
classes in a batch   7.42 bits, 95.7% of the 7.75 bits of a full shuffle
displacement         0.338 from the file, 0.319 from the epoch before (a full shuffle: 0.333)
coverage             100.00% of the samples come exactly once in an epoch"""


@pytest.mark.parametrize("epochs", [0, -1, 1.5])
def test_less_than_an_epoch_is_refused(epochs, tiled_lmdb):
    with pytest.raises(ValueError, match=f"epochs must be an integer of at least 1, not {epochs}"):
        quality(LMDBLoader, tiled_lmdb / "train.lmdb", epochs=epochs)
