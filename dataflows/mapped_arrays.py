"""A numpy archive (npz) whose arrays are used where they lie: stored, not deflated, each at a multiple of 64 bytes.

So the processes of a machine that map the file share one copy of it, in the page cache, and opening it costs a checksum
and no memory. Archives of deflated arrays, as earlier versions wrote them, are read into memory.

The archive's comment, its last bytes, is "crc32 " and 8 hexadecimal digits: the checksum of all bytes before them.
"""
import contextlib
import io
import math
import mmap
import struct
import zipfile
import zlib
from typing import IO, Iterator, Literal, Mapping

import numpy as np

_ALIGNMENT = 64  # bytes, as numpy aligns data behind the header of an array
_ALIGNING = 0xD935  # the kind of a member's extra field that only fills up, as Android's zipalign writes it
_LARGE = 2**31  # bytes: from here on, zipfile states sizes in another extra field, of 20 bytes
_DIGITS = 8  # of the checksum at the end
_CHUNK = 2**24


def write_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays and checksum to an empty file that is open for writing and reading."""
    with _written(file, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            large = array.nbytes >= _LARGE
            start = file.tell() + 30 + len(member.filename) + 6 + 20 * large
            member.extra = struct.pack("<HHH", _ALIGNING, 2 + -start % _ALIGNMENT, _ALIGNMENT) + bytes(
                -start % _ALIGNMENT)
            with archive.open(member, "w", force_zip64=large) as out:
                np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    seal(file)


@contextlib.contextmanager
def _written(file: IO[bytes], mode: Literal["w", "a"]) -> Iterator[zipfile.ZipFile]:
    """An archive that is closed where all went well. Elsewhere it stays as it is: after an interrupt that came while a
    member was opened, closing it would raise an error in the place of the interrupt."""
    archive = zipfile.ZipFile(file, mode)
    try:
        yield archive
        archive.close()
    except BaseException:
        archive.fp = None  # so that it is not closed later either
        raise


def seal(file: IO[bytes]) -> None:
    """Gives a zip archive, open for writing and reading, the comment with the checksum of all before it."""
    with _written(file, "a") as archive:
        archive.comment = b"crc32 " + b"0" * _DIGITS
    file.seek(-_DIGITS, io.SEEK_END)
    end, checksum = file.tell(), 0
    file.seek(0)
    for start in range(0, end, _CHUNK):
        checksum = zlib.crc32(file.read(min(_CHUNK, end - start)), checksum)
    file.seek(end)
    file.write(b"%08x" % checksum)


class Archive:
    """The arrays of an open file by name: read-only views of the file's map, or of a copy of it.

    copied: copy the file into memory; else that is done where the system does not map it.
    """

    def __init__(self, file: IO[bytes], *, copied: bool) -> None:
        self._content = _content(file, copied)
        self._zip = zipfile.ZipFile(io.BytesIO(self._content) if isinstance(self._content, bytes) else file)

    def __getitem__(self, name: str) -> np.ndarray:
        """Raises KeyError where there is none, and nearly anything where the archive is damaged."""
        member = self._zip.getinfo(f"{name}.npy")
        with self._zip.open(member) as file:
            if member.compress_type != zipfile.ZIP_STORED:
                array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
                return array
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{name} is an array of another version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            header = file.tell()
        if header + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{name} has another size than it states")
        lengths = struct.unpack_from("<HH", self._content, member.header_offset + 26)
        start = member.header_offset + 30 + sum(lengths) + header
        return np.frombuffer(self._content, dtype, math.prod(shape), start).reshape(shape)

    def is_sealed(self) -> bool:
        """Whether all bytes are those that were written, by their checksum."""
        bytes_ = memoryview(self._content)
        return bytes(bytes_[-_DIGITS:]) == b"%08x" % zlib.crc32(bytes_[:-_DIGITS])


def _content(file: IO[bytes], copied: bool) -> bytes | mmap.mmap:
    if not copied:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # the system gives no map, or the file is empty
            pass
    return file.read()
