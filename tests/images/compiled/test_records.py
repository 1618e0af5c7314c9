"""Where image and label are in a record: what storage/record.py's view says, wherever the kernel says anything."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.errors import RecordError
from dataflows.images.compiled.records import ENCODED, NO_PLACE, PIXELS, place_of
from dataflows.storage.record import pack, view


def place(value):
    return place_of(np.frombuffer(value, np.uint8).copy())


def agrees(value):
    """Whether something was found, after comparing it with what `view` finds."""
    found = place(value)
    if found.kind == NO_PLACE.kind:
        return False
    try:
        image, label = view(np.frombuffer(value, np.uint8))
    except RecordError:  # of the label, or of what is behind it
        assert not found.labelled
        return True
    assert value[found.start:found.end] == image.tobytes()
    assert found.kind == (ENCODED if image.ndim == 1 else PIXELS)
    if found.kind == PIXELS:
        assert (found.height, found.width, 3) == image.shape
    if found.labelled:
        assert found.label == label
    return True


@pytest.mark.parametrize("size", [1, 255, 256, 65535, 65536, 70000])
@pytest.mark.parametrize("label", [0, 200, 70000, 2**62, -5, -2**40])
def test_encoded_images_of_any_size(size, label):
    assert agrees(pack([bytes(size), label])) and place(pack([bytes(size), label])).labelled


@pytest.mark.parametrize("shape", [(1, 1), (9, 9), (10, 9), (130, 140), (200, 130), (3, 70000)])
def test_pixels_of_any_size(shape):
    value = pack([np.arange(3 * shape[0] * shape[1], dtype=np.uint8).reshape(*shape, 3), 9])
    assert agrees(value) and place(value)[3:] == (*shape, True, 9)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([[b"abc", 7], [b"x" * 300, 2**40], [np.zeros((4, 5, 3), np.uint8), -9],
                        [np.zeros((90, 90, 3), np.uint8), 70000], [b"abc", np.ones(3, np.float32)]]),
       st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 9))
def test_mutated_records_are_read_as_view_reads_them_or_not_at_all(datapoint, changes, cut):
    value = bytearray(pack(datapoint))
    for at, byte in changes:
        value[at % len(value) if at < 60 else -(at - 59) % len(value)] = byte
    agrees(bytes(value[:len(value) - cut]))


@pytest.mark.parametrize("value", [b"", b"\x92", pack([b"abc", 3])[:-1], b"\x93" + pack([b"abc", 3])[1:] + b"\1",
                                   pack([b"abcdef", 3]).replace(b"\xc4\6", b"\xc4\0"), b"\x80\4N.aaaaaaaaaaa"])
def test_what_is_no_record_is_left_to_view(value):
    assert place(value) == NO_PLACE
