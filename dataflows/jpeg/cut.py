"""Cuts a box out of the bytes of a tiled JPEG. The small JPEG shows the same pixels, and nothing is decoded.

A tiled JPEG (`dataflows.jpeg.tile` makes them) is an ordinary JPEG with restart markers and a list of where they are.
What lies between two markers, an interval, can be decoded by itself. Its segments stand in this order: APP0, if there
was one in front; the list; APPn and COM that say nothing of colors; and then, in one stretch, all that decoding needs:
DRI, the others as they were (APP14 among them, and JFIF's APP0 if it was not in front), SOS. The list is in APP9
segments that each start with the 12 bytes b"RSTINDEX v2\0". What follows these is joined over the segments,
little-endian:

    offset      bytes     content
    0           4         where in the file DRI starts
    4           4         where in the file the frame (SOF0 or SOF1) has the height
    8           4         where in the file the first interval starts
    12          1         bytes per length: 1, 2 or 4
    13          1         padding bits (0 .. 7) in the last byte of the last interval
    14          2         n, the number of bits of a blank MCU (below); 0 if the interval divides the row of MCUs
    16          (n+7)//8  a blank MCU, left-aligned: for every block a DC difference of 0 and the end of the block
    16+(n+7)//8 ...       0, then the length in bytes of every interval with the marker (RST or EOI) that ends it

An interval that divides the row of MCUs makes a grid, and a cut takes whole columns of it. Otherwise (rows of 47 MCUs
exist) intervals wrap around from one row to the next, out of step. Still, leaving out the same number of intervals
between each row of the box and the next keeps the box's columns in line: the cut is as many intervals narrower, has
other columns of the image beside the box, and blank MCUs after its last interval complete its last row.
"""

import functools
import math
import struct
from typing import Any, NamedTuple

import numpy as np

from dataflows.errors import UnsupportedJPEG
from dataflows.jpeg.header import APP0, EOI, Buffer, is_jfif, mcu_geometry, parse_frame, segments

MAGIC = b"RSTINDEX v2\0"
LIST_HEAD = struct.Struct("<IIIBBH")
LIST_PLACES = struct.Struct("<III")  # the three that LIST_HEAD starts with
MAX_BLANK_BITS = 320  # 10 blocks, each two codes of 16 bits
_LENGTHS: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
_U16 = struct.Struct(">H").unpack_from
_SIZE = struct.Struct(">HH")
_MARKERS = (0xD0 + np.arange(8192) % 8).astype(np.uint8)


class TileMap(NamedTuple):
    """Where the intervals of a tiled JPEG are. Immutable; pickles; holds no reference to the data.

    height, width: of the image. mcu_height, mcu_width: of an MCU. All in pixels.
    interval, columns, rows: MCUs per interval, MCUs per row, rows of MCUs.
    lengths: of every interval in bytes, after a 0. offsets: their running sum, counted from scan_at. Both int64.
    header: of a cut; size_at: where in it the size goes. scan_at: where in the data the first interval starts.
    margin_y, margin_x: 1 where chroma is subsampled: its interpolation looks one pixel further; else 0.
    blank, blank_bits, pad_bits: as in the list.
    """

    height: int
    width: int
    mcu_height: int
    mcu_width: int
    margin_y: int
    margin_x: int
    interval: int
    columns: int
    rows: int
    lengths: np.ndarray
    offsets: np.ndarray
    header: bytes
    size_at: int
    scan_at: int
    blank: bytes
    blank_bits: int
    pad_bits: int


def restart_markers(count: int) -> np.ndarray:
    """The second bytes of RST0, RST1, ... RST7, RST0, ..."""
    return _MARKERS[:count] if count <= len(_MARKERS) else (0xD0 + np.arange(count) % 8).astype(np.uint8)


def read_tiles(data: Buffer) -> TileMap | None:
    """The TileMap of a tiled JPEG; None if `data` is anything else.

    Raises ValueError if there is a list that does not fit the file: changed by another tool, damaged, or hostile.
    """
    view = memoryview(data)
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    start = bytes(view[:24])
    list_at = 4 + int.from_bytes(start[4:6], "big") if start[2:4] == b"\xff\xe0" else 2  # APP0 may precede the list
    if list_at != 2:
        start = bytes(view[list_at - 2:list_at + 22])
    if start[2:4] != b"\xff\xe9" or start[6:18] != MAGIC:
        return None
    try:
        return _read_list(view, list_at, _list_parts(view, list_at))
    except (UnsupportedJPEG, struct.error) as error:
        raise ValueError(f"damaged tiled JPEG: {error}") from error


def _list_parts(view: memoryview, at: int) -> memoryview | bytes:
    """What the list's segments hold: a long list has several, one after the other."""
    parts = []
    while bytes(view[at:at + 2]) == b"\xff\xe9" and bytes(view[at + 4:at + 16]) == MAGIC:
        end = at + 2 + _U16(view, at + 2)[0]
        parts.append(view[at + 16:end])
        at = end
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_list(view: memoryview, list_at: int, listing: memoryview | bytes) -> TileMap:
    """Check the list against the header and the data of the scan, to the last byte."""
    core_at, size_at, scan_at, size, pad_bits, blank_bits = LIST_HEAD.unpack_from(listing)
    if not (list_at < core_at <= size_at - 11 < scan_at - 25 and scan_at < len(view)
            and bytes(view[core_at:core_at + 4]) == b"\xff\xdd\0\4"):
        raise ValueError("damaged tiled JPEG: its segments are not where the list says")
    height, width, mcu_height, mcu_width, margin_y, margin_x = _frame(bytes(view[size_at - 5:size_at + 14]))
    interval, = _U16(view, core_at + 4)
    rows, columns = -(-height // mcu_height), -(-width // mcu_width)
    at = LIST_HEAD.size + (blank_bits + 7 >> 3)
    if (pad_bits > 7 or not 0 < interval <= columns or blank_bits > MAX_BLANK_BITS
            or (columns % interval > 0) != (blank_bits > 0)):
        raise ValueError("damaged tiled JPEG: the blank MCU does not suit the interval")
    count = -(-columns * rows // interval) + 1
    if size not in _LENGTHS or len(listing) != at + count * size:
        raise ValueError(f"damaged tiled JPEG: the list has {len(listing)} bytes, "
                         f"not one length for {count - 1} intervals")
    lengths = np.frombuffer(listing, _LENGTHS[size], count, at).astype(np.int64)
    offsets = np.add.accumulate(lengths)
    total = offsets.item(-1)
    if (scan_at + total > len(view) or lengths.item(0)
            or bytes(view[scan_at + total - 2:scan_at + total]) != b"\xff\xd9"):
        raise ValueError(f"damaged tiled JPEG: the list says {total} bytes of data, but they do not end there")
    core = bytes(view[core_at:scan_at])
    header = bytes(view[:list_at])
    if not is_jfif(header[2:]) and (b"Adobe" in core or bytes(view[size_at + 5:size_at + 12:3]) == b"RGB"):
        header += _jfif_in_the_notes(view, list_at, core_at)
    size_at += len(header) - core_at
    return TileMap(height=height, width=width, mcu_height=mcu_height, mcu_width=mcu_width, margin_y=margin_y,
                   margin_x=margin_x, interval=interval, columns=columns, rows=rows, lengths=lengths, offsets=offsets,
                   header=header + core, size_at=size_at, scan_at=scan_at, blank=bytes(listing[LIST_HEAD.size:at]),
                   blank_bits=blank_bits, pad_bits=pad_bits)


def _jfif_in_the_notes(view: memoryview, list_at: int, core_at: int) -> bytes:
    """A JFIF segment that older dumps left where no cut takes it along; empty where there is none."""
    for marker, start, end in segments(view):
        if start >= core_at:
            break
        if marker == APP0 and is_jfif(view[start:end]):
            return bytes(view[start:end]) if start > list_at else b""
    return b""


@functools.lru_cache(maxsize=1024)  # photos of one size share it
def _frame(segment: bytes) -> tuple[int, int, int, int, int, int]:
    """(height, width, *mcu_geometry) of the SOF0 or SOF1 segment at the start of these bytes."""
    if segment[:2] not in (b"\xff\xc0", b"\xff\xc1") or segment[9] not in (1, 3):
        raise UnsupportedJPEG("corrupt header")
    frame = parse_frame(segment, 0, 10 + 3 * segment[9])
    if not frame.height or not frame.width:
        raise UnsupportedJPEG("corrupt header")
    return frame.height, frame.width, *mcu_geometry(frame.factors)


def cut(data: Buffer, tiles: TileMap, top: int, left: int, height: int, width: int
        ) -> tuple[np.ndarray, tuple[int, int]]:
    """A small JPEG (uint8, 1-D, fresh memory) that shows the box, and (y, x) in the image of its top left pixel.

    The box, in pixels, must be within the image: pixel (i, j) of it is pixel (top - y + i, left - x + j) of the small
    JPEG, equal to that of the whole image. x may be negative: beside the box the small JPEG shows other parts of the
    image. It has no EXIF, so no orientation. `data` is what `tiles` was read from. Thread-safe. Raises ValueError for a
    box that is empty or outside, and for data without markers where the list has them.
    """
    if not (0 <= top < top + height <= tiles.height and 0 <= left < left + width <= tiles.width):
        raise ValueError(f"box {height} x {width} at ({top}, {left}) is empty "
                         f"or outside of {tiles.height} x {tiles.width}")
    mcu_height, mcu_width, margin_y, margin_x, interval, columns, rows = tiles[2:9]
    row = (top - margin_y) // mcu_height if top else 0
    row_end = min((top + height + margin_y - 1) // mcu_height + 1, rows)
    column = (left - margin_x) // mcu_width if left else 0
    column_end = min((left + width + margin_x - 1) // mcu_width + 1, columns)
    if columns % interval:
        return _cut_wrapped(data, tiles, row, row_end, column, column_end)
    step = columns // interval
    first, last = column // interval, (column_end - 1) // interval + 1
    x = first * interval * mcu_width
    x_end = min(last * interval * mcu_width, tiles.width)
    if margin_x and x_end - x < 5 and first:  # libjpeg interpolates rows of at least 3 chroma samples only
        first -= 1
        x -= interval * mcu_width
    row_at, row_end_at = row * step, row_end * step
    begins = tiles.offsets[row_at + first:row_end_at:step].tolist()
    ends = tiles.offsets[row_at + last:row_end_at + 1:step].tolist()
    lengths = tiles.lengths[row_at + 1:row_end_at + 1].reshape(-1, step)[:, first:last].ravel()
    pieces = _pieces(data, tiles, begins, ends)
    return _join(tiles, pieces, lengths, row, row_end, x_end - x), (row * mcu_height, x)


def _cut_wrapped(data: Buffer, tiles: TileMap, row: int, row_end: int, column: int, column_end: int
                 ) -> tuple[np.ndarray, tuple[int, int]]:
    """`cut`, given rows and columns of MCUs, where intervals are out of step with rows."""
    interval, columns = tiles.interval, tiles.columns
    height = row_end - row
    begin = (row * columns + column) // interval
    row_starts = np.arange(row, row_end) * columns
    ends = (row_starts + (column_end + interval - 1)) // interval
    end = min(int(ends[-1]) * interval, columns * tiles.rows)
    room = (row_starts[1:] + column) // interval - ends[:-1]
    left_out = max(int(room.min(initial=columns)), 0)
    left_out = min(left_out, (height * columns - end) // interval + begin)
    if left_out < 0 or tiles.margin_x and (column == 0 or column_end == columns):
        return _cut_rows(data, tiles, row, row_end)
    begins = np.empty_like(ends)
    begins[0], begins[1:] = begin, ends[:-1] + left_out
    pieces = _pieces(data, tiles, tiles.offsets[begins].tolist(), tiles.offsets[ends].tolist())
    lengths = np.concatenate([tiles.lengths[a + 1:b + 1] for a, b in zip(begins.tolist(), ends.tolist())])
    wide = columns - left_out * interval
    blanks = height * wide - (end - (begin + (height - 1) * left_out) * interval)
    if blanks:
        lengths = _append_blanks(tiles, pieces, lengths, blanks, -end % interval)
    width = min(wide * tiles.mcu_width, 65535)
    x = (begin * interval - row * columns) * tiles.mcu_width
    return _join(tiles, pieces, lengths, row, row_end, width), (row * tiles.mcu_height, x)


def _cut_rows(data: Buffer, tiles: TileMap, row: int, row_end: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Whole rows, out to where rows and intervals are in step. For boxes at the image's edge: interpolation treats that
    as an edge, so it must stay one."""
    columns, interval = tiles.columns, tiles.interval
    period = interval // math.gcd(interval, columns)
    row, row_end = row - row % period, min(row_end + -row_end % period, tiles.rows)
    begin, end = row * columns // interval, -(-row_end * columns // interval)
    pieces = _pieces(data, tiles, [int(tiles.offsets[begin])], [int(tiles.offsets[end])])
    lengths = tiles.lengths[begin + 1:end + 1]
    return _join(tiles, pieces, lengths, row, row_end, tiles.width), (row * tiles.mcu_height, 0)


def _pieces(data: Buffer, tiles: TileMap, begins: list[int], ends: list[int]) -> list[bytes | memoryview]:
    view = memoryview(data).cast("B")[tiles.scan_at:]
    return [tiles.header, *(view[a:b] for a, b in zip(begins, ends))]


def _join(tiles: TileMap, pieces: list[bytes | memoryview], lengths: np.ndarray, row: int, row_end: int,
          width: int) -> np.ndarray:
    """The JPEG of `width` pixels and the MCU rows row .. row_end, made of header and intervals with these lengths."""
    jpeg = bytearray().join(pieces)
    height = min(row_end * tiles.mcu_height, tiles.height) - row * tiles.mcu_height
    _SIZE.pack_into(jpeg, tiles.size_at, height, width)
    out = np.frombuffer(jpeg, np.uint8)
    stops = np.add.accumulate(lengths)
    stops += len(tiles.header) - 2
    if stops[-1] + 2 != len(out) or out[stops].tobytes().strip(b"\xff"):
        raise ValueError("damaged tiled JPEG: an interval does not end with a marker")
    stops += 1
    out[stops] = restart_markers(len(stops))
    out[-1] = EOI
    return out


def _append_blanks(tiles: TileMap, pieces: list[bytes | memoryview], lengths: np.ndarray, blanks: int,
                   short: int) -> np.ndarray:
    """Append `blanks` blank MCUs to pieces, the first `short` of them to the last piece. Return lengths with theirs."""
    counts: list[int] = lengths.tolist()
    if short:  # the image's last interval has fewer MCUs: its last byte goes on with blank ones
        tail = pieces[-1][:-2]
        used = 2 if bytes(tail[-2:]) == b"\xff\0" else 1
        if len(tail) < used:
            raise ValueError("damaged tiled JPEG: the last interval is empty")
        bits = f"{tail[-used]:08b}"[:8 - tiles.pad_bits]
        more = _blank_bytes(tiles, bits, min(short, blanks))
        pieces[-1:] = [tail[:-used], more]
        counts[-1] += len(more) - used - 2
        blanks -= short
    while blanks > 0:
        pieces.append(_blank_bytes(tiles, "", min(blanks, tiles.interval)))
        counts.append(len(pieces[-1]))
        blanks -= tiles.interval
    return np.array(counts, np.int64)


def _blank_bytes(tiles: TileMap, bits: str, count: int) -> bytes:
    """An interval's bytes, with a marker: first `bits`, then `count` blank MCUs."""
    mcu = f"{int.from_bytes(tiles.blank, 'big'):0{8 * len(tiles.blank)}b}"[:tiles.blank_bits]
    bits += mcu * count
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0") + b"\xff\xd9"
