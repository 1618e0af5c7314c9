"""Pixels of a region of a tiled JPEG, equal to libjpeg's bit for bit."""
from typing import NamedTuple

import numpy as np

from dataflows.jpeg.compiled import Int, compiled
from dataflows.jpeg.decode.colors import to_rgb
from dataflows.jpeg.decode.planes import SLACK, Planes
from dataflows.jpeg.decode.tables import Tables
from dataflows.jpeg.decode.tiling import Tiling

_LEAST_CHROMA = 3  # columns of a whole image: libjpeg interpolates the rows of fewer in another way


class Pixels(NamedTuple):
    """Of a region: planes of R, G and B, or one of gray; `number` of them, 0 where they are not decoded here.

    samples: uint8, flat, with SLACK bytes behind. The first pixel is at index `at`; a plane has rows of `stride`, and
    the next one begins `apart` bytes from it.
    """

    samples: np.ndarray
    at: Int
    stride: Int
    apart: Int
    number: Int


@compiled
def is_exact(tables: Tables, width: Int) -> bool:
    """Whether the pixels of an image of this width are made here: not where chroma stands for more than two pixels in a
    row or column, or is of two samplings, and not of very narrow images."""
    factors = tables.factors
    if factors[0] != 3:
        return True
    down, across = factors[1] // factors[3], factors[2] // factors[4]  # pixels of a chroma sample
    return bool(factors[1] == down * factors[3] and factors[2] == across * factors[4] and down <= 2 and across <= 2
                and factors[3] == factors[5] and factors[4] == factors[6]
                and (across == 1 or (width + 1) // 2 >= _LEAST_CHROMA))


@compiled
def pixels_of(planes: Planes, tiling: Tiling, region: np.ndarray) -> Pixels:
    """The pixels of a region, int64 (top, left, height, width), from planes that have it and the tiling's margins. For
    images of which `is_exact` says so.

    Bounds: as those of to_rgb, which compares all sizes.
    """
    top, left, height, width = region[0], region[1], region[2], region[3]
    y, x, stride = top - planes.top, left - planes.left, planes.geometry[0, 1]
    if planes.number != 3:
        return Pixels(planes.samples, y * stride + x, stride, np.int64(planes.samples.size), planes.number)
    down, across = planes.most_down // planes.geometry[1, 3], planes.most_across // planes.geometry[1, 4]
    blue, red, chroma_stride = planes.geometry[1, 0], planes.geometry[2, 0], planes.geometry[1, 1]
    rows = min((tiling.height - planes.top + down - 1) // down, planes.geometry[1, 2])
    columns = min((tiling.width - planes.left + across - 1) // across, chroma_stride)
    size = height * stride
    rgb = np.empty(3 * size + SLACK, np.uint8)
    to_rgb(planes.samples[:blue], stride, planes.samples[blue:red], planes.samples[red:], chroma_stride, rows, columns,
           across, down, y, x, height, width, rgb[:size], rgb[size:2 * size], rgb[2 * size:])
    return Pixels(rgb, np.int64(0), stride, size, np.int64(3))
