"""A single LMDB, taken apart into shards of the same records: what a dump in shards writes of the same source."""
import dataclasses
import os

import numpy as np

from dataflows.dump.write import Packed, PackedLMDBSerializer
from dataflows.storage.btree import locate
from dataflows.storage.index import index_path, write_index
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow


class _Listed(DataFlow):
    def __init__(self, items):
        self._items = items

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


COLUMNS = ("label", "height", "width", "crc32", "name")


def split(path, count, folder, *, split="train"):
    """Writes `count` files with the records of the LMDB at `path`, which has an index; returns a pattern of them."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(path)
    bounds = [len(store) * k // count for k in range(count + 1)]
    for k, (start, stop) in enumerate(zip(bounds, bounds[1:])):
        file = os.fspath(folder / f"{split}-{k:05d}-of-{count:05d}.lmdb")
        packed = [Packed(store.value(number).tobytes()) for number in range(start, stop)]
        PackedLMDBSerializer.save(_Listed(packed), file)
        nbytes, offset = locate(file)
        columns = {name: getattr(store.index, name)[start:stop] for name in COLUMNS}
        findings = {name: [number - start for number in numbers if start <= number < stop]
                    for name, numbers in store.index.meta.findings.items()}
        meta = dataclasses.replace(store.index.meta, file_size=os.path.getsize(file), rest_crc32=0,
                                   findings={name: numbers for name, numbers in findings.items() if numbers})
        index = type(store.index)(nbytes=nbytes, offset=offset, meta=meta, **columns)
        os.replace(write_index(index, file), index_path(file))
    store.close()
    return os.fspath(folder / f"{split}-*.lmdb")


def arrays(index):
    """The columns of an index that do not say where records are."""
    return {name: np.asarray(getattr(index, name)) for name in COLUMNS}
