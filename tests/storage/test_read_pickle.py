"""The unpickler that admits plain arrays: what it reads, and that nothing else runs, whatever a file asks for."""
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.errors import UnsafePickle
from dataflows.storage.read_pickle import loads
from helpers.limits import limited_memory

PROTOCOLS = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@PROTOCOLS
@pytest.mark.parametrize("array", [
    PIXELS, PIXELS[0, 0], PIXELS.transpose(2, 0, 1), np.asfortranarray(PIXELS), PIXELS[:, :, ::-1], PIXELS[:, 1:3],
    np.array(5), np.arange(3, dtype=">i4"), np.array([1.5, np.inf]), np.array([True, False]),
    np.arange(4, dtype=np.float16), np.frombuffer(b"read-only", np.uint8),
])
def test_arrays_come_back_equal_and_read_only(array, protocol):
    found, = loads(pickle.dumps([array], protocol))
    assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()
    assert not found.flags.writeable


@PROTOCOLS
def test_plain_values_come_back_equal_and_tuples_as_lists(protocol):
    value = [b"bytes", "text", 5, -2**70, 1.5, None, True, [], [1, [2]]]
    assert loads(pickle.dumps(value, protocol)) == value
    assert loads(pickle.dumps(tuple(value), protocol)) == value


@PROTOCOLS
@pytest.mark.parametrize("number", [np.int64(5), np.uint8(5), np.float32(1.5), np.bool_(True),
                                    np.int32(-1).astype(">i4")])
def test_numbers_of_numpy(number, protocol):
    found = loads(pickle.dumps(number, protocol))
    assert found == number and found.dtype == number.dtype


def test_pickles_of_numpy_1():
    state = pickle.dumps([PIXELS, np.int64(7)], 2)
    assert b"numpy.core" in state or b"numpy._core" in state
    found, number = loads(state.replace(b"numpy._core", b"numpy.core"))
    assert (found == PIXELS).all() and number == 7


# What a file may not do.

class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@PROTOCOLS
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, open, getattr, setattr, __import__, np.load,
                                      np.save, np.fromfile, np.memmap, bytearray, pickle.loads, type, object],
                         ids=lambda f: f.__name__)
def test_no_function_is_called(function, protocol, tmp_path):
    target = tmp_path / "made"
    argument = f"mkdir {target}" if function is os.system else f"__import__('os').mkdir({str(target)!r})" \
        if function in (eval, exec) else str(target)
    for value in (Call(function, argument), [b"x", Call(function, argument)], {"a": (Call(function, argument),)}):
        with pytest.raises(UnsafePickle, match="it names .*only plain numpy arrays are read"):
            loads(pickle.dumps(value, protocol))
    assert not target.exists()


class Plain:
    pass


@PROTOCOLS
@pytest.mark.parametrize("value", [Plain(), Plain, np.ma.array([1]), np.random.default_rng(0), np.matrix, 1j,
                                   range(3), np.dtype], ids=lambda value: str(type(value)))
def test_no_other_class_is_made(value, protocol):
    if value is np.dtype:
        value = [Call(np.dtype, "O")]
    with pytest.raises(UnsafePickle):
        loads(pickle.dumps([value], protocol))


@PROTOCOLS
@pytest.mark.parametrize("array", [np.array([1, "a", None], object), np.array(["text"]), np.array([b"text"]),
                                   np.array([1j]),
                                   np.array(["2020-01-01"], "M8[D]"), np.zeros(2, "i4,f8"), np.zeros(2, "V3")])
def test_only_arrays_of_numbers(array, protocol):
    with pytest.raises(UnsafePickle):
        loads(pickle.dumps(array, protocol))


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module, attribute):
    return text(module) + text(attribute) + b"\x93"


def blob(data):
    return b"C" + bytes([len(data)]) + data


def integer(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


U1 = name("numpy", "dtype") + text("u1") + b"\x85R"
EMPTY = name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + integer(
    0) + b"\x85" + blob(b"b") + b"\x87R"


def built(shape, data, dtype=U1):
    return EMPTY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def from_buffer(shape, data, dtype=U1):
    return name("numpy.core.numeric", "_frombuffer") + b"(" + data + dtype + shape + text("C") + b"tR"


def test_the_pickles_assembled_here_are_valid_when_their_parts_are():
    for make in (built, from_buffer):
        assert loads(b"\x80\x04" + make(integer(3) + b"\x85", blob(b"abc")) + b".").tolist() == [97, 98, 99]


@pytest.mark.parametrize("make", [built, from_buffer])
@pytest.mark.parametrize("shape, data", [
    (integer(4) + b"\x85", blob(b"abc")), (integer(2**40) + b"\x85", blob(b"abc")),
    (integer(-3) + b"\x85", blob(b"abc")),
    (integer(2**62) + integer(4) + b"\x86", blob(b"")),
    (b"(" + integer(1) * 65 + b"t", blob(b"a")), (text("abc"), blob(b"abc")), (b"N", blob(b"abc")),
    (b"N\x85", blob(b"")),
    (integer(3) + b"\x85", text("abc")), (integer(3) + b"\x85", b"]"), (integer(0) + b"\x85", b"N"),
    (integer(3) + b"\x85", U1),
])
def test_sizes_that_lie(make, shape, data):
    with pytest.raises(UnsafePickle):
        loads(b"\x80\x04" + make(shape, data) + b".")


@pytest.mark.parametrize("code", ["O", "O8", "object", "V4", "u1,O", "(3,)O", "M8[s]", "U3", "S3", "c16",
                                  "no such type"])
def test_data_types_that_are_no_numbers(code):
    dtype = name("numpy", "dtype") + text(code) + b"\x85R"
    for make in (built, from_buffer):
        with pytest.raises(UnsafePickle):
            loads(b"\x80\x04" + make(integer(1) + b"\x85", blob(b"12345678"), dtype) + b".")


SETSTATE = b"}" + text("__setstate__") + name("numpy", "ndarray") + b"s"


@pytest.mark.parametrize("code", [
    name("numpy", "ndarray") + SETSTATE + b"b", EMPTY + SETSTATE + b"b", U1 + SETSTATE + b"b", EMPTY + b"Nb",
    U1 + b"Nb",
    name("numpy", "ndarray") + b"N}" + text("__class__") + name("numpy", "dtype") + b"s\x86b",
    name("numpy", "ndarray") + b"N}" + text("_stand_in") + text("x") + b"s\x86b)R",
    name("numpy", "ndarray") + b")\x81", name("numpy", "ndarray") + b")}\x92", U1 + b")R", EMPTY + b")R",
    EMPTY + b"K\x01a",
    EMPTY + b"K\x01K\x02s", name("numpy", "ndarray") + name("numpy", "ndarray") + b"0(" + b"K\x01K\x02u",
    name("_codecs", "encode") + text("abc") + text("rot13") + b"\x86R",
    name("_codecs", "encode") + text("abc") + b"\x85R",
    name("numpy", "ndarray.tofile"), name("numpy", "core.multiarray.fromfile"), name("numpy.core", "multiarray"),
    name("numpy.ndarray", "__class__"), name("", "ndarray"), name("builtins", "getattr"), b"cos\nsystem\n",
    b"(ios\nsystem\n",
    b"(" + text("true") + b"ios\nsystem\n", b"P1\n", b"K\x01Q", b"\x82\x01", b"\x83\x01\x00", b"\x97", b"]\x97a",
    b"h\x07",
], ids=lambda code: code[:24].hex() + str(len(code)))
def test_tricks_of_the_machine_end_in_an_error(code):
    with pytest.raises(UnsafePickle):
        loads(b"\x80\x05" + code + b".")


def test_what_one_pickle_sets_does_not_reach_the_next():
    hostile = name("numpy", "ndarray") + b"N}" + text("_stand_in") + name("numpy", "dtype") + b"s\x86b"
    loads(b"\x80\x04" + hostile + b".")
    assert (loads(pickle.dumps(PIXELS)) == PIXELS).all()


def test_shared_and_endless_nesting_is_refused():
    doubled = []
    for _ in range(18):
        doubled = [doubled, doubled]  # a hundred bytes of pickle; copied without sharing, 2**18 lists
    endless = []
    endless.append(endless)
    for value in (doubled, endless):
        with pytest.raises(UnsafePickle):
            loads(pickle.dumps(value))


@pytest.mark.parametrize("code", [b"Nr" + struct.pack("<I", 2**22), b"Np%d\n" % 2**22, b"(" * 100_000,
                                  b"N" + b"\x85" * 100_000],
                         ids=["LONG_BINPUT", "PUT", "MARK", "TUPLE1"])
def test_a_small_pickle_takes_little_memory(code):
    tracemalloc.start()
    try:
        loads(b"\x80\x02" + code + b".")
    except UnsafePickle:
        pass
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 16 * 2**20


VALID = [pickle.dumps(value, protocol) for value in ([PIXELS, np.int64(3)], (b"bytes", 3),
                                                             [PIXELS.transpose(2, 0, 1), 3])
         for protocol in (0, 2, 4, 5)]


@pytest.mark.parametrize("data", [b"", b"\x80", b".", b"\x80\xff.", b"hello", b"\x80\x05\x95",
                                  b"\x80\x05\x95" + b"\xff" * 8])
def test_damaged_pickles(data):
    with pytest.raises(UnsafePickle):
        loads(data)


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_every_truncation_is_refused(data):
    for length in range(len(data)):
        with pytest.raises(UnsafePickle):
            loads(data[:length])


@given(st.data())
def test_a_changed_pickle_is_refused_or_read(data):
    value = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    with limited_memory():
        try:
            loads(bytes(value))
        except UnsafePickle as error:
            assert str(error)
