"""Finds image and label in a record as storage/record.py packs it, in a kernel; all else is left to its `view`."""
from typing import Any, NamedTuple

import numpy as np

from dataflows.jpeg.compiled import Int, compiled
from dataflows.storage.record import ARRAY_DATA, ARRAY_HEAD

ENCODED, PIXELS, OTHER = 1, 2, 0
_HEAD, _DATA = np.frombuffer(ARRAY_HEAD, np.uint8), np.frombuffer(ARRAY_DATA, np.uint8)


class Place(NamedTuple):
    """What a record has: ENCODED or PIXELS from byte `start` to `end`, of (height, width) if PIXELS; OTHER is none of
    these. labelled: whether `label` is its class number; what else it is, is behind `end`."""

    kind: Int
    start: Int
    end: Int
    height: Int
    width: Int
    labelled: bool
    label: Int


NO_PLACE = Place(OTHER, 0, 0, 0, 0, False, 0)


@compiled
def place_of(value: np.ndarray) -> Place:
    """Where the image of a record is, uint8 (n,). Bounds: each place is compared with the record's size first."""
    if value.size == 0 or value[0] != 0x92:
        return NO_PLACE
    kind, height, width = np.int64(ENCODED), np.int64(0), np.int64(0)
    start, end = _binary(value, 1)
    if start == 0:
        kind = np.int64(PIXELS)
        if not _has(value, 0, _HEAD):
            return NO_PLACE
        height_ok, height, at = _integer(value, np.int64(_HEAD.size))
        width_ok, width, at = _integer(value, at)
        depth_ok, depth, at = _integer(value, at)
        if not (height_ok and width_ok and depth_ok) or depth != 3 or not _has(value, at, _DATA):
            return NO_PLACE
        start, end = _binary(value, at + _DATA.size)
        if not (0 < height < 1 << 31 and 0 < width < 1 << 31 and 3 * height * width == end - start):
            return NO_PLACE
    if start == 0 or start == end:
        return NO_PLACE
    labelled, label, behind = _integer(value, end)
    return Place(kind, start, end, height, width, labelled and behind == value.size, label)


@compiled
def _binary(value: np.ndarray, at: Int) -> tuple[Int, Int]:
    """(start, end) of msgpack's bytes whose head is at `at`; (0, 0) if there is none, or they are not in front of the
    last byte."""
    if at >= value.size or not 0xC4 <= value[at] <= 0xC6:
        return np.int64(0), np.int64(0)
    size = np.int64(1) << (np.int64(value[at]) - 0xC4)
    start = at + 1 + size
    if start >= value.size:
        return np.int64(0), np.int64(0)
    end = start + _big(value, at + 1, size)
    if end >= value.size:
        return np.int64(0), np.int64(0)
    return start, end


@compiled
def _has(value: np.ndarray, at: Int, wanted: np.ndarray) -> bool:
    if at + wanted.size > value.size:
        return False
    for i in range(wanted.size):
        if value[at + i] != wanted[i]:
            return False
    return True


@compiled
def _big(value: np.ndarray, at: Int, size: Int) -> Any:
    number = np.int64(0)
    for i in range(size):
        number = number << 8 | np.int64(value[at + i])
    return number


@compiled
def _integer(value: np.ndarray, at: Int) -> tuple[bool, Int, Int]:
    """(whether an integer of msgpack's that fits into 63 bits starts at `at`, it, where it ends)."""
    if at >= value.size:
        return False, np.int64(0), np.int64(at)
    mark = np.int64(value[at])
    if mark < 0x80:
        return True, mark, np.int64(at + 1)
    if mark >= 0xE0:
        return True, mark - 256, np.int64(at + 1)
    if not 0xCC <= mark <= 0xD3:
        return False, np.int64(0), np.int64(at)
    size = np.int64(1) << (mark & 3)
    if at + 1 + size > value.size:
        return False, np.int64(0), np.int64(at)
    number = _big(value, at + 1, size)
    if mark >= 0xD0:
        number = number << (64 - 8 * size) >> (64 - 8 * size)
    return mark != 0xCF or number >= 0, number, at + 1 + size
