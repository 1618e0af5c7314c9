"""Makes a tiled JPEG of a JPEG, losslessly, so that `cut` can take a box without decoding the rest.

The file stays an ordinary JPEG: a list of ours in APP9 segments; all other segments as they were, but for Huffman
tables that lack a code (`huffman.widen`), in the order that `dataflows.jpeg.cut` states; the same codes in restart
intervals; EOI.
"""

import itertools
import struct
import threading
from types import ModuleType
from typing import Any, Callable

import numpy as np

from dataflows.errors import NoTiling, UnsupportedJPEG
from dataflows.jpeg.cut import LIST_HEAD, LIST_PLACES, MAGIC, TileMap, cut, read_tiles
from dataflows.jpeg.header import (
    APP0,
    APP9,
    APP14,
    COM,
    DHT,
    DRI,
    FRAMES,
    Header,
    Table,
    is_jfif,
    jpeg_size,
    mcu_geometry,
    parse_frame,
    parse_header,
    segments,
)

__all__ = ["NoTiling", "TileMap", "UnsupportedJPEG", "cut", "jpeg_size", "make_ready", "read_tiles",
           "same_coefficients", "tile"]

# Random resized crops decode in 0.48 of the whole image's time at 16 px, 0.47 at 32, 0.50 at 48 and 64, 0.55 at 96, and
# 0.71 with whole rows. Bytes: +6.8, +4.2, +2.5, +2.1, +1.4, +0.2 %. (120 photos of 104 KB, least of nine runs.)
INTERVAL_PX = 32
_SEGMENT_BYTES = 65533 - len(MAGIC)
# The least that can be tiled: 8 x 8 pixels of gray, in codes of one bit, without the quantiser that decoders ask for.
_LEAST = bytes.fromhex("ffd8 ffc0000b080008000801011100 ffc4001400 01000000000000000000000000000000 00"
                       "ffc4001410 01000000000000000000000000000000 00 ffda0008010100003f00 3f ffd9")
_loading = threading.Lock()
_tiling: list[ModuleType] = []  # huffman, when it is ready
_comparing: list[ModuleType] = []  # decode/same.py, when it is


def make_ready(compiling: Callable[[], object] = lambda: None, *, comparing: bool = False) -> None:
    """Loads numba, half a second, and what it compiled: what needs it does so when it is first called.

    compiling: called if something has to be compiled first, once on a machine, which takes some 4 seconds; comparing:
        whether `same_coefficients` is wanted, too, which takes 10 more.

    Raises NoTiling, with the remedy. Thread-safe.
    """
    with _loading:
        if _tiling and (_comparing or not comparing):
            return
        try:
            from dataflows.jpeg import compiled, huffman  # nothing that reads may pay for them
            from dataflows.jpeg.decode import same

            def run() -> None:
                tiled = _tile(huffman, _LEAST, INTERVAL_PX)
                if comparing:
                    _same(same, _LEAST, tiled)

            compiled.make_ready(run, compiling)
        except MemoryError:
            raise
        except Exception as error:  # packages that do not fit each other raise nearly anything
            raise NoTiling(f"tiled JPEGs need numba, and it does not work here ({type(error).__name__}: {error}). "
                           f"`pip install --upgrade numba` may mend it; tiles=False dumps without it") from error
        _tiling[:] = [huffman]
        if comparing:
            _comparing[:] = [same]


def tile(jpeg: bytes, *, interval_px: int = INTERVAL_PX) -> bytes:
    """Return the same image as a tiled JPEG, about `interval_px` (>= 1) pixels of a row to the interval.

    The quantised coefficients and every segment (EXIF, ICC, comments) stay as they are, but for DRI, an older list of
    ours, and Huffman tables that get missing codes appended. What follows EOI is dropped: no decoder reads it, every
    loader would. Raises UnsupportedJPEG for what is not a complete 8-bit sequential Huffman JPEG of 1 or 3 components
    in one scan, and NoTiling where numba does not work. Thread-safe.

    >>> import pathlib
    >>> photo = pathlib.Path("IMAGENET/val/n01440764/n01440764_3.JPEG").read_bytes()
    >>> tiled = tile(photo)
    >>> jpeg_size(tiled) == jpeg_size(photo)
    True
    >>> small, (y, x) = cut(tiled, read_tiles(tiled), top=100, left=70, height=20, width=30)
    >>> jpeg_size(small), y, x                     # the box begins in row 4 and column 22 of it
    ((24, 56), 96, 48)
    """
    if interval_px < 1:
        raise ValueError(f"interval_px must be at least 1, got {interval_px}")
    if not _tiling:
        make_ready()
    return _tile(_tiling[0], bytes(jpeg), interval_px)


def same_coefficients(jpeg: bytes, tiled: bytes) -> bool:
    """Whether a tiled JPEG has the size, quantisers, kind of colors and coefficients of a JPEG, by what loaders decode
    it with, so that nothing which tiles has a say. A JPEG of these has the same pixels.

    False also for what that does not decode: restart markers in `jpeg`, and colors other than Y, Cb and Cr, or gray.
    Takes a third of the time in which libjpeg decodes the image. Raises NoTiling as `tile` does. Thread-safe.
    """
    if not _comparing:
        make_ready(comparing=True)
    return _same(_comparing[0], jpeg, tiled)


def _same(same: Any, jpeg: bytes, tiled: bytes) -> bool:
    height = width = header = 0
    for marker, start, header in segments(jpeg):
        if marker in FRAMES:
            height, width, _, _ = parse_frame(jpeg, start, header)
    found: bool = same.same_coefficients(np.frombuffer(jpeg, np.uint8), header, height, width,
                                         np.frombuffer(tiled, np.uint8))
    return found


def _tile(huffman: Any, jpeg: bytes, interval_px: int) -> bytes:
    header = parse_header(jpeg)
    frame = header.frame
    blocks = [i for i, byte in enumerate(frame.factors) for _ in range((byte >> 4) * (byte & 15))]
    if len(frame.ids) == 1:
        blocks = [0]
    mcu_height, mcu_width, _, _ = mcu_geometry(frame.factors)
    columns, rows = -(-frame.width // mcu_width), -(-frame.height // mcu_height)
    mcus = columns * rows
    # a block takes at least a bit of DC and one of AC: no memory for hostile sizes
    if mcus * len(blocks) > 4 * len(jpeg):
        raise UnsupportedJPEG("truncated")
    interval = choose_interval(columns, interval_px / mcu_width)
    in_interval = header.restart_interval or mcus
    data, ends = huffman.entropy_data(jpeg, header.scan_at, -(-mcus // in_interval))

    edits, end, needs = huffman.find_edits(data, ends, blocks, mcus, in_interval, interval, header.dc, header.ac)
    blank_codes = {0} if columns % interval else set()
    tables: dict[int, Table] = {}
    for table, codes in [*zip(header.dc, needs), *((table, ()) for table in header.ac)]:
        tables[table.at] = huffman.widen(tables.get(table.at, table), blank_codes.union(codes))
    dc, ac = ([tables[table.at] for table in header_tables] for header_tables in (header.dc, header.ac))
    body, lengths, pad_bits = huffman.apply_edits(data, edits, end, dc, -(-mcus // interval))
    blank = "".join(huffman.blank_block(dc[c], ac[c]) for c in blocks) if blank_codes else ""
    return b"".join(_new_header(jpeg, header, tables, interval, _list(lengths, pad_bits, blank)) + [body])


def choose_interval(columns: int, wanted: float) -> int:
    """MCUs per interval, about `wanted`, for rows of `columns` MCUs: a divisor within a factor of 2, if there is one.

    Otherwise three quarters of it: out of step with the rows, a cut takes along half an interval more beside the box.
    """
    near = [n for n in range(1, columns + 1) if columns % n == 0 and wanted / 2 <= n <= wanted * 2]
    if near:
        return min(near, key=lambda n: max(n / wanted, wanted / n))
    return min(columns, max(1, round(0.75 * wanted)))


def _new_header(jpeg: bytes, header: Header, tables: dict[int, Table], interval: int, listing: bytes) -> list[bytes]:
    """The segments of the tiled file, up to and with SOS, in the order that `dataflows.jpeg.cut` states."""
    first, notes, core = b"\xff\xd8", [], [struct.pack(">BBHH", 0xFF, DRI, 4, interval)]
    size_at = 0
    jfif = False  # whether a JFIF segment stands where a cut has it
    for marker, start, end in header.segments:
        segment = jpeg[start:end]
        if marker == DHT:
            segment = _with_tables(segment, start, tables)
        if marker == APP0 and (start, end) == header.segments[0][1:]:
            first += segment
            jfif = is_jfif(segment)
        elif marker == APP0 and not jfif and is_jfif(segment):
            core.append(segment)
            jfif = True
        elif marker == COM or APP0 <= marker < 0xF0 and marker != APP14:
            if not (marker == APP9 and segment[4:].startswith(MAGIC[:10])):  # an older list of ours
                notes.append(segment)
        elif marker != DRI:
            if marker in FRAMES:
                size_at = sum(map(len, core)) + 5
            core.append(segment)
    parts = [listing[i:i + _SEGMENT_BYTES] for i in range(0, len(listing), _SEGMENT_BYTES)]
    heads = [struct.pack(">BBH", 0xFF, APP9, 2 + len(MAGIC) + len(part)) + MAGIC for part in parts]
    core_at = len(first) + sum(map(len, heads + parts + notes))
    places = LIST_PLACES.pack(core_at, core_at + size_at, core_at + sum(map(len, core)))
    parts[0] = places + parts[0][len(places):]
    return [first, *itertools.chain.from_iterable(zip(heads, parts)), *notes, *core]


def _with_tables(segment: bytes, start: int, tables: dict[int, Table]) -> bytes:
    """A DHT segment with the tables of it that were widened. The last first: offsets in front stay valid."""
    for table in sorted((t for t in tables.values() if t.segment == start), key=lambda t: -t.at):
        at = table.at - start
        old = sum(segment[at + 1:at + 17])
        segment = segment[:at + 1] + table.counts + table.symbols + segment[at + 17 + old:]
    if len(segment) > 65537:
        raise UnsupportedJPEG("full Huffman table")
    return segment[:2] + struct.pack(">H", len(segment) - 2) + segment[4:]


def _list(lengths: np.ndarray, pad_bits: int, blank: str) -> bytes:
    """The list, with zeros for its three places in the file, which depend on its length."""
    size = next(n for n in (1, 2, 4) if lengths.max() < 1 << 8 * n)
    bits = int(blank.ljust(-(-len(blank) // 8) * 8, "0") or "0", 2).to_bytes(-(-len(blank) // 8), "big")
    head = LIST_HEAD.pack(0, 0, 0, size, pad_bits, len(blank))
    return head + bits + bytes(size) + lengths.astype(f"<u{size}").tobytes()
