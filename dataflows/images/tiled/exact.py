"""Pixels of a region of a tiled JPEG, equal to libjpeg's bit for bit."""
import numpy as np

from dataflows.images.codecs import ScratchBuffer
from dataflows.jpeg.cut import TileMap
from dataflows.jpeg.decode import colors
from dataflows.jpeg.decode import planes as decoder
from dataflows.jpeg.decode.planes import PlaneDecoder

_LEAST_CHROMA = 3  # columns of a whole image: libjpeg interpolates the rows of fewer in another way


def decode_exactly(planes: PlaneDecoder, data: np.ndarray, tiles: TileMap, region: list[int], memory: ScratchBuffer
                   ) -> np.ndarray | None:
    """The pixels of a region (top, left, height, width) of the image: uint8 RGB, (height, width, 3), in `memory`.

    None for what is not decoded here, or is damaged: libjpeg's pixels of it are those that count.
    """
    top, left, height, width = region
    part = planes.decode(data, tiles, region, tiles.margin_y, tiles.margin_x)
    if part is None:
        return None
    luma, *chroma = part.planes
    y, x = top - part.origin[0], left - part.origin[1]
    pixels = memory.take(3 * height * width)[:3 * height * width]
    if not chroma:
        colors.gray_to_rgb(luma.samples, luma.stride, y, x, height, width, pixels, 3 * width)
        return pixels.reshape(height, width, 3)
    blue, red = chroma
    down, across = luma.down / blue.down, luma.across / blue.across
    if luma[3:] != (1, 1) or blue[3:] != red[3:] or down not in (1, 2) or across not in (1, 2):
        return None
    if across == 2 and -(-tiles.width // 2) < _LEAST_CHROMA:
        return None
    rows, columns = (min(-(-(tiles.height - part.origin[0]) // int(down)), blue.rows),
                     min(-(-(tiles.width - part.origin[1]) // int(across)), blue.stride))
    colors.to_rgb(luma.samples, luma.stride, blue.samples, red.samples, blue.stride, rows, columns, int(across),
                  int(down), y, x, height, width, pixels, 3 * width)
    return pixels.reshape(height, width, 3)


def run_all() -> None:
    """Calls every compiled function with arguments of the types that it gets, and next to nothing to do."""
    decoder.run_all()
    sample, pixel = np.zeros(1, np.uint8), np.zeros(3, np.uint8)
    colors.gray_to_rgb(sample, 1, 0, 0, 1, 1, pixel, 3)
    colors.to_rgb(sample, 1, sample, sample, 1, 1, 1, 1, 1, 0, 0, 1, 1, pixel, 3)
