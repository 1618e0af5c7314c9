"""Samples of a program: what is taken for one, in which order, and what is said of one that is none."""
import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.errors import RecordError
from dataflows.sources.opening import open_source
from dataflows.sources.samples import Samples
from dataflows.tensorpack import DataFlow

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


class Rows:
    """A map-style dataset, as torch has it."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        row = self.rows[number]
        if isinstance(row, Exception):
            raise row
        return row


class Flow(DataFlow):
    """A DataFlow that must be reset once, and says so otherwise; of unknown length unless `size` is given."""

    def __init__(self, rows, size=None):
        self.rows, self.size, self.resets = rows, size, 0

    def reset_state(self):
        self.resets += 1

    def __len__(self):
        if self.size is None:
            raise NotImplementedError
        return self.size

    def __iter__(self):
        assert self.resets == 1
        return iter(self.rows)


def loaded(samples):
    return [samples.load(pointer) for pointer in samples]


@pytest.mark.parametrize("image", [b"abc", bytearray(b"abc"), memoryview(b"abc"), np.frombuffer(b"abc", np.uint8),
                                   np.frombuffer(b"a-b-c-", np.uint8)[::2]], ids=lambda image: type(image).__name__)
@pytest.mark.parametrize("label", [5, np.int64(5), np.uint8(5), np.array(5), np.array([5]), np.array([[5]], np.int32)])
def test_encoded_images_and_integers_in_all_their_forms(image, label):
    [(content, number)] = loaded(Samples([[image, label]]))
    assert type(number) is int and number == 5
    if bytes(image) == b"abc":
        assert content == b"abc" and type(content) is bytes
    assert type(content) is bytes and len(content) == 3


@pytest.mark.parametrize("image, expected", [
    (PIXELS, PIXELS), (PIXELS[:, ::-1], PIXELS[:, ::-1]), (np.asfortranarray(PIXELS), PIXELS),
    (PIXELS[:, :, 0], PIXELS[:, :, 0]), (PIXELS[:, :, :1], PIXELS[:, :, 0])])
def test_pixels_of_any_strides(image, expected):
    [(pixels, _)] = loaded(Samples([(image, 0)]))
    assert np.array_equal(pixels, expected) and pixels.flags.c_contiguous and pixels.flags.owndata


def test_memory_that_the_source_uses_again_is_copied():
    def reusing():
        buffer, pixels = bytearray(1), np.zeros((2, 2, 3), np.uint8)
        for number in range(4):
            buffer[0] = number
            pixels[:] = number
            yield (memoryview(buffer), 0) if number % 2 else (pixels, 0)

    found = loaded(Samples(reusing()))
    assert [found[number][0] for number in (1, 3)] == [b"\x01", b"\x03"]
    assert [int(found[number][0].max()) for number in (0, 2)] == [0, 2]


BAD = [
    (b"an image", "sample 1: it is of type bytes, and it must be [image, label]"),
    ({"image": b"", "label": 1}, "sample 1: it is of type dict, and it must be [image, label]"),
    ([b"a"], "sample 1: it is of type list of 1, and it must be"), ((b"a", 1, "n", 2), "of type tuple of 4"),
    (("photo.jpg", 1), "its image is of type str, and an image must be encoded bytes"),
    ((PIXELS.astype(float), 1), "its image is an array of float64 of shape (2, 4, 3)"),
    ((PIXELS.transpose(2, 0, 1), 1), "of shape (3, 2, 4), and an image must be encoded bytes"),
    ((np.zeros((3, 9, 9), np.uint8), 1), "Give image.transpose(1, 2, 0)"),
    ((np.zeros((2, 2, 4), np.uint8), 1), "shape (2, 2, 4)"), ((np.zeros((0, 4, 3), np.uint8), 1), "shape (0, 4, 3)"),
    ((np.uint8(3), 1), "its image is 3"), ((b"a", -1), "its label is -1, and must be a class number, an integer"),
    ((b"a", 1_000_000), "from 0 to 999,999"), ((b"a", True), "its label is True"), ((b"a", 1.0), "its label is 1.0"),
    ((b"a", "cat"), "its label is of type str"), ((b"a", None), "NoneType"), ((b"a", np.bool_(1)), "its label is"),
    ((b"a", 1, ""), "its name must be a text"), ((b"a", 1, b"name"), "its name must be"),
    ((b"a", 1, "a\0b"), "its name must be"), ((b"a", 1, "\ud800"), "its name must be"), ((b"a", 1, None), "its name")]


@pytest.mark.parametrize("bad, words", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("kind", [list, iter, Rows])
def test_a_sample_that_breaks_a_rule_is_told_when_it_is_loaded(bad, words, kind):
    samples = Samples(kind([(b"a", 0), bad, (b"c", 2)]))
    first, second, third = samples
    assert samples.load(first) == (b"a", 0) and samples.load(third) == (b"c", 2)
    with pytest.raises(RecordError) as error:
        samples.load(second)
    assert words in f"{samples.place(second)}: {error.value}"


def test_names_are_given_or_numbers():
    samples = Samples([(b"a", 0), (b"b", 0, "cat/1.jpg"), [b"c", 0, "ä"]])
    assert [pointer[0] for pointer in samples] == ["00000000", "cat/1.jpg", "ä"]
    assert [samples.place(pointer) for pointer in samples] == ["sample 0", "sample 1 (cat/1.jpg)", "sample 2 (ä)"]


@given(st.integers(0, 40), st.integers(0, 2**40))
def test_what_has_an_index_is_permuted_as_files_are(count, seed):
    expected = np.random.default_rng(seed).permutation(count).tolist()
    for kind in (list, Rows):
        samples = Samples(kind([(b"%d" % number, number) for number in range(count)]), seed=seed)
        assert [label for _, label in loaded(samples)] == expected and len(samples) == count
    assert [samples.load(samples.pointers[i])[1] for i in range(count)] == expected


@pytest.mark.parametrize("make", [iter, Flow, lambda rows: Flow(rows, 3), lambda rows: (row for row in rows)])
def test_what_has_none_comes_in_its_own_order(make):
    rows = [(b"a", 2), (b"b", 0), (b"c", 1)]
    for shuffle in (None, False):
        samples = open_source(make(rows), "train", shuffle=shuffle, seed=3)
        assert samples.seed is None and samples.pointers is None and "in the order it gave them" in samples.layout
        assert [label for _, label in loaded(samples)] == [2, 0, 1]
    with pytest.raises(ValueError, match="cannot be permuted. Leave shuffle=True out"):
        open_source(make(rows), "train", shuffle=True)


def test_a_dataflow_is_reset_once_and_its_length_may_be_unknown():
    flow = Flow([(b"a", 0)])
    samples = Samples(flow)
    samples.reset_state()
    assert samples.count is None and flow.resets == 0
    assert loaded(samples) == loaded(samples) == [(b"a", 0)] and flow.resets == 1
    assert Samples(Flow([], 7)).count == 7 and Samples(iter([])).count is None
    with pytest.raises((TypeError, NotImplementedError)):
        len(samples)


@pytest.mark.parametrize("error, raised, words", [
    (KeyError("image"), RecordError, "the source raised KeyError for it: 'image'"),
    (ValueError("no"), RecordError, "the source raised ValueError for it: no"),
    (OSError(errno.EIO, "disk"), OSError, "disk"), (FileNotFoundError(errno.ENOENT, "gone"), OSError, "gone")])
def test_what_an_item_raises_is_its_own(error, raised, words):
    samples = Samples(Rows([(b"a", 0), error, (b"c", 1)]))
    first, second, third = samples
    with pytest.raises(raised, match=words):
        samples.load(second)
    assert samples.load(third) == (b"c", 1)


def test_a_lack_of_memory_and_what_an_iterator_raises_end_the_iteration():
    with pytest.raises(MemoryError):
        list(Samples(Rows([MemoryError()])))

    def failing():
        yield b"a", 0
        raise KeyError("mine")

    found = []
    with pytest.raises(KeyError, match="mine"):
        for pointer in Samples(failing()):
            found.append(pointer)
    assert len(found) == 1


@pytest.mark.parametrize("source", [{}, b"bytes", bytearray(), 3, None, pytest.param(object(), id="object")], ids=repr)
def test_what_is_no_source(source):
    with pytest.raises(ValueError, match="the source must be a path, or an iterable of"):
        Samples(source)


def test_names_of_classes():
    samples = Samples([(b"a", 1), (b"b", 2)], classes=("cat", "dog"))
    assert samples.classes == samples.class_names == ["cat", "dog"]
    first, second = samples
    assert samples.load(first) == (b"a", 1)
    with pytest.raises(RecordError, match="its label is 2, .* from 0 to 1, for there are names of 2 classes"):
        samples.load(second)
    for wrong in (["a", "a"], "ab", [1, 2]):
        with pytest.raises(ValueError, match="classes must be distinct texts"):
            Samples([], classes=wrong)
    with pytest.raises(ValueError, match="Leave classes out"):
        open_source(".", "val", classes=["a"])
