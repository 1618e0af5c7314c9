"""The plan: which box of each image becomes which pixels of its crop, as numbers, and what follows from it.

A plan is an int32 array of shape (B, 9), one row per image, whose columns have the names of the constants below:

    0-3  CORNER, SIDES    top, left, height, width of the box of the source, in pixels; together BOX
    4-5  RESIZED          height, width that this box is resized to, in pixels
    6-7  OFFSET           top, left: where the output window starts in the resized box
    8    FLIP             1 to mirror the window left to right, else 0

The window has the transform's `size`. transforms.py makes plans, and resize.py carries out their rows.
"""
import numpy as np

BOX, CORNER, SIDES, RESIZED, OFFSET, FLIP = slice(0, 4), slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8), 8
PLAN_COLUMNS = 9


def make_plan(boxes: np.ndarray, height: int | np.ndarray, width: int | np.ndarray, top: int | np.ndarray,
              left: int | np.ndarray, flip: int | np.ndarray) -> np.ndarray:
    """A plan of its columns, each an array of shape (B,) or the same for all rows; boxes are (B, 4)."""
    plan = np.empty((len(boxes), PLAN_COLUMNS), np.int32)
    plan[:, BOX] = boxes
    for column, values in enumerate((height, width, top, left, flip), BOX.stop):
        plan[:, column] = values
    return plan


def reductions(plan: np.ndarray) -> np.ndarray:
    """1, 2, 4 or 8 for each row: the most by which its image can be reduced before its box is smaller than its result.
    """
    ratio = (plan[:, SIDES] / plan[:, RESIZED]).min(axis=1)
    return np.where(ratio >= 8, 8, np.where(ratio >= 4, 4, np.where(ratio >= 2, 2, 1)))


def reduced(plan: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The plan for images that are decoded at 1/factor of their size: boxes in pixels of these, int32 (B, 9).

    An image of h x w pixels then has ceil(h / factor) x ceil(w / factor). Box edges are rounded to pixels of these, so
    a crop can be off by half a factor, less than half a pixel of the output; and what libjpeg's smaller inverse DCTs
    leave out of the picture is filtered otherwise than by the resize from its full size.
    """
    plan, factor = plan.copy(), factors[:, None]
    ends = -(-(plan[:, CORNER] + plan[:, SIDES]) // factor)  # up: an image's last pixel is one of its own
    plan[:, CORNER] = np.rint(plan[:, CORNER] / factor)
    plan[:, SIDES] = ends - plan[:, CORNER]
    return plan


def unreduced(boxes: np.ndarray, factors: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Boxes of `regions` in pixels of the whole images, by a reduced pixel wider on each side, but within the image.

    Some samplings interpolate their reduced chroma from that pixel, in rows of at least three samples, each of at most
    two reduced pixels: so boxes get as wide as that. Without reduction boxes stay as they are.
    """
    factor = factors[:, None]
    margin = np.where(factor > 1, factor, 0)
    first = np.maximum(boxes[:, CORNER] * factor - margin, 0)
    end = np.minimum((boxes[:, CORNER] + boxes[:, SIDES]) * factor + margin, np.stack([heights, widths], axis=1))
    least = np.where(factors > 1, 4 * factors + 1, 0)
    first[:, 1] = np.minimum(first[:, 1], np.maximum(end[:, 1] - least, 0))
    end[:, 1] = np.maximum(end[:, 1], np.minimum(first[:, 1] + least, widths))
    return np.concatenate([first, end - first], axis=1)


def regions(plan: np.ndarray, size: tuple[int, int], bicubic: np.ndarray | bool = False) -> np.ndarray:
    """The part of the image that each row's window of `size` depends on: int64 (B, 4), a box as in a plan.

    The antialiased bilinear filter looks `support` source pixels around each output pixel's center, as PIL's does:
    the scale when it shrinks, one when it enlarges; the bicubic filter twice as far. `bicubic` says which filter a row
    has, for each row (B,) or for all. A window of the whole box depends on just the box.
    """
    plan = plan.astype(np.int64)
    side = plan[:, SIDES]
    scale = side / plan[:, RESIZED]
    support = np.maximum(scale, 1.0) * np.where(bicubic, 2, 1).reshape(-1, 1)
    first = np.maximum(((plan[:, OFFSET] + 0.5) * scale - support + 0.5).astype(np.int64), 0)
    end = ((plan[:, OFFSET] + size - 0.5) * scale + support + 0.5).astype(np.int64)
    return np.concatenate([plan[:, CORNER] + first, np.minimum(end, side) - first], axis=1)
