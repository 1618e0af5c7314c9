"""Resizes pixels to a crop, in its slot of a batch: the only module that knows torch's resize.

The antialiased resize of torch differs from PIL's BILINEAR, hence from torchvision's on PIL images, by one level at
most on photos (by two in one value of some thousand images of white noise); from PIL's BICUBIC, by two. It resizes from
the corner on, which for a window in the middle of a very long image would take gigabytes: such a window is PIL's own.

Both make the horizontal pass first, and round its result to levels. That cuts off what the bicubic filter overshoots:
with it, the order matters. Pillow 13 makes the vertical pass first for some images, which differ more at sharp edges.
"""
import functools
from typing import TYPE_CHECKING, Any, Callable

import cv2
import numpy as np

from dataflows.images.codecs import ScratchBuffer
from dataflows.images.plan import regions
from dataflows.owned_arrays import Owner

if TYPE_CHECKING:  # otherwise the first resize imports torch, which takes longer than all else that a dump imports
    import torch

_CORNER_PIXELS = 1 << 22  # of source and result; for CenterCrop(224), images have to be longer than 5 : 1 to be far


def resize(pixels: np.ndarray, height: int, width: int, *, antialias: bool = True, bicubic: bool = False,
           scales: tuple[float, float] | tuple[None, None] = (None, None), out: np.ndarray | None = None) -> np.ndarray:
    """`pixels` (H, W, 3) resized to (height, width), bilinearly or bicubically: uint8, in `out` or in fresh memory.

    `scales` are of height and width, from the top left corner, where they are not those of the two sizes: the result is
    a part of a larger one. They need antialias. `out` is contiguous, of (height, width).
    """
    if not antialias:
        resized = cv2.resize(pixels, (width, height), dst=out,
                             interpolation=cv2.INTER_CUBIC if bicubic else cv2.INTER_LINEAR)
        return resized if out is None else out
    # A strided crop would be copied inside the operator by a pool of torch's own, one in each of our threads, whose
    # idle threads spin: 1.24 ms of processor time for a 400x300 crop, against 0.35 with this copy.
    pixels = np.ascontiguousarray(pixels)
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    _antialiased(bicubic)(_tensor(pixels), (height, width), False, *scales, out=_tensor(out))
    return out


@functools.cache
def _antialiased(bicubic: bool) -> Callable[..., object]:
    """The operator behind torch.nn.functional.interpolate(antialias=True). Called directly, it writes into memory of
    ours, and computes no more of the output than is asked for. It frees the GIL."""
    import torch

    aten = torch.ops.aten
    operator: Callable[..., object] = (aten._upsample_bicubic2d_aa if bicubic else aten._upsample_bilinear2d_aa).out
    return operator


def _tensor(pixels: np.ndarray) -> "torch.Tensor":
    """(H, W, 3) pixels as a (1, 3, H, W) tensor on the same memory."""
    import torch

    if not pixels.flags.writeable:
        interface = pixels.__array_interface__  # without the read-only mark, at which torch warns; nobody writes here
        pixels = np.asarray(Owner(interface | {"data": (interface["data"][0], False)}, pixels))
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def to_planes(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) pixels as (3, H, W), in fresh contiguous memory."""
    out = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(out))  # five times as fast as numpy's strided copy
    return out


def resize_into(pixels: np.ndarray, row: list[int], antialias: bool, out: np.ndarray, *,
                bicubic: bool = False, origin: tuple[int, int] = (0, 0), memory: ScratchBuffer | None = None) -> None:
    """Fills `out`, uint8 of shape (3, h, w) in either memory order, by one row of a plan (see plan.py).

    `pixels` is the image, or a part of it that has the row's region, with its top left pixel at `origin`. A window that
    is not the whole of the resized box needs antialias. `memory` is used for what lies in between.
    """
    top, left, height, width, to_height, to_width, y, x, flip = row
    # In channels-last memory, the last step leaves its result in place.
    last = out.transpose(1, 2, 0) if out.strides[2] == 3 else None
    bottom, right = y + out.shape[1], x + out.shape[2]
    if is_far(row, *out.shape[1:]):
        box, y, x, bottom, right = _far_window(pixels, row, out.shape[1:], bicubic, origin), 0, 0, *out.shape[1:]
    else:
        box = _box(pixels, top - origin[0], left - origin[1], height, width, memory or ScratchBuffer())
        if box.strides[2] != 1:  # planar or BGR arrays of other writers
            box = np.ascontiguousarray(box)
        if (bottom, right) == (to_height, to_width) != (height, width):
            box = resize(box, bottom, right, antialias=antialias, bicubic=bicubic,
                         out=None if flip or y or x else last)
        elif (height, width) != (to_height, to_width):
            # The operator ignores the scale of a side that is as long before as after: so ask for a pixel more.
            more = [to != side and end == part for to, side, end, part in zip(
                (to_height, to_width), (height, width), (bottom, right), box.shape)]
            box = resize(box, bottom + more[0], right + more[1], bicubic=bicubic,
                         scales=(to_height / height, to_width / width))
    if y or x or box.shape[:2] != (bottom, right):
        box = box[y:bottom, x:right]
    if flip:
        flipped = cv2.flip(box, 1, dst=last)
        box = flipped if last is None else last
    if last is None:
        cv2.split(np.ascontiguousarray(box), list(out))  # 0.012 ms together; of a strided window the split takes 0.156
    elif box is not last:
        np.copyto(last, box)


def is_far(row: Any, height: int, width: int) -> Any:
    """Whether all that is between the corner and the end of a window of (height, width) would be much, and much more
    than the window; `row` is one of a plan, or the columns of one, and float where products may be large."""
    _, _, box_height, box_width, to_height, to_width, y, x, _ = row
    corner = (y + height) * (x + width)
    return ((corner > 4 * height * width)
            & (corner * (1 + box_height * box_width / (to_height * to_width)) > _CORNER_PIXELS))


def _far_window(pixels: np.ndarray, row: list[int], size: tuple[int, ...], bicubic: bool, origin: tuple[int, int]
                ) -> np.ndarray:
    """The window of `size` of an antialiased resize, (h, w, 3), from its region alone; the rest as in `resize_into`."""
    from PIL import Image  # which readers need for nothing else, and rarely for this

    box_top, box_left, box_height, box_width, to_height, to_width, y, x, _ = row
    [(top, left, height, width)] = regions(np.array([row]), (size[0], size[1]), bicubic).tolist()
    scale_y, scale_x = box_height / to_height, box_width / to_width
    in_y, in_x = y * scale_y - (top - box_top), x * scale_x - (left - box_left)
    part = pixels[top - origin[0]:top - origin[0] + height, left - origin[1]:left - origin[1] + width]
    first, last = max(in_x, 0), min(in_x + size[1] * scale_x, width)
    image = Image.fromarray(np.ascontiguousarray(part))
    interpolation = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    if bicubic:  # the horizontal pass alone, to be the first one: see above
        image = image.resize((size[1], height), interpolation, box=(first, 0, last, height))
        first, last = 0, size[1]
    rows = max(in_y, 0), min(in_y + size[0] * scale_y, height)
    return np.array(image.resize((size[1], size[0]), interpolation, box=(first, rows[0], last, rows[1])))


def _box(pixels: np.ndarray, top: int, left: int, height: int, width: int, memory: ScratchBuffer) -> np.ndarray:
    """A box of the image. Where `pixels` is a part of it that lacks some of the box, nobody looks at what is missing:
    it is undefined above and left of the part, and left out below and right of it, but for a pixel.
    """
    if top >= 0 and left >= 0 and top + height <= pixels.shape[0] and left + width <= pixels.shape[1]:
        return pixels[top:top + height, left:left + width]
    # With the pixel, for the resize rounds otherwise than plan.regions, and may give it a weight of next to nothing.
    height, width = min(height, pixels.shape[0] - top + 1), min(width, pixels.shape[1] - left + 1)
    box = memory.take(3 * height * width)[:3 * height * width].reshape(height, width, 3)
    y, x = max(-top, 0), max(-left, 0)
    part = pixels[max(top, 0):top + height, max(left, 0):left + width]
    box[y:y + part.shape[0], x:x + part.shape[1]] = part
    return box
