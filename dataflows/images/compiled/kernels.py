"""What one thread decodes and resizes with, by our own kernels."""
import cv2
import numpy as np

from dataflows.images.compiled import exact
from dataflows.images.compiled.exact import ExactDecoder, Region
from dataflows.images.compiled.fast_crops import FastCrops
from dataflows.images.compiled.lines import lines
from dataflows.images.compiled.resample import Line, Resampler
from dataflows.jpeg.decode import colors, planes
from dataflows.jpeg.decode.planes import SLACK, PlaneDecoder, grown


class Kernels:
    """Decoders and their memory: what one gives is valid until it is used again.

    exact: regions of tiled JPEGs. fast: crops of them from planes.
    """

    def __init__(self) -> None:
        decoder = PlaneDecoder()
        self._resampler = Resampler()
        self.exact, self.fast = ExactDecoder(decoder), FastCrops(decoder, self._resampler)
        self._split = [np.empty(0, np.uint8)] * 3

    def split(self, pixels: np.ndarray) -> Region:
        """A copy of pixels, uint8 of shape (H, W, 3), as planes."""
        height, width = pixels.shape[:2]
        self._split = [grown(plane, height * width + SLACK) for plane in self._split]
        r, g, b = self._split
        cv2.split(pixels, [plane[:height * width].reshape(height, width) for plane in self._split])
        return Region((r, g, b), 0, width, height, width)

    def resize(self, pixels: Region, row: list[int], region: list[int], out: np.ndarray) -> None:
        """Fills `out`, uint8 of shape (3, h, w) in either memory order, by one row of a plan (see plan.py), from the
        pixels of its region: antialiased, and bit for bit as resize.resize_into does."""
        down, across = lines(row, (out.shape[1], out.shape[2]), region)
        whole = out if out.flags.c_contiguous else np.empty(out.shape, np.uint8)
        number = 1 if pixels.gray else 3
        self._resampler.resize(pixels.planes, number, pixels.at, pixels.stride, down, across, bool(row[8]),
                               whole[:number])
        if pixels.gray:
            whole[1:] = whole[0]
        if whole is not out:
            np.copyto(out, whole)

    def resize_linearly(self, pixels: Region, flip: bool, out: np.ndarray) -> None:
        """Fills `out`, uint8 of shape (3, h, w), contiguous, by OpenCV's INTER_LINEAR: plane by plane, which gives what
        it gives for interleaved colors."""
        for view, slot in zip(pixels.views(), out):
            if flip:
                cv2.flip(cv2.resize(view, slot.shape[::-1], interpolation=cv2.INTER_LINEAR), 1, dst=slot)
            else:
                cv2.resize(view, slot.shape[::-1], dst=slot, interpolation=cv2.INTER_LINEAR)


def run_all() -> None:
    """Calls every compiled function with arguments of the types that it gets, and next to nothing to do."""
    nothing, plane, out = planes.nothing(), np.zeros(SLACK + 1, np.uint8), np.empty((1, 1, 1), np.uint8)
    words = np.zeros(1, np.int32)
    planes.decode_box(*nothing)
    exact.decode_colors((*nothing[:-1], (words, words, words)), (1, 1, 1, 1, 1, 1, 0, 0, 1, 1), plane, plane, plane)
    colors.planes_to_rgb(*[plane] * 6)
    line = Line(0.0, 1.0, 1.0, 1, 1, 0, 1, 0, 1)
    Resampler().resize((plane, plane, plane), 1, 0, 1, line, line, False, out)
