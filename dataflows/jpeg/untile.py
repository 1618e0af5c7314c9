"""Takes the tiles out of a tiled JPEG: what a file may have been before the dump."""
from dataflows.errors import UnsupportedJPEG
from dataflows.jpeg.cut import MAGIC, read_tiles
from dataflows.jpeg.header import APP9, segments
from dataflows.jpeg.tile import tile


def untile(jpeg: bytes) -> bytes:
    """The same image as a JPEG that is decoded whole: losslessly, but a restart marker stays for each row, 0.1 % of the
    bytes. Anything else than a tiled JPEG stays as it is. Raises ValueError for a damaged tiled JPEG.
    """
    if read_tiles(jpeg) is None:
        return jpeg
    try:
        rows = tile(jpeg, interval_px=2**16)
    except UnsupportedJPEG:
        return jpeg
    parts, at = [], 0
    for marker, start, end in segments(rows):
        if marker == APP9 and rows[start + 4:].startswith(MAGIC):
            parts.append(rows[at:start])
            at = end
    return b"".join([*parts, rows[at:]])
