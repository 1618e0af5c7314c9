"""Pixels of a region of a tiled JPEG, equal to libjpeg's bit for bit."""
from typing import Any, NamedTuple

import cv2
import numpy as np

from dataflows.jpeg.compiled import compiled
from dataflows.jpeg.cut import TileMap
from dataflows.jpeg.decode.colors import to_rgb
from dataflows.jpeg.decode.entropy import OK
from dataflows.jpeg.decode.planes import SLACK, PlaneDecoder, decode_box, grown

_LEAST_CHROMA = 3  # columns of a whole image: libjpeg interpolates the rows of fewer in another way
Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


class Region(NamedTuple):
    """Pixels of a region as planes of R, G and B: uint8, flat, in rows of `stride` from index `at` on, with SLACK bytes
    behind. All planes are one if the image is gray."""

    planes: Planes
    at: int
    stride: int
    height: int
    width: int

    @property
    def gray(self) -> bool:
        return self.planes[0] is self.planes[1]

    def views(self) -> list[np.ndarray]:
        """Each plane as (height, width)."""
        end = self.at + (self.height - 1) * self.stride + self.width
        return [np.lib.stride_tricks.as_strided(plane[self.at:end], (self.height, self.width), (self.stride, 1))
                for plane in self.planes]

    def interleaved(self) -> np.ndarray:
        """The pixels as (height, width, 3), in fresh memory."""
        return cv2.merge(self.views()).reshape(self.height, self.width, 3)


class ExactDecoder:
    """Decodes one region at a time, in memory of one thread."""

    def __init__(self, planes: PlaneDecoder) -> None:
        self._planes = planes
        self._rgb = [np.empty(0, np.uint8)] * 3

    def decode(self, data: np.ndarray, tiles: TileMap, region: list[int]) -> Region | None:
        """The pixels of a region (top, left, height, width) of the image, valid until the next call.

        None for what is not decoded here, or is damaged: libjpeg's pixels of it are those that count.
        """
        prepared = self._planes.prepare(data, tiles, region, tiles.margin_y, tiles.margin_x)
        if prepared is None:
            return None
        arguments, part = prepared
        top, left, height, width = region
        luma, *chroma = part.planes
        y, x = top - part.origin[0], left - part.origin[1]
        if not chroma:
            if decode_box(*arguments) != OK:
                return None
            return Region((luma.samples,) * 3, y * luma.stride + x, luma.stride, height, width)
        blue, red = chroma
        down, across = luma.down / blue.down, luma.across / blue.across
        if (luma[3:] != (1, 1) or blue[3:] != red[3:] or down not in (1, 2) or across not in (1, 2)
                or across == 2 and -(-tiles.width // 2) < _LEAST_CHROMA):
            return None
        down, across = int(down), int(across)
        rows = min(-(-(tiles.height - part.origin[0]) // down), blue.rows)
        columns = min(-(-(tiles.width - part.origin[1]) // across), blue.stride)
        self._rgb = [grown(plane, height * luma.stride + SLACK) for plane in self._rgb]
        r, g, b = self._rgb
        colors = luma.stride, blue.stride, rows, columns, across, down, y, x, height, width
        if decode_colors(arguments, colors, r, g, b) != OK:
            return None
        return Region((r, g, b), 0, luma.stride, height, width)


@compiled
def decode_colors(arguments: tuple[Any, ...], colors: tuple[int, ...], r: np.ndarray, g: np.ndarray, b: np.ndarray
                  ) -> int:
    """decode_box(*arguments), and to_rgb of its planes with the numbers among its arguments. Returns OK or CORRUPT.

    One function, because it takes time to get the GIL back where many threads want it.
    """
    status = decode_box(*arguments)
    if status == OK:
        luma_stride, chroma_stride, rows, columns, across, down, top, left, height, width = colors
        luma, cb, cr = arguments[-1]
        to_rgb(luma.view(np.uint8), luma_stride, cb.view(np.uint8), cr.view(np.uint8), chroma_stride, rows, columns,
               across, down, top, left, height, width, r, g, b)
    return status
