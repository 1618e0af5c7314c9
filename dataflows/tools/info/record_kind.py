"""Tells how a record is written and what its image is, by the image's header. Nothing is decoded."""
from typing import NamedTuple

import numpy as np

from dataflows.errors import RecordError
from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.header import FRAMES, jpeg_size, segments
from dataflows.label_vectors import Label
from dataflows.storage import record
from dataflows.storage.store import Store

PROGRESSIVE = 0xC2


class RecordKind(NamedTuple):
    """What the header of one record tells."""

    serializer: str  # "msgpack" or "pickle"
    kind: str  # "tiled JPEG", "JPEG", "progressive JPEG", another of Pillow's formats, "pixels" or "no image"
    height: int  # pixels; 0 where the header does not tell
    width: int
    label: Label
    tile_width: int  # pixels of a row that one interval of a tiled JPEG has; else 0
    array_layout: str  # by which record.view reads it


def record_kind(store: Store, number: int) -> RecordKind:
    """How one record is written. Raises RecordError, with file and key, if it is none."""
    value = store.value(number)
    try:
        image, label, layout = _view(value)
        kind, height, width, tile_width = _kind(image)
    except ValueError as error:
        raise RecordError(f"{store.place(number)}: {error}") from error
    serializer = "pickle" if value[0] == 0x80 else "msgpack"
    return RecordKind(serializer, kind, height, width, label, tile_width, layout)


def _view(value: np.ndarray) -> tuple[np.ndarray, Label, str]:
    """(image, label, layout): pixels of shape (3, H, W) are not taken for others, so both layouts are tried."""
    try:
        return *record.view(value), "HWC"
    except RecordError as error:
        try:
            return *record.view(value, array_layout="CHW"), "CHW"
        except RecordError:
            raise error from None


def _kind(image: np.ndarray) -> tuple[str, int, int, int]:
    """(kind, height, width, tile width), as RecordKind has them."""
    if image.ndim == 3:
        return "pixels", image.shape[0], image.shape[1], 0
    tiles = read_tiles(image)
    if tiles is not None:
        return "tiled JPEG", tiles.height, tiles.width, tiles.interval * tiles.mcu_width
    size = jpeg_size(image)
    if size is not None:  # so there is a frame, whose marker tells its coding
        frame = next(marker for marker, _, _ in segments(memoryview(image)) if marker in FRAMES)
        return "progressive JPEG" if frame == PROGRESSIVE else "JPEG", *size, 0
    from dataflows.images.examine import examine  # Pillow, which JPEGs do not need

    examined = examine(image.tobytes())
    return examined.kind or "no image", examined.height, examined.width, 0
