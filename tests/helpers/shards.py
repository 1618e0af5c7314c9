"""A single LMDB, taken apart into shards of the same records: what a dump in shards writes of the same source."""
import dataclasses
import json
import os
from zlib import crc32

import numpy as np

from dataflows.dump.write import Packed, PackedLMDBSerializer
from dataflows.storage.btree import locate
from dataflows.storage.index import index_path, write_index
from dataflows.storage.shards.files import shard_name
from dataflows.storage.shards.manifest import SUFFIX, Manifest, Shard
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
    """Writes `count` shards of the LMDB at `path`, which has an index, and their manifest; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(path)
    bounds = [len(store) * k // count for k in range(count + 1)]
    shards = []
    for k, (start, stop) in enumerate(zip(bounds, bounds[1:])):
        file = os.fspath(folder / shard_name(split, k, count))
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
        shards.append(Shard.of(file, index))
    meta = dataclasses.replace(store.index.meta, file_size=sum(shard.file_size for shard in shards))
    manifest = Manifest(meta, crc32(store.index.crc32.tobytes()), tuple(shards))
    (folder / f"{split}{SUFFIX}").write_text(manifest.to_json())
    store.close()
    return folder / f"{split}{SUFFIX}"


def rewritten(manifest, **changes):
    """Changes parts of a manifest, and its checksum with them."""
    content = json.loads(manifest.read_text())
    del content["checksum"]
    content |= changes
    content["checksum"] = crc32(json.dumps(content, sort_keys=True).encode())
    manifest.write_text(json.dumps(content))


def arrays(index):
    """The columns of an index that do not say where records are."""
    return {name: np.asarray(getattr(index, name)) for name in COLUMNS}
