"""What a data set of millions of records costs a process: opening it, its memory, first batches, and a restart.

    python -m benchmarks.many_records DIR --records 14000000 --shards 140

writes a data set of that many records of one pixel each into DIR, unless it is there, and prints one line of JSON for
each measurement, each of which is made in a process of its own. Memory is what the process has for itself (Anonymous
and Shmem in smaps_rollup, MB of 10**6 bytes), beyond what it had before: maps of files are shared by all processes.
"""
import argparse
import json
import multiprocessing
import os
import time
from typing import Any, Callable, Iterator

import numpy as np

from dataflows.arguments import ArgumentParser, whole_number
from dataflows.dump.write import Packed, PackedLMDBSerializer
from dataflows.images.transforms import CenterCrop
from dataflows.storage.btree import locate
from dataflows.storage.index import Index, index_path, write_index
from dataflows.storage.index_meta import IndexMeta
from dataflows.storage.record import pack
from dataflows.storage.shards.files import shard_name
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

_CLASSES = 1000
_BATCH = 256
_DONE = 0.9  # of the epoch, before a restart


class _Records(DataFlow):  # type: ignore[misc]
    """The records from number `start` to before `stop`."""

    def __init__(self, start: int, stop: int) -> None:
        self._range = range(start, stop)
        self.checksums = np.zeros(len(self._range), np.uint32)

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[Packed]:
        pixel = np.zeros((1, 1, 3), np.uint8)
        values = [Packed(pack([pixel, label])) for label in range(_CLASSES)]
        for place, number in enumerate(self._range):
            packed = values[number % _CLASSES]
            self.checksums[place] = packed.crc32
            yield packed


def write(folder: str, records: int, shards: int) -> str:
    """Writes what is missing of the data set; returns a pattern that names all of its files."""
    os.makedirs(folder, exist_ok=True)
    for shard in range(shards):
        path = os.path.join(folder, shard_name("train", shard, shards))
        if os.path.exists(index_path(path)):
            continue
        if os.path.exists(path):
            os.unlink(path)
        start, stop = records * shard // shards, records * (shard + 1) // shards
        content = _Records(start, stop)
        PackedLMDBSerializer.save(content, path)
        os.replace(write_index(_index(path, start, content.checksums), path), index_path(path))
    return os.path.join(folder, f"train-*-of-{shards:05d}.lmdb")


def _index(path: str, start: int, checksums: np.ndarray) -> Index:
    nbytes, offsets = locate(path)
    numbers = np.arange(start, start + len(checksums))
    classes = [f"n{label:08d}" for label in range(_CLASSES)]
    names = np.array([f"n{n % _CLASSES:08d}/n{n % _CLASSES:08d}_{n}.JPEG".encode() for n in numbers.tolist()])
    meta = IndexMeta(format="uint8", split="train", classes=classes, class_names=classes,
                     file_size=os.path.getsize(path), rest_crc32=0)
    ones = np.ones(len(checksums), np.int32)
    return Index(label=numbers % _CLASSES, height=ones, width=ones, nbytes=nbytes, offset=offsets, crc32=checksums,
                 name=names, meta=meta)


def _own_memory() -> float:
    with open("/proc/self/smaps_rollup") as file:
        fields = dict(line.split(":") for line in file if ":" in line and line.endswith("kB\n"))
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Anonymous", "Shared_Hugetlb")) / 1e6


def _opening(path: str) -> Iterator[Any]:
    store = Store(path)
    yield len(store)


def _names(path: str) -> Iterator[Any]:
    store = Store(path)
    yield store.names(np.arange(0, len(store), 1000))


def _first_batch(loader: Callable[[], Any]) -> Iterator[Any]:
    kept = loader()
    batches = iter(kept)
    yield next(batches)
    batches.close()


def _restarted(make: Callable[..., Any], world_size: int, uneven: str = "pad") -> Any:
    """A loader that goes on, as one of `world_size` ranks, where one of two was after most of the epoch."""
    before = make(rank=0, world_size=2, uneven=uneven)
    state = before.state_dict()
    state["samples"] = int(_DONE * len(before)) * _BATCH
    loader = make(rank=0, world_size=world_size, uneven=uneven)
    loader.load_state_dict(state)
    return loader


def _measured(of: Callable[[str], Iterator[Any]], path: str, connection: Any) -> None:
    before, started, cpu = _own_memory(), time.perf_counter(), time.process_time()
    for _ in of(path):
        connection.send({"seconds": round(time.perf_counter() - started, 2),
                         "cpu_s": round(time.process_time() - cpu, 2), "own_mb": round(_own_memory() - before, 1)})


def _shuffled(path: str, **options: Any) -> LMDBLoader:
    return LMDBLoader(path, _BATCH, transform=CenterCrop(1, 1), num_workers=1, **options)


def _local(path: str, **options: Any) -> LMDBIterLoader:
    return LMDBIterLoader(path, _BATCH, transform=CenterCrop(1, 1), num_workers=1, **options)


MEASUREMENTS: dict[str, Callable[[str], Iterator[Any]]] = {
    "open": _opening,
    "open, then the names of every thousandth": _names,
    "first batch, full shuffle": lambda path: _first_batch(lambda: _shuffled(path)),
    "first batch, local shuffle": lambda path: _first_batch(lambda: _local(path)),
    "first batch after a restart at 90 %, full shuffle, 2 ranks to 3": lambda path: _first_batch(
        lambda: _restarted(lambda **ranks: _shuffled(path, **ranks), 3)),
    "first batch after a restart at 90 %, local shuffle, 2 ranks to 3": lambda path: _first_batch(
        lambda: _restarted(lambda **ranks: _local(path, **ranks), 3)),
    "first batch after a restart at 90 %, full shuffle, 2 ranks": lambda path: _first_batch(
        lambda: _restarted(lambda **ranks: _shuffled(path, **ranks), 2)),
    "first batch after a restart at 90 %, local shuffle, 2 ranks": lambda path: _first_batch(
        lambda: _restarted(lambda **ranks: _local(path, **ranks), 2)),
}


def main() -> None:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", help="where the data set is, or is written: about 180 bytes a record")
    parser.add_argument("--records", type=whole_number(1), default=14_000_000, metavar="N", help="default: 14000000")
    parser.add_argument("--shards", type=whole_number(1), default=140, metavar="K", help="default: 140")
    arguments = parser.parse_args()
    path = write(arguments.folder, arguments.records, arguments.shards)
    for name in MEASUREMENTS:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_child, args=(name, path, theirs))
        process.start()
        theirs.close()
        try:
            print(json.dumps({"what": name, **ours.recv()}), flush=True)
        except EOFError:
            print(json.dumps({"what": name, "error": "the process ended"}), flush=True)
        process.join()


def _child(name: str, path: str, connection: Any) -> None:
    _measured(MEASUREMENTS[name], path, connection)


if __name__ == "__main__":
    main()
