"""From a source's images to packed records, with a line of the journal for each."""
import errno
import os
import threading
import time
from typing import Any, Callable, Iterator

import numpy as np
import tqdm

from dataflows.dump.prepare import Preparation
from dataflows.dump.recovery.journal import SkippedFile, StoredFile, noted
from dataflows.dump.write import Packed
from dataflows.errors import RecordError
from dataflows.images.examine import digest
from dataflows.label_vectors import size_text
from dataflows.sources.source import ImageSource
from dataflows.storage import record
from dataflows.tensorpack import DataFlow, ProxyDataFlow
from dataflows.threads import OrderedThreadMapData

# What the system may say of one file. All else that it says, such as EMFILE, ENOMEM, EIO or ESTALE, is trouble of its
# own, which the next file may have as well: with on_error='skip', none after it would be in the dump.
_OF_A_FILE = {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP,
              errno.ENAMETOOLONG, errno.ENXIO}

_AHEAD = 32  # images that may wait for one before them that takes long


class FilePacker:
    """Reads and prepares one image of a source: a callable on a pointer of it, the work of the dump's threads.

    Gives a Packed record with a StoredFile, or, with on_error "skip", one without a value and with a SkippedFile.
    Raises ValueError, naming the image, for one that cannot be stored; OSError where the system cannot read it for a
    reason that is not the file's own, whatever on_error is, and MemoryError. `seconds` is how long all calls together
    took.
    """

    def __init__(self, files: ImageSource, preparation: Preparation, on_error: str) -> None:
        self._files, self._preparation, self.on_error = files, preparation, on_error
        self.unit = files.unit
        self._lock = threading.Lock()
        self.seconds = 0.0

    def __call__(self, pointer: list[Any]) -> Packed:
        started = time.perf_counter()
        try:
            return self._pack(pointer)
        finally:
            with self._lock:
                self.seconds += time.perf_counter() - started

    def _pack(self, pointer: list[Any]) -> Packed:
        name: str = pointer[0]
        try:
            image, label = self._files.load(pointer)
            prepared = self._preparation(image, name)
        except MemoryError as error:
            raise MemoryError(f"{self._files.place(pointer)}: no memory for it: {error}") from error
        except (OSError, RecordError) as error:
            if isinstance(error, OSError):
                self._raise_what_is_not_the_files(pointer, error)
            if self.on_error == "skip":
                return Packed(None, SkippedFile(name, str(error)))
            raise ValueError(f"{self._files.place(pointer)}: {error}. Repair or remove the {self._files.unit}; "
                             f"on_error='skip' leaves out what cannot be read") from error
        packed = Packed(record.pack([prepared.image, label]))
        packed.note = StoredFile(name=name, label=noted(label), height=prepared.height, width=prepared.width,
                                 crc32=packed.crc32,
                                 source_bytes=image.nbytes if isinstance(image, np.ndarray) else len(image),
                                 untiled=prepared.untiled, findings=list(prepared.findings),
                                 digest=image_digest(image))
        return packed

    def _raise_what_is_not_the_files(self, pointer: list[Any], error: OSError) -> None:
        if error.errno not in _OF_A_FILE:
            raise OSError(f"{self._files.place(pointer)}: the system cannot read it: {error.strerror}. Repair the "
                          f"disk first. If only this file is damaged, put an empty one in its place: on_error='skip' "
                          f"leaves it out") from error
        if self._files.root and not os.path.exists(self._files.root):
            raise OSError(f"{self._files.root} is gone. Mount it again, or put it back") from error


def image_digest(image: Any) -> str:
    """What only equal images share, in hexadecimal: of encoded ones, or of pixels and their shape."""
    return digest(image if isinstance(image, bytes) else repr(image.shape).encode() + image.tobytes()).hex()


def packed_files(pointers: Any, packer: FilePacker, num_workers: int, first: StoredFile | None = None) -> DataFlow:
    """The Packed records of a DataFlow of pointers, in their order; made in threads.

    Labels that are not like the first record's, which `first` is where it is written already, are faults of theirs.
    """
    packed = OrderedThreadMapData(pointers, packer, num_threads=num_workers, buffer_size=max(_AHEAD, 4 * num_workers))
    return _LabelsAlike(packed, packer, first)


class _LabelsAlike(ProxyDataFlow):
    """Packed records whose labels are all class numbers, or all vectors of one length."""

    def __init__(self, ds: DataFlow, packer: FilePacker, first: StoredFile | None) -> None:
        super().__init__(ds)
        self._packer, self._first = packer, first

    def __iter__(self) -> Iterator[Packed]:
        first = self._first
        for packed in self.ds:
            if isinstance(packed.note, StoredFile):
                first = first or packed.note
                if packed.note.label_size != first.label_size:
                    packed = self._refused(packed.note, first)
            yield packed

    def _refused(self, row: StoredFile, first: StoredFile) -> Packed:
        reason = (f"its label is {size_text(row.label_size)}, and that of the first one, {first.name}, is "
                  f"{size_text(first.label_size)}: all must be class numbers, or vectors of one length")
        if self._packer.on_error == "skip":
            return Packed(None, SkippedFile(row.name, reason))
        raise ValueError(f"{self._packer.unit} {row.name}: {reason}. Correct it; on_error='skip' leaves it out")


Counter = Callable[[Packed], object]  # is told of each record when it is done with


def counted(ds: DataFlow, count: Counter) -> DataFlow:
    """`ds`, whose Packed datapoints are counted."""
    return _Counted(ds, count)


class _Counted(ProxyDataFlow):
    def __init__(self, ds: DataFlow, count: Counter) -> None:
        super().__init__(ds)
        self._count = count

    def __iter__(self) -> Iterator[Packed]:
        for packed in self.ds:
            yield packed
            self._count(packed)


def counting(bar: "tqdm.tqdm[Any]") -> Counter:
    """Counts records on a progress bar, with MB/s."""
    started, written = time.perf_counter(), 0

    def count(packed: Packed) -> None:
        nonlocal written
        written += len(packed.value or b"")
        bar.update()
        bar.set_postfix_str(f"{written / 1e6 / (time.perf_counter() - started):.1f} MB/s", refresh=False)

    return count
