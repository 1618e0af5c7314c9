"""Calls kernels as crop_records does. Arrays are copied: another form of a kernel would be compiled for read-only ones.
"""
import numpy as np

from dataflows.jpeg.decode.planes import decode_planes
from dataflows.jpeg.decode.tables import OK, empty_tables, read_header
from dataflows.jpeg.decode.tiling import read_offsets, read_tiling


def read(image):
    """(data, Tiling, offsets, Tables) of a tiled JPEG; None if it is not read here."""
    data = np.array(image, np.uint8)
    tiling, tables = read_tiling(data), empty_tables()
    if tiling.height == 0:
        return None
    offsets = read_offsets(data, tiling)
    if not len(offsets) or read_header(data, tiling.front, tiling.core, tiling.scan, tables) != OK:
        return None
    return data, tiling, offsets, tables


def planes_of(image, region, margin_y=0, margin_x=0):
    """(the plane of each component, uint8 (rows, columns), [(down, across) of each], (top, left)), or None."""
    parts = read(image)
    if parts is None:
        return None
    planes = decode_planes(*parts, np.array(region, np.int64), margin_y, margin_x)
    if planes.number == 0:
        return None
    found = []
    for start, stride, rows, _, _ in planes.geometry[:planes.number]:
        found.append(planes.samples[start:start + rows * stride].reshape(rows, stride))
    return found, planes.geometry[:planes.number, 3:].tolist(), (planes.top, planes.left)
