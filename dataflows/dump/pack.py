"""From source files to packed records, with a line of the journal for each."""
import errno
import os
import threading
import time
from typing import Any, Iterator, Protocol, Sequence

import tqdm

from dataflows.dump.journal import SkippedFile, StoredFile
from dataflows.dump.prepare import Preparation
from dataflows.dump.write import Packed
from dataflows.errors import RecordError
from dataflows.images.examine import digest
from dataflows.order.parts import Slice
from dataflows.storage import record
from dataflows.tensorpack import DataFlow, ProxyDataFlow
from dataflows.threads import OrderedThreadMapData

# What the system may say of one file. All else that it says, such as EMFILE, ENOMEM, EIO or ESTALE, is trouble of its
# own, which the next file may have as well: with on_error='skip', none after it would be in the dump.
_OF_A_FILE = {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP,
              errno.ENAMETOOLONG, errno.ENXIO}

_AHEAD = 32  # images that may wait for one before them that takes long


class Source(Protocol):
    """What is dumped: a DataFlow of pointers `[name, label]`, which reads what they point to."""

    root: str  # where the names are, for messages

    @property
    def classes(self) -> Sequence[str]:
        """The name of each label, from 0."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[Any]]: ...

    def read(self, name: str) -> bytes:
        """The content of one file. Raises OSError."""


class FilePacker:
    """Reads and prepares one file of a source: a callable on `[name, label]`, the work of the dump's threads.

    Gives a Packed record with a StoredFile, or, with on_error "skip", one without a value and with a SkippedFile.
    Raises ValueError, naming the file, for one that cannot be stored; OSError where the system cannot read it for a
    reason that is not the file's own, whatever on_error is, and MemoryError. `seconds` is how long all calls together
    took.
    """

    def __init__(self, files: Source, preparation: Preparation, on_error: str) -> None:
        self._files, self._preparation, self._on_error = files, preparation, on_error
        self._lock = threading.Lock()
        self.seconds = 0.0

    def __call__(self, pointer: list[Any]) -> Packed:
        started = time.perf_counter()
        try:
            return self._pack(*pointer)
        finally:
            with self._lock:
                self.seconds += time.perf_counter() - started

    def _pack(self, name: str, label: int) -> Packed:
        try:
            content = self._files.read(name)
            prepared = self._preparation(content, name)
        except MemoryError as error:
            raise MemoryError(f"{os.path.join(self._files.root, name)}: no memory for it: {error}") from error
        except (OSError, RecordError) as error:
            if isinstance(error, OSError):
                self._raise_what_is_not_the_files(name, error)
            if self._on_error == "skip":
                return Packed(None, SkippedFile(name, str(error)))
            raise ValueError(f"{os.path.join(self._files.root, name)}: {error}. Repair or remove the file; "
                             f"on_error='skip' leaves out what cannot be read") from error
        packed = Packed(record.pack([prepared.image, label]))
        packed.note = StoredFile(name=name, label=label, height=prepared.height, width=prepared.width,
                                 crc32=packed.crc32, source_bytes=len(content), untiled=prepared.untiled,
                                 findings=list(prepared.findings), digest=digest(content).hex())
        return packed

    def _raise_what_is_not_the_files(self, name: str, error: OSError) -> None:
        root = self._files.root
        if error.errno not in _OF_A_FILE:
            raise OSError(f"{os.path.join(root, name)}: the system cannot read it: {error.strerror}. Repair the "
                          f"disk first. If only this file is damaged, put an empty one in its place: on_error='skip' "
                          f"leaves it out") from error
        if not os.path.exists(root):
            raise OSError(f"{root} is gone. Mount it again, or put it back") from error


def packed_files(files: Source, packer: FilePacker, num_workers: int, *, first: int = 0) -> DataFlow:
    """The Packed records of a source's files, in their order, without its `first` ones; made in threads."""
    return OrderedThreadMapData(Slice(files, first), packer, num_threads=num_workers,
                                buffer_size=max(_AHEAD, 4 * num_workers))


def with_progress(ds: DataFlow, bar: "tqdm.tqdm[Any]") -> DataFlow:
    """`ds`, whose Packed datapoints are counted by a progress bar, with MB/s."""
    return _WithProgress(ds, bar)


class _WithProgress(ProxyDataFlow):
    def __init__(self, ds: DataFlow, bar: "tqdm.tqdm[Any]") -> None:
        super().__init__(ds)
        self._bar = bar

    def __iter__(self) -> Iterator[Packed]:
        started = time.perf_counter()
        written = 0
        for packed in self.ds:
            written += len(packed.value or b"")
            yield packed
            self._bar.update()
            self._bar.set_postfix_str(f"{written / 1e6 / (time.perf_counter() - started):.1f} MB/s", refresh=False)
