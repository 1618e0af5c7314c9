"""Parses the header of a JPEG file: segments, frame, scan and Huffman tables; and finds its end. Nothing is decoded.

A file is SOI (FF D8), segments, entropy-coded data, EOI (FF D9).
A segment (ITU-T T.81, annex B; numbers are big-endian):

    bytes  content
    2      FF and the marker
    2      length of what follows, these two bytes included
    ...    payload:
           SOF  precision 1, height 2, width 2, number of components 1; per component: id 1, h << 4 | v 1, quantiser 1
           DHT  per table: class << 4 | id 1 (class 0: DC, 1: AC), how many codes of 1 .. 16 bits 16, their symbols
           DRI  MCUs per restart interval 2
           SOS  number of components 1; per component: id 1, DC table << 4 | AC table 1; then 0, 63, 0 if sequential
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dataflows.errors import UnsupportedJPEG

SOF0, SOF1, DHT, DAC, SOI, EOI, SOS, DQT, DRI, APP0, APP1, APP9, APP14, COM = (
    0xC0, 0xC1, 0xC4, 0xCC, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE9, 0xEE, 0xFE)
_SEGMENT = struct.Struct(">BBH").unpack_from
_SIZE = struct.Struct(">HH").unpack_from
FRAMES = frozenset(range(0xC0, 0xD0)) - {DHT, 0xC8, DAC}
Buffer = bytes | memoryview | np.ndarray  # a contiguous one
_REASONS = {0xC2: "progressive", 0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical"}


class Frame(NamedTuple):
    """What SOFn says: size in pixels; of every component its id and its sampling factors, h << 4 | v."""

    height: int
    width: int
    ids: bytes
    factors: bytes


class Table(NamedTuple):
    """A Huffman table as DHT spells it, and where that is: `at` is its offset in the file, `segment` its segment's."""

    counts: bytes
    symbols: bytes
    segment: int
    at: int

    def free(self) -> int:
        """The share of the 16-bit code space that no code uses, in units of one 16-bit code; negative if over-full."""
        return 65536 - sum(count << (15 - i) for i, count in enumerate(self.counts))


class Header(NamedTuple):
    """Everything in front of the entropy-coded data of a sequential Huffman JPEG with one interleaved scan."""

    segments: list[tuple[int, int, int]]
    frame: Frame
    dc: tuple[Table, ...]
    ac: tuple[Table, ...]
    restart_interval: int
    scan_at: int


def segments(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of every segment up to SOS, which is the last; data[start] is the marker's FF.

    A memoryview is one of bytes. Every end is within the data. Raises UnsupportedJPEG at the first flaw.
    """
    size = len(data)
    if size < 3 or data[0] != 0xFF or data[1] != SOI or data[2] != 0xFF:
        raise UnsupportedJPEG("not a JPEG")
    pos = 2
    while pos + 4 <= size:
        prefix, marker, length = _SEGMENT(data, pos)
        if prefix != 0xFF:
            raise UnsupportedJPEG("corrupt header")
        if marker == 0xFF:  # a fill byte (T.81, B.1.1.2)
            pos += 1
            continue
        if length < 2 or marker < 0xC0 or 0xD0 <= marker <= EOI:
            raise UnsupportedJPEG("corrupt header")
        end = pos + 2 + length
        if end > size:
            raise UnsupportedJPEG("truncated")
        yield marker, pos, end
        if marker == SOS:
            return
        pos = end
    raise UnsupportedJPEG("truncated")


def is_jfif(segment: bytes | memoryview) -> bool:
    """Whether libjpeg takes an APP0 segment, from its FF on, for JFIF's: then three components are Y, Cb and Cr.

    It looks for one anywhere in front of SOS, and without one at the last Adobe APP14 (transform 0 is RGB), and without
    that at the components' ids ("RGB"). OpenCV, simplejpeg and Pillow leave that to it.
    """
    return len(segment) >= 18 and bytes(segment[4:9]) == b"JFIF\0"


def parse_frame(data: bytes | memoryview, start: int, end: int) -> Frame:
    """The SOFn segment at data[start:end], of any JPEG type. Raises UnsupportedJPEG if it contradicts itself."""
    if end - start < 10 or end - start != 10 + 3 * data[start + 9]:
        raise UnsupportedJPEG("corrupt header")
    height, width = _SIZE(data, start + 5)
    return Frame(height, width, bytes(data[start + 10:end:3]), bytes(data[start + 11:end:3]))


@lru_cache(maxsize=64)
def mcu_geometry(factors: bytes) -> tuple[int, int, int, int]:
    """(height, width) in pixels of an MCU, and 1 or 0 for whether a component is subsampled (down, across).

    factors: h << 4 | v of every component. A scan of one component has MCUs of 8 x 8 at any factors (T.81, A.2.2).

    >>> mcu_geometry(bytes([0x22, 0x11, 0x11]))      # 4:2:0
    (16, 16, 1, 1)
    """
    h, v = [byte >> 4 for byte in factors], [byte & 15 for byte in factors]
    if not factors or not all(1 <= factor <= 4 for factor in h + v):
        raise UnsupportedJPEG("corrupt header")
    if len(factors) == 1:
        return 8, 8, 0, 0
    return 8 * max(v), 8 * max(h), int(min(v) < max(v)), int(min(h) < max(h))


def jpeg_size(data: Buffer) -> tuple[int, int] | None:
    """(height, width) in pixels of a JPEG of any type, as stored (EXIF orientation is not applied); None if not found.

    A height of 0 (given after the scan, by DNL) counts as not found.
    """
    data = memoryview(data).cast("B")
    try:
        for marker, start, end in segments(data):
            if marker in FRAMES:
                frame = parse_frame(data, start, end)
                return (frame.height, frame.width) if frame.height and frame.width else None
    except UnsupportedJPEG:
        pass
    return None


def image_end(data: bytes, scan_at: int) -> int | None:
    """Where the image ends, behind its EOI marker; None if it has none. Its first scan's data starts at `scan_at`."""
    content = np.frombuffer(data, np.uint8)
    at = scan_at + np.flatnonzero(content[scan_at:-1] == 0xFF)  # finding EOI by bytes.find takes eight times as long
    markers = content[at + 1]
    pos = scan_at
    for start in at[(markers >= 0xC0) & (markers < 0xFF) & (markers & 0xF8 != 0xD0)].tolist():
        if start < pos:
            continue  # within a segment between two scans
        if data[start + 1] == EOI:
            return int(start) + 2
        pos = start + 2 + int.from_bytes(data[start + 2:start + 4], "big")
    return None


def parse_header(data: bytes) -> Header:
    """Parse what stands in front of the scan. Raises UnsupportedJPEG for every JPEG that tiling does not cover."""
    found, tables, frame, interval = [], {}, None, 0
    for marker, start, end in segments(data):
        found.append((marker, start, end))
        if marker in FRAMES:
            if frame is not None:
                raise UnsupportedJPEG("hierarchical")
            frame = _sequential_frame(data, marker, start, end)
        elif marker == DHT:
            tables.update(_parse_tables(data, start, end))
        elif marker == DRI:
            if end - start != 6:
                raise UnsupportedJPEG("corrupt header")
            interval = data[start + 4] << 8 | data[start + 5]
        elif marker == DAC:
            raise UnsupportedJPEG("arithmetic")
    if frame is None:
        raise UnsupportedJPEG("corrupt header")
    dc, ac = _scan_tables(data[start + 4:end], frame, tables)
    return Header(found, frame, dc, ac, interval, end)


def _sequential_frame(data: bytes, marker: int, start: int, end: int) -> Frame:
    if marker not in (SOF0, SOF1):
        raise UnsupportedJPEG(_REASONS.get(marker, "arithmetic"))
    frame = parse_frame(data, start, end)
    if data[start + 4] != 8:
        raise UnsupportedJPEG("12-bit" if data[start + 4] == 12 else "corrupt header")
    if len(frame.ids) not in (1, 3):
        raise UnsupportedJPEG("CMYK" if len(frame.ids) == 4 else "unusual components")
    if not frame.height:
        raise UnsupportedJPEG("height after the scan")
    mcu_geometry(frame.factors)
    if not frame.width or len(frame.ids) == 3 and sum((byte >> 4) * (byte & 15) for byte in frame.factors) > 10:
        raise UnsupportedJPEG("corrupt header")  # an MCU has at most 10 blocks (T.81, B.2.3)
    return frame


def _parse_tables(data: bytes, start: int, end: int) -> dict[int, Table]:
    tables, pos = {}, start + 4
    while pos < end:
        counts = data[pos + 1:pos + 17]
        stop = pos + 17 + sum(counts)
        table = Table(counts, data[pos + 17:stop], start, pos)
        if data[pos] & 0xEC or len(counts) < 16 or stop > end or sum(counts) > 256 or table.free() < 0:
            raise UnsupportedJPEG("corrupt header")
        if data[pos] < 16 and any(symbol > 15 for symbol in table.symbols):
            raise UnsupportedJPEG("corrupt header")
        tables[data[pos]] = table
        pos = stop
    return tables


def _scan_tables(scan: bytes, frame: Frame, tables: dict[int, Table]) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
    """The DC and AC tables of every component. Raises UnsupportedJPEG unless the scan is the whole of a sequential
    image."""
    count = len(frame.ids)
    if not scan or len(scan) != 4 + 2 * scan[0]:
        raise UnsupportedJPEG("corrupt header")
    if scan[0] != count:
        raise UnsupportedJPEG("multi-scan")
    if scan[1:1 + 2 * count:2] != frame.ids or scan[-3:] != b"\0\x3f\0":
        raise UnsupportedJPEG("unusual scan")
    uses = scan[2:2 + 2 * count:2]
    try:
        return tuple(tables[use >> 4] for use in uses), tuple(tables[16 | use & 15] for use in uses)
    except KeyError:
        raise UnsupportedJPEG("missing Huffman table") from None  # Motion JPEG frames leave the standard ones out
