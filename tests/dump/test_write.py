"""Saving through tensorpack's LMDBSerializer in a format of ours, and reading back."""
import logging
import os
import pickle
import subprocess
import sys
from zlib import crc32

import lmdb
import msgpack
import numpy as np
import pytest
from tensorpack.dataflow import serialize

from dataflows.dump import write
from dataflows.dump.verify import checksums
from dataflows.dump.write import Packed, PackedLMDBSerializer
from dataflows.storage.btree import locate
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow
from helpers.limits import limited_memory

VALUES = [bytes([i]) * size for i, size in enumerate((5_000, 10, 100, 70_000, 3_000, 2_000, 9))]


class Source(DataFlow):
    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        for value in self.values:
            yield Packed(value)
        if self.error:
            raise self.error


def saved(path, values):
    PackedLMDBSerializer.save(Source(values), str(path))
    return str(path)


def checked(path, values):
    nbytes, offsets = locate(path)
    assert nbytes.dtype == offsets.dtype == np.int64
    done = []
    expected = np.array([crc32(value) for value in values], np.uint32)
    bad, rest = checksums(path, nbytes, offsets, expected, num_threads=2, advance=done.append)
    assert sum(done) == os.path.getsize(path) and rest is not None
    return nbytes.tolist(), offsets.tolist(), bad


def test_packed_knows_its_checksum():
    assert Packed(b"abc").value == b"abc" and Packed(b"abc").crc32 == 0x352441C2


def test_values_are_stored_as_they_are_and_the_list_of_keys_as_msgpack(tmp_path):
    path = saved(tmp_path / "a.lmdb", VALUES)
    store = Store(path)
    assert [store.value(i).tobytes() for i in range(len(store))] == VALUES
    store.close()
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as environment, environment.begin() as transaction:
        keys = [b"%08d" % i for i in range(len(VALUES))]
        assert list(transaction.cursor().iternext(values=False)) == [*keys, b"__keys__"]
        assert transaction.get(b"__keys__") == msgpack.packb(keys, use_bin_type=True)


def test_nothing_else_is_left_in_the_folder(tmp_path, capfd):
    saved(tmp_path / "a.lmdb", VALUES)
    with pytest.raises(RuntimeError, match="from the source"):
        PackedLMDBSerializer.save(Source(VALUES, RuntimeError("from the source")), str(tmp_path / "b.lmdb"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.lmdb"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError()])
def test_tensorpack_is_left_as_it_was(tmp_path, error):
    def state():
        return serialize.dumps, serialize.get_tqdm, logging.getLogger("tensorpack").level

    before = state()
    if error:
        with pytest.raises(type(error)):
            PackedLMDBSerializer.save(Source(VALUES, error), str(tmp_path / "a.lmdb"))
    else:
        saved(tmp_path / "a.lmdb", VALUES)
    assert state() == before
    assert pickle.loads(serialize.dumps([b"x", 1])) == [b"x", 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError()])
def test_a_failure_closes_the_file_at_once(tmp_path, error):
    # The garbage collector may run in any thread, and LMDB's write lock must be released by the thread that took it:
    # otherwise the lock's unmapped memory stays in glibc's list of robust mutexes, and a later lock writes to it.
    with pytest.raises(type(error)) as info:
        PackedLMDBSerializer.save(Source(VALUES, error), str(tmp_path / "a.lmdb"))
    opened = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
              if os.path.exists(f"/proc/self/fd/{fd}")]
    assert info.value is error and not [path for path in opened if path.startswith(str(tmp_path))]
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) not in maps.read()


@pytest.fixture(params=[(2**26, 2**30), (1, 2**30), (20_000, 2**16), (2**26, 2**16)],
                ids=["one transaction", "one for each record", "a full map", "a map too small for the first"])
def transactions(request, monkeypatch):
    """Several sizes of transactions, and of the map that they fill."""
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", request.param[0])
    monkeypatch.setattr(write, "_MAP_SIZE_BYTES", request.param[1])


def test_any_number_of_transactions_and_any_map_give_the_same_records(tmp_path, transactions):
    path = saved(tmp_path / "a.lmdb", VALUES * 9)
    store = Store(path)
    assert [store.value(i).tobytes() for i in range(len(store))] == VALUES * 9


@pytest.mark.parametrize("values", [
    VALUES, VALUES[:1], VALUES[1:2], [b"x" * 10] * 5, [b"same" * 3000] * 5, [b"a" * 20, b"b" * 9000, b"c" * 20],
    [b"a" * 20, b"b" * 9000, b"a" * 20], [b"x"] * 500, [b"\0" * 5000, b"\0" * 5000, b"\0" * 10],
    [b"%d" % i * 700 for i in range(40)],
], ids=["mixed", "one large", "one small", "equal small", "equal large", "small ends", "equal small ends", "many",
        "zeros", "2 KB"])
def test_each_value_is_in_the_file_at_its_offset(tmp_path, values, transactions):
    path = saved(tmp_path / "a.lmdb", values)
    nbytes, offsets, bad = checked(path, values)
    assert bad == {}
    content = (tmp_path / "a.lmdb").read_bytes()
    assert nbytes == [len(value) for value in values]
    assert all(0 <= offset <= len(content) for offset in offsets)
    assert [content[offset:offset + size] for offset, size in zip(offsets, nbytes)] == values
    assert len(set(offsets)) == len(values)


def test_a_changed_byte_is_found(tmp_path):
    path = saved(tmp_path / "a.lmdb", VALUES)
    content = (tmp_path / "a.lmdb").read_bytes()
    position = content.rindex(VALUES[3]) + 50_000
    (tmp_path / "a.lmdb").write_bytes(content[:position] + b"\xff" + content[position + 1:])
    assert checked(path, VALUES)[2] == {3: "its bytes are not what was written"}


def test_a_lost_record_is_found(tmp_path):
    path = saved(tmp_path / "a.lmdb", VALUES)
    with lmdb.open(path, subdir=False, lock=False, map_size=2**30) as environment:
        with environment.begin(write=True) as transaction:
            transaction.delete(b"00000003")
    with pytest.raises(ValueError, match=r"a.lmdb is damaged: key 00000003 is missing, and another is in its place"):
        checked(path, VALUES)


def test_too_small_a_limit_on_address_space_is_not_the_disks_fault(tmp_path):
    with limited_memory(2**29), pytest.raises(OSError, match=r"a.lmdb could not be written: .*Cannot allocate memory. "
                                              r"liblmdb maps all .*ulimit -v\), if there is one$"):
        saved(tmp_path / "a.lmdb", VALUES)


def test_the_environment_variable_does_not_choose_the_format(tmp_path):
    code = ("import pickle, sys; from tensorpack.dataflow import DataFromList, serialize; "
            "from dataflows.dump.write import Packed, PackedLMDBSerializer; "
            "values = [Packed(value) for value in pickle.loads(open(sys.argv[2], 'rb').read())]; "
            "PackedLMDBSerializer.save(DataFromList(values, shuffle=False), sys.argv[1]); "
            "assert serialize.dumps([]).startswith(b'\\x80')")
    (tmp_path / "values").write_bytes(pickle.dumps(VALUES))
    environment = os.environ | {"TENSORPACK_SERIALIZE": "pickle", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "b.lmdb", tmp_path / "values"], env=environment, check=True,
                   timeout=60)
    ours, theirs = Store(saved(tmp_path / "a.lmdb", VALUES)), Store(tmp_path / "b.lmdb")
    assert len(ours) == len(theirs)
    assert all(ours.value(i).tobytes() == theirs.value(i).tobytes() for i in range(len(ours)))
