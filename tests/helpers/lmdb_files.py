"""LMDBs as other programs write them, and indexes that are changed."""
import dataclasses
import pickle
import shutil

import lmdb
import msgpack
import msgpack_numpy

from dataflows.storage.index import index_path, load_index, write_index


def write_lmdb(path, records, pack=pickle.dumps):
    """An LMDB as other programs write them: without an index."""
    with lmdb.open(str(path), subdir=False, map_size=2**26, lock=False) as env, env.begin(write=True) as txn:
        keys = [b"%08d" % number for number in range(len(records))]
        for key, record in zip(keys, records):
            txn.put(key, pack(record))
        txn.put(b"__keys__", pack(keys))
    return path


def pack_msgpack(value):
    return msgpack.packb(value, default=msgpack_numpy.encode, use_bin_type=True)


def change_meta(path, **parts):
    index = load_index(str(path), str(path))
    save_index(dataclasses.replace(index, meta=dataclasses.replace(index.meta, **parts)), path)


def save_index(index, path):
    shutil.move(write_index(index, str(path)), index_path(str(path)))


def write_raw(path, entries):
    """An LMDB of these keys and values, and nothing else."""
    with lmdb.open(str(path), subdir=False, lock=False, map_size=2**24) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                transaction.put(key, value)
