"""Opens a data set at a URL: the header of an LMDB, its index whole, and its records by ranges."""
import functools
import io
from typing import Callable

from dataflows.errors import NoChecksums
from dataflows.storage.btree import LONGEST_HEADER, Tree, parse_header
from dataflows.storage.index import Index, index_path, read_index
from dataflows.storage.paged_file import StoredBytes
from dataflows.storage.records import IndexedRecords
from dataflows.storage.remote.cache.cached_file import CachedFile
from dataflows.storage.remote.connection import connect
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.remote_file import RemoteFile


def open_remote(url: str, options: RemoteOptions, *, drop: bool, verify: bool) -> IndexedRecords:
    """The records of the LMDB at a URL. Raises what Store does, and OSError, with the URL, where a request fails."""
    tree = remote_header(url, options)
    index = remote_index(url, options, tree)
    opening = functools.partial(RemoteFile, url, options, opening=True)
    records = IndexedRecords(url, opening, index, index_path(url), tree, drop=drop, verify=verify)
    records = records.opened_by(_opener(url, options, index))
    records.private = True
    return records


def _opener(url: str, options: RemoteOptions, index: Index) -> Callable[[], StoredBytes]:
    if options.cache_dir is None:
        return functools.partial(RemoteFile, url, options)
    return functools.partial(CachedFile, url, options, index)


def remote_header(url: str, options: RemoteOptions) -> Tree:
    """The main tree of the LMDB at a URL, which is as long as its header says. Raises as `read_header`."""
    connection = connect(url, options, opening=True)
    content = connection.get(url, 0, LONGEST_HEADER, short=True)
    return parse_header(url, lambda start, nbytes: content[start:start + nbytes], connection.size(url))


def remote_index(url: str, options: RemoteOptions, tree: Tree) -> Index:
    """The index beside the LMDB at a URL. Raises NoChecksums, a ValueError, where there is none, and as `load_index`.
    """
    path = index_path(url)
    try:
        content = connect(path, options, opening=True).whole(path)
    except FileNotFoundError as error:
        raise NoChecksums(f"{url} has no index {path}, and a file at a URL is read by its index alone. Copy it there, "
                          f"or dump it again: dump_imagenet.py writes one") from error
    index = read_index(path, io.BytesIO(content), copied=True)
    if index.meta.file_size != tree.nbytes:
        raise ValueError(f"{path} is the index of another file: it states {index.meta.file_size:,} bytes, and {url} "
                         f"has {tree.nbytes:,}. Copy both again, or dump it again")
    return index


def remote_text(url: str, options: RemoteOptions) -> str:
    """A short file as text, such as a manifest. Raises OSError, with the URL."""
    return connect(url, options, opening=True).whole(url).decode("utf-8", "replace")
