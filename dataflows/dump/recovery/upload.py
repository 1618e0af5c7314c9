"""Bringing a finished dump to its URL: each file when it is complete, so that it need not stay here.

    1  the LMDB is written there, and read back in full
    2  its index follows: its presence means that the file is complete and verified there, too
    3  whoever has made the LMDB removes it here; its index stays until all is done

A dump that was interrupted after 2 finds its file there, and does not write it again.
"""
import contextlib
import os
import shutil
import tempfile
from typing import Any, Iterator, Mapping

from dataflows.dump.recovery.journal import journal_path
from dataflows.dump.verify import checksums
from dataflows.errors import Damaged
from dataflows.storage.index import index_path, load_index
from dataflows.storage.remote.connection import TIMEOUT_SECONDS, connect
from dataflows.storage.remote.once import FAR_THREADS
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.upload import put_file, refuse_unwritable, remove_file
from dataflows.storage.remote.urls import is_url, refuse_secrets
from dataflows.terminal import progress_bar


class Upload:
    """Where the files of a scratch folder go: `target`, a URL. Errors are OSErrors that name the URL."""

    def __init__(self, target: str, storage_options: Mapping[str, Any] | None) -> None:
        refuse_secrets(target)
        refuse_unwritable(target)
        self.storage_options = storage_options
        self.target, self._options = target.rstrip("/"), RemoteOptions(storage_options)

    def url(self, path: str) -> str:
        """Where a file of the scratch folder goes."""
        return f"{self.target}/{os.path.basename(path)}"

    def refuse_existing(self, path: str, *, overwrite: bool, resume: bool) -> None:
        """Raises FileExistsError unless a dump may take the names of an LMDB or manifest, and of its index.

        An LMDB without an index may be that of the dump which is resumed.
        """
        resumed = resume and os.path.exists(journal_path(path))
        for name in (index_path(path),) if resumed else (path, index_path(path)):
            if not overwrite and self.exists(name):
                raise FileExistsError(f"{self.url(name)} exists already. Give another target, or overwrite=True to "
                                      f"replace it")

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return connect(self.target, self._options).exists(self.url(path))

    def names(self) -> list[str]:
        """Of all files there; none where the server does not list them."""
        url = self.target
        with contextlib.suppress(OSError):
            found = connect(url, self._options).call(url, "_ls", url, detail=False, seconds=TIMEOUT_SECONDS)
            return [path.rpartition("/")[2] for path in found]
        return []

    def has(self, path: str) -> bool:
        """Whether an LMDB is there, with the index that is here."""
        if not os.path.exists(index_path(path)):
            return False
        index, connection = load_index(path, path), connect(self.target, self._options)
        with contextlib.suppress(FileNotFoundError), open(index_path(path), "rb") as file:
            return (index is not None and connection.whole(self.url(index_path(path))) == file.read()
                    and connection.size(self.url(path)) == index.meta.file_size)
        return False

    def publish(self, path: str, *, progress: bool) -> None:
        """Steps 1 and 2; `progress` shows a bar while the file is read back. Raises Damaged where it is not what was
        written.
        """
        index, url = load_index(path, path), self.url(path)
        assert index is not None
        put_file(path, url, self._options)
        with progress_bar(f"reading {os.path.basename(path)} back from its URL", index.meta.file_size, shown=progress,
                          unit="B", unit_scale=True) as bar:
            bad, rest = checksums(url, index.nbytes, index.offset, index.crc32, num_threads=FAR_THREADS,
                                  advance=bar.update, remote=self._options)
        if bad or rest != index.meta.rest_crc32:
            raise Damaged(f"{url}: what was read back is not what was written; {len(bad):,} bad records. Dump again")
        self.put(index_path(path))

    def put(self, path: str) -> None:
        """Writes a file that has its own checksum."""
        put_file(path, self.url(path), self._options)

    def withdraw(self, path: str) -> None:
        """Removes what says that a data set is complete, before its files are replaced."""
        remove_file(self.url(path), self._options)


def placed(path: str, upload: Upload | None) -> str:
    """Where a file is when all is done."""
    return path if upload is None else upload.url(path)


@contextlib.contextmanager
def placing(target: str | os.PathLike[str], scratch: str | os.PathLike[str] | None,
            storage_options: Mapping[str, Any] | None) -> Iterator[tuple[str, Upload | None]]:
    """(the folder in which a dump writes, where files go from there), for a target that is a folder or a URL.

    Without a scratch folder for a URL, one is made, and is gone at the end. Raises ValueError for one that is not used.
    """
    if not is_url(target):
        if scratch is not None or storage_options is not None:
            raise ValueError("scratch and storage_options are for a target that is a URL: leave them out")
        yield os.fspath(target), None
        return
    upload = Upload(str(target), storage_options)
    folder = tempfile.mkdtemp(prefix="dump-") if scratch is None else os.fspath(scratch)
    try:
        yield folder, upload
    finally:
        if scratch is None:
            shutil.rmtree(folder, ignore_errors=True)
