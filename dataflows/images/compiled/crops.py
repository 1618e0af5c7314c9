"""Crops of many records in one call, which leaves the GIL to others meanwhile: from the bytes of a record to pixels.

With a call for each step of each image, threads waited longer for the GIL than they worked, from four threads on.
"""
from typing import Any

import numpy as np

from dataflows.images.compiled.exact import Pixels, is_exact, pixels_of
from dataflows.images.compiled.fast_crops import CHROMA_MARGIN, resize_planes
from dataflows.images.compiled.linear import resize_linearly
from dataflows.images.compiled.lines import lines
from dataflows.images.compiled.records import ENCODED, PIXELS, place_of
from dataflows.images.compiled.resample import resize
from dataflows.jpeg.compiled import Int, compiled
from dataflows.jpeg.decode.intrinsics import array_at, nanoseconds
from dataflows.jpeg.decode.planes import Planes, decode_planes, no_planes
from dataflows.jpeg.decode.tables import OK, Tables, empty_tables, read_header
from dataflows.jpeg.decode.tiling import Tiling, read_offsets, read_tiling

LEFT, DONE, UNLABELLED = 0, 1, 2  # to others; crop and label; the crop, and the label is left to others


@compiled
def crop_records(values: np.ndarray, plan: np.ndarray, regions: np.ndarray, sizes: np.ndarray, wanted: np.ndarray,
                 fast: bool, antialias: bool, pixels_too: bool, channels_last: bool, height: Int, width: Int,
                 out: np.ndarray, labels: np.ndarray, states: np.ndarray, spent: np.ndarray) -> None:
    """Makes the crops of n records, each (height, width), as far as they are made here.

    Args:
        values: int64 (n, 2): where each record is in memory, and how many bytes it has. The caller holds them.
        plan: int64 (n, 9), as plan.py has it.
        regions: int64 (n, 4): top, left, height, width of what the window needs, within the image.
        sizes: int64 (n, 2): the height and width of each image that `plan` was made for.
        wanted: bool (n,): whether a record is to be looked at.
        fast: JPEGs from their planes, else with libjpeg's pixels.
        antialias: as the transform says. Without it, windows are those of the whole box.
        pixels_too: records of pixels, too, with antialias; else they are left.
        channels_last: whether `out` is (n, height, width, 3), else (n, 3, height, width).
        out: uint8, flat.
        labels: int64 (n,); of DONE only.
        states: uint8 (n,): gets LEFT, DONE or UNLABELLED.
        spent: int64 (2,): gets the nanoseconds of decoding, and of resizing.
    """
    tables, size = empty_tables(), 3 * height * width
    planar = np.empty(size if channels_last else 0, np.uint8)
    spent[:] = 0
    for i in range(values.shape[0]):
        states[i] = LEFT
        if not wanted[i]:
            continue
        value = array_at(values[i, 0], values[i, 1])
        slot = out[i * size:(i + 1) * size]
        place = place_of(value)
        done, started = False, nanoseconds()
        decoded = started
        target = planar if channels_last else slot
        if place.kind == ENCODED:
            data = value[place.start:place.end]
            tiling = read_tiling(data)
            if tiling.height > 0 and tiling.height == sizes[i, 0] and tiling.width == sizes[i, 1]:
                planes = _planes_of(data, tiling, tables, regions[i], fast)
                done = planes.number > 0
                if done and fast:
                    decoded = nanoseconds()
                    resize_planes(planes, plan[i], height, width, antialias, target)
                elif done:
                    pixels = pixels_of(planes, tiling, regions[i])
                    decoded = nanoseconds()
                    if antialias:
                        down, across = lines(plan[i], height, width, regions[i])
                        resize(pixels.samples, pixels.at, pixels.stride, pixels.apart, pixels.number, down, across,
                               plan[i, 8] != 0, target)
                    else:
                        resize_linearly(pixels.samples, pixels.at, pixels.stride, pixels.apart, pixels.number,
                                        regions[i, 2], regions[i, 3], height, width, plan[i, 8] != 0, target)
                if planes.number == 1:
                    target[height * width:2 * height * width] = target[:height * width]
                    target[2 * height * width:] = target[:height * width]
        elif place.kind == PIXELS and pixels_too and place.height == sizes[i, 0] and place.width == sizes[i, 1]:
            down, across = lines(plan[i], height, width, regions[i])
            resize(value, place.start + 3 * (regions[i, 0] * place.width + regions[i, 1]), 3 * place.width, np.int64(0),
                   np.int64(3), down, across, plan[i, 8] != 0, target)
            done = True
        if done:
            spent[0] += decoded - started
            spent[1] += nanoseconds() - decoded
            if channels_last:
                _interleave(planar, slot)
            labels[i] = place.label
            states[i] = DONE if place.labelled else UNLABELLED


@compiled
def _planes_of(data: np.ndarray, tiling: Tiling, tables: Tables, region: np.ndarray, fast: Any) -> Planes:
    """The planes of a tiled JPEG that a crop of the region needs; without any where it is not decoded here."""
    offsets = read_offsets(data, tiling)
    if (offsets.size == 0 or read_header(data, tiling.front, tiling.core, tiling.scan, tables) != OK
            or not (fast or is_exact(tables, tiling.width))):
        return no_planes()
    margin_y, margin_x = tiling.margin_y, tiling.margin_x
    if fast:
        margin_y, margin_x = CHROMA_MARGIN * tiling.mcu_height // 8, CHROMA_MARGIN * tiling.mcu_width // 8
    return decode_planes(data, tiling, offsets, tables, region, margin_y, margin_x)


@compiled
def region_of(address: Int, size: Int, region: np.ndarray) -> Pixels:
    """The pixels of a region, int64 (top, left, height, width), of the tiled JPEG that is there, or none."""
    data, fast = array_at(address, size), np.bool_(False)
    tiling = read_tiling(data)
    if (tiling.height > 0 and region[0] >= 0 and region[1] >= 0 and region[2] > 0 and region[3] > 0
            and region[0] + region[2] <= tiling.height and region[1] + region[3] <= tiling.width):
        planes = _planes_of(data, tiling, empty_tables(), region, fast)
        if planes.number > 0:
            return pixels_of(planes, tiling, region)
    return Pixels(np.empty(0, np.uint8), np.int64(0), np.int64(0), np.int64(0), np.int64(0))


@compiled
def crop_pixels(address: Int, size: Int, stride: Int, row: np.ndarray, region: np.ndarray, channels_last: bool,
                height: Int, width: Int, out: np.ndarray) -> None:
    """Fills `out` as crop_records does, from the pixels of the region, RGB in rows of `stride` bytes, that are there.
    """
    planar = np.empty(out.size, np.uint8) if channels_last else out
    down, across = lines(row, height, width, region)
    resize(array_at(address, size), np.int64(0), stride, np.int64(0), np.int64(3), down, across, row[8] != 0, planar)
    if channels_last:
        _interleave(planar, out)


@compiled
def _interleave(planes: np.ndarray, out: np.ndarray) -> None:
    """out[3 * i + n] = planes[n * size + i]"""
    size: Any = np.uint64(out.size // 3)
    for i in range(out.size // 3):
        at = np.uint64(i)
        out[np.uint64(3) * at] = planes[at]
        out[np.uint64(3) * at + np.uint64(1)] = planes[at + size]
        out[np.uint64(3) * at + np.uint64(2)] = planes[at + size + size]
