"""The record format: golden bytes, what is read of other writers, and what is refused."""
import os
import pickle
import struct

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorpack.utils.serialize import MsgpackSerializer, PickleSerializer

from dataflows.errors import RecordError
from dataflows.storage.record import pack, unpack_keys, view
from dataflows.tensorpack import DataFlow  # noqa: F401  (imports tensorpack without its output)
from helpers.limits import limited_memory
from helpers.photos import encode_jpeg, make_photo

SMALL = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
LARGE = np.arange(67_500, dtype=np.uint32).astype(np.uint8).reshape(150, 150, 3)  # more than 65,535 bytes
JPEG = encode_jpeg(make_photo(30, 40, seed=0))


def as_array(value):
    return np.frombuffer(bytes(value), np.uint8)


def as_msgpack(datapoint):
    return as_array(msgpack.packb(datapoint, default=msgpack_numpy.encode, use_bin_type=True))


def as_pickle(datapoint):
    return as_array(pickle.dumps(datapoint, -1))


WRITERS = pytest.mark.parametrize("written", [as_msgpack, as_pickle])


# What we write. These bytes are in files that exist: change them only together with a way to read the old ones.

ARRAY = "85 c4026e64 c3 c40474797065 a37c7531 c4046b696e64 c400 c4057368617065"  # nd: true, type: |u1, kind: "", shape:
DATA = "c40464617461"


@pytest.mark.parametrize("datapoint, header, trailer", [
    ([b"\xff" * 3, 5], "92 c403", "05"),
    ([b"\xff" * 255, 0], "92 c4ff", "00"),
    ([b"\xff" * 256, 127], "92 c50100", "7f"),
    ([b"\xff" * 65_535, 128], "92 c5ffff", "cc80"),
    ([b"\xff" * 65_536, 999], "92 c600010000", "cd03e7"),
    ([b"\xff" * 70_000, 65_536], "92 c600011170", "ce00010000"),
    ([b"\xff", 2**32], "92 c401", "cf0000000100000000"),
    ([b"\xff", -1], "92 c401", "ff"),
    ([b"\xff", -33], "92 c401", "d0df"),
    ([np.full((1, 2, 3), 255, np.uint8), 5], f"92 {ARRAY} 93010203 {DATA} c406", "05"),
    ([np.full((10, 20, 3), 255, np.uint8), 999], f"92 {ARRAY} 930a1403 {DATA} c50258", "cd03e7"),
    ([np.full((150, 200, 3), 255, np.uint8), 0], f"92 {ARRAY} 93cc96ccc803 {DATA} c600015f90", "00"),
    ([np.full((500, 375, 3), 255, np.uint8), 1], f"92 {ARRAY} 93cd01f4cd017703 {DATA} c600089544", "01"),
])
def test_the_bytes_of_a_record_are_fixed(datapoint, header, trailer):
    payload = len(datapoint[0]) if isinstance(datapoint[0], bytes) else datapoint[0].size
    assert pack(datapoint) == bytes.fromhex(header) + b"\xff" * payload + bytes.fromhex(trailer)


def test_rows_are_stored_in_order_whatever_the_memory_order():
    expected = pack([SMALL, 1])
    assert expected.endswith(bytes(range(24)) + b"\x01")
    assert pack([np.asfortranarray(SMALL), 1]) == expected
    assert pack([SMALL[:, ::-1][:, ::-1], 1]) == expected


labels = st.integers(-2**63, 2**63 - 1)
pixels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@given(st.binary(min_size=1, max_size=300), labels)
def test_encoded_images_survive_the_round_trip(image, label):
    value = pack([image, label])
    found, found_label = view(as_array(value))
    assert (found.tobytes(), found.ndim, found_label, type(found_label)) == (image, 1, label, int)
    assert MsgpackSerializer.loads(value) == [image, label]


@given(pixels, labels)
def test_pixels_survive_the_round_trip(image, label):
    value = pack([image, label])
    found, found_label = view(as_array(value))
    assert (found == image).all() and found.shape == image.shape and found.dtype == np.uint8 and found_label == label
    stock, stock_label = MsgpackSerializer.loads(value)
    assert (stock == image).all() and stock.shape == image.shape and stock_label == label


@pytest.mark.parametrize("label", [np.int64(7), np.uint8(7), np.array(7)])
def test_any_integer_is_packed_as_a_plain_one(label):
    assert pack([b"x", label]) == pack([b"x", 7])


@pytest.mark.parametrize("image", [b"", "text", None, [1, 2], bytearray(b"x"), SMALL[:, :, 0], SMALL[:0],
                                   SMALL[:, :, :2],
                                   SMALL.astype(np.int64), SMALL[..., None]])
def test_images_of_another_kind_are_not_written(image):
    with pytest.raises(RecordError, match="must be"):
        pack([image, 0])


@pytest.mark.parametrize("label", ["7", 7.0, None, np.array([1, 2]), 2**64, -2**63 - 1])
def test_labels_of_another_kind_are_not_written(label):
    with pytest.raises(RecordError, match="label"):
        pack([b"x", label])


@pytest.mark.parametrize("datapoint", [[b"x"], [b"x", 1, 2], []])
def test_datapoints_of_another_length_are_not_written(datapoint):
    with pytest.raises(RecordError):
        pack(datapoint)


# Views.

@pytest.mark.parametrize("image", [JPEG, SMALL, LARGE])
def test_a_msgpack_payload_is_viewed_in_place_and_read_only(image):
    value = as_array(pack([image, 3]))
    found, _ = view(value)
    assert np.shares_memory(found, value) and not found.flags.writeable


@pytest.mark.parametrize("layout, channels", [("HWC", "BGR"), ("CHW", "RGB"), ("CHW", "BGR")])
def test_options_do_not_copy_either(layout, channels):
    stored = LARGE if layout == "HWC" else np.ascontiguousarray(LARGE.transpose(2, 0, 1))
    value = as_msgpack([stored, 3])
    found, _ = view(value, array_layout=layout, array_channels=channels)
    assert np.shares_memory(found, value)
    assert (found == (LARGE[:, :, ::-1] if channels == "BGR" else LARGE)).all()


@WRITERS
@pytest.mark.parametrize("image", [JPEG, SMALL, np.frombuffer(JPEG, np.uint8)])
def test_images_are_read_only(written, image):
    found, _ = view(written([image, 3]))
    assert not found.flags.writeable


# Other writers.

@WRITERS
@pytest.mark.parametrize("container", [list, tuple])
@pytest.mark.parametrize("image", [JPEG, np.frombuffer(JPEG, np.uint8), SMALL, LARGE],
                         ids=["bytes", "1-D", "small", "large"])
@pytest.mark.parametrize("label", [7, np.int32(7), np.int64(7), np.uint8(7), np.array(7), np.array([7]),
                                   np.array([[7]])])
def test_forms_of_other_writers(written, container, image, label):
    found, found_label = view(written(container((image, label))))
    expected = image if isinstance(image, np.ndarray) else np.frombuffer(image, np.uint8)
    assert found.shape == expected.shape and (found == expected).all()
    assert found_label == 7 and type(found_label) is int


@pytest.mark.parametrize("serializer", [MsgpackSerializer, PickleSerializer])
@pytest.mark.parametrize("image", [JPEG, LARGE], ids=["bytes", "pixels"])
def test_tensorpacks_own_serializers(serializer, image):
    found, label = view(as_array(serializer.dumps([image, np.int64(9)])))
    assert found.tobytes() == (image if isinstance(image, bytes) else image.tobytes()) and label == 9


@WRITERS
@pytest.mark.parametrize("rows", [SMALL, LARGE], ids=["small", "large"])
def test_array_layouts(written, rows):
    def read(array, **options):
        return view(written([array, 0]), **options)[0]

    planes = rows.transpose(2, 0, 1)
    gray = rows[:, :, 0].copy()
    assert (read(planes.copy(), array_layout="CHW") == rows).all()
    assert (read(planes, array_layout="CHW") == rows).all()  # a view, as a transform of the writer may leave it
    assert (read(np.asfortranarray(rows)) == rows).all()
    assert (read(rows[:, :, ::-1], array_channels="BGR") == rows).all()
    assert (read(planes[::-1].copy(), array_layout="CHW", array_channels="BGR") == rows).all()
    for one_channel, layout in ((gray, "HWC"), (gray, "CHW"), (gray[:, :, None], "HWC"), (gray[None], "CHW")):
        assert (read(one_channel, array_layout=layout) == gray[:, :, None]).all()
        assert read(one_channel, array_layout=layout).shape == rows.shape


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_options_leave_encoded_images_alone(layout):
    assert view(as_array(pack([JPEG, 1])), array_layout=layout, array_channels="BGR")[0].tobytes() == JPEG


def test_planes_read_as_rows_name_the_remedy():
    with pytest.raises(RecordError, match="array_layout='CHW'"):
        view(as_msgpack([SMALL.transpose(2, 0, 1).copy(), 0]))


# What is refused, whoever wrote it.

@WRITERS
@pytest.mark.parametrize("datapoint", [[JPEG], [JPEG, 1, 2], [], 5, JPEG, np.int64(3), np.float64(3), SMALL, None])
def test_a_record_is_a_pair(written, datapoint):
    with pytest.raises(RecordError):
        view(written(datapoint))


@WRITERS
@pytest.mark.parametrize("image", [None, 5, 1.5, [1, 2], True, np.float64(1), np.uint8(1), np.array(1.0),
                                   SMALL.astype(float),
                                   SMALL.astype(np.int8), SMALL == 3])
def test_an_image_is_bytes_or_uint8(written, image):
    with pytest.raises(RecordError, match="an image must be|pixels must have"):
        view(written([image, 0]))


@WRITERS
@pytest.mark.parametrize("image", [b"", SMALL[:0], np.empty(0, np.uint8)])
def test_an_image_is_not_empty(written, image):
    with pytest.raises(RecordError, match="must not be empty|damaged"):
        view(written([image, 0]))


@WRITERS
@pytest.mark.parametrize("image", [SMALL[:, :, :2].copy(), SMALL[None], SMALL.reshape(2, 2, 2, 3)])
def test_pixels_have_rows_columns_and_channels(written, image):
    with pytest.raises(RecordError, match=r"pixels must have shape \(H, W\)"):
        view(written([image, 0]))


@WRITERS
@pytest.mark.parametrize("image", [JPEG, LARGE], ids=["bytes", "pixels"])
@pytest.mark.parametrize("label", [None, 1.0, True, "7", b"7", [7], np.float32(7), np.array([1, 2]), np.bool_(True),
                                   np.array([], np.int64), 2**63])
def test_a_label_is_an_integer(written, image, label):
    with pytest.raises(RecordError, match="a label must be an integer"):
        view(written([image, label]))


def test_an_empty_value_and_bytes_after_the_value():
    with pytest.raises(RecordError, match="the value is empty"):
        view(as_array(b""))
    for image in (JPEG, LARGE):
        with pytest.raises(RecordError, match="2 bytes follow"):
            view(as_array(pack([image, 1]) + b"\0\0"))


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_object_arrays_are_refused_and_never_unpickled(tmp_path):
    objects = np.array([Touch(tmp_path / "msgpack")], object)
    plain = {b"nd": True, b"type": "|u1", b"kind": b"O", b"shape": [3], b"data": pickle.dumps(Touch(tmp_path / "kind"))}
    for value in (as_msgpack([objects, 1]), as_msgpack([plain, 1]), as_msgpack([JPEG, objects]),
                  as_pickle([objects, 1]), as_pickle([Touch(tmp_path / "pickle"), 1])):
        with pytest.raises(RecordError):
            view(value)
        with pytest.raises(RecordError):
            unpack_keys(value)
    assert not list(tmp_path.iterdir())


def array_map(**changes):
    fields = {b"nd": True, b"type": "|u1", b"kind": b"", b"shape": [1, 1, 3], b"data": b"abc"} | {
        name.encode(): value for name, value in changes.items()}
    return {name: value for name, value in fields.items() if value is not ...}


SCALAR = array_map(nd=False, shape=..., data=b"x")


@pytest.mark.parametrize("image", [
    array_map(shape=[1] * 65, data=b"x"), array_map(shape=[2**62, 2**62, 0], data=b""),
    array_map(shape=[2**64 - 1, 0], data=b""),
    array_map(shape=[True, 1, 3]), array_map(shape=[1, 1, 3.0]), array_map(shape=[-1, -1, 3]),
    array_map(shape=[1, 1, 4]),
    array_map(shape=3), array_map(shape=b"\3"), array_map(shape=None), array_map(shape=...), array_map(data=...),
    array_map(data=3), array_map(data=[1, 2, 3]), array_map(data=SCALAR), array_map(type=SCALAR), array_map(type=...),
    array_map(type="|O"), array_map(type="<u7"), array_map(type=[["a", "|u1"]]), array_map(type=3), array_map(nd=...),
    {}, {"image": b"x"}, {b"complex": True, b"data": "1j"}, {1: 2}, msgpack.ExtType(1, b"x"), [[[[[1]]]]],
])
def test_malformed_arrays(image):
    with pytest.raises(RecordError):
        view(as_array(msgpack.packb([image, 1], use_bin_type=True)))
    with pytest.raises(RecordError):
        view(as_array(msgpack.packb(image, use_bin_type=True)))


def test_an_array_as_the_name_of_a_field():
    with pytest.raises(RecordError):
        view(as_array(b"\x92\x81" + msgpack.packb(SCALAR, use_bin_type=True) + b"\x01\x01"))


@pytest.mark.parametrize("head", [
    "92", "93", "9285", "dcffff", "ddffffffff", "deffff", "dfffffffff", "c6ffffffff", "92c6ffffffff", "c1", "92c7",
    "80", "8000",
    "800595", "8004", f"92{ARRAY}93010203{DATA}", f"92{ARRAY}93010203{DATA}c6000000",
    f"92{ARRAY}93010203{DATA}c6ffffffff",
    f"92{ARRAY}93010203{DATA}c600000006{'00' * 6}", f"92{ARRAY}93cf{'ff' * 8}cf{'ff' * 8}cf{'ff' * 8}{DATA}c600000006",
])
def test_sizes_that_lie(head):
    with pytest.raises(RecordError):
        view(as_array(bytes.fromhex(head)))


VALID = [bytes(written([image, label])) for written in (as_msgpack, as_pickle)
         for image in (JPEG[:40], SMALL, SMALL[:, :, 0])
         for label in (300, np.int64(3))] + [pack([LARGE, 5])]


def refuses_or_reads(value):
    try:
        image, label = view(as_array(value))
    except RecordError:
        return
    assert image.dtype == np.uint8 and image.size and image.ndim in (1, 3) and type(label) is int


@pytest.mark.parametrize("value", VALID, ids=range(len(VALID)))
def test_a_truncated_record_is_refused(value):
    for length in {*range(min(len(value), 300)), len(value) - 1}:
        with pytest.raises(RecordError):
            view(as_array(value[:length]))


@given(st.data())
def test_a_damaged_record_is_refused_or_read(data):
    value = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, min(len(value), 260) - 1))] = data.draw(st.integers(0, 255))
    with limited_memory():
        refuses_or_reads(value)


number = st.integers(0, 4)
odd = st.sampled_from([None, True, -1, 2**62, 1.5, "", "data", b"", b"abc", [], [1, 1, 3], SCALAR, {}])
array_maps = st.fixed_dictionaries({}, optional={
    b"nd": st.booleans() | odd, b"type": st.sampled_from(["|u1", "<i8", ">f4", "|b1", "|O"]) | odd, b"kind": odd,
    b"shape": st.lists(number | odd, max_size=3) | odd, b"data": st.integers(0, 24).map(bytes) | odd})
datapoints = st.lists(array_maps | number | odd, max_size=3) | array_maps


@given(st.binary(max_size=40) | datapoints.map(lambda datapoint: msgpack.packb(datapoint, use_bin_type=True)))
def test_anything_else_is_refused_or_read(value):
    refuses_or_reads(value)
    try:
        assert all(type(key) is bytes for key in unpack_keys(as_array(value)))
    except RecordError:
        pass


# __keys__

@pytest.mark.parametrize("count", [0, 1, 9, 15, 16, 65_535, 65_536, 100_000])
@WRITERS
def test_keys_in_both_formats(written, count):
    keys = [b"%08d" % i for i in range(count)]
    found = unpack_keys(written(keys))
    assert found == keys and all(type(key) is bytes for key in found[:20])


@WRITERS
def test_keys_of_any_length_as_bytes_or_text(written):
    assert unpack_keys(written(["n01/a.jpg", b"b", "é"])) == [b"n01/a.jpg", b"b", "é".encode()]
    assert unpack_keys(written([b"k" * (i % 9) for i in range(70_000)]))[:3] == [b"", b"k", b"kk"]


@WRITERS
@pytest.mark.parametrize("keys", [None, 5, b"00000000", {"a": 1}, [1, 2], [b"a", None], np.int64(3), [np.int64(3)],
                                  [[b"a"]]])
def test_keys_of_another_kind_are_refused(written, keys):
    with pytest.raises(RecordError):
        unpack_keys(written(keys))


@pytest.mark.parametrize("value", [b"", b"\x80", b"\xdd\0\0\0\1", b"\xdd" +
                                   struct.pack(">I", 2) + b"\xc4\x0800000000",
                                   b"\x80\x02]X\x03\0\0\0\xed\xa0\x80a."])
def test_damaged_keys_are_refused(value):
    with pytest.raises(RecordError):
        unpack_keys(as_array(value))
