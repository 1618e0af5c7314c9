"""Reads an image file with Pillow, as torchvision's ImageFolder shows it. Only the dump imports this.

Files are opened by the class of their format, not by `Image.open`: that would try formats which run other programs
(EPS), and has a limit of size that belongs to the whole process, where the dump has its own.
"""
import io
from typing import Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dataflows.errors import RecordError

_CLASSES: dict[str, Any] = {
    "JPEG": JpegImagePlugin.JpegImageFile, "PNG": PngImagePlugin.PngImageFile, "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile, "BMP": BmpImagePlugin.BmpImageFile, "PPM": PpmImagePlugin.PpmImageFile,
    "GIF": GifImagePlugin.GifImageFile}
FORMATS = tuple(_CLASSES)
# How a user makes 8-bit gray of an image: of whole numbers by their bits; else nobody knows which value is white.
_SHIFTED = "Image.fromarray((np.asarray(Image.open(path)) >> {}).astype(np.uint8)).save(path)"
_STRETCHED = ("a = np.asarray(Image.open(path), float); "
              "Image.fromarray((255 * (a - a.min()) / (np.ptp(a) or 1)).astype(np.uint8)).save(path)")


def open_image(content: bytes, kind: str) -> Any:
    """The PIL image of a file of one of FORMATS. Its header is read, and nothing is decoded. Raises RecordError."""
    try:
        return _CLASSES[kind](io.BytesIO(content))
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise RecordError(f"the {kind} file is damaged, or of a kind that Pillow, and so ImageFolder, does not read "
                          f"({error}). Convert it to 8-bit RGB with a program that reads it") from error


def refuse_deep_gray(image: Any) -> None:
    """Raises RecordError for what convert("RGB") would spoil: it cuts gray of more than 8 bits off, and scales nothing.

    All above 255 of 65,535 would be white; all of 0.0 to 1.0, black.
    """
    if not image.mode.startswith(("I", "F")):
        return
    bits = _bits(image)
    what = "floating-point gray" if image.mode.startswith("F") else f"{bits}-bit gray"
    remedy = _SHIFTED.format(bits - 8) if bits <= 16 else _STRETCHED
    raise RecordError(f"it is {what}, which has no faithful RGB form: Pillow's convert(\"RGB\"), as ImageFolder calls "
                      f"it, cuts off values above 255 and scales none. Make it 8-bit gray, in Python: {remedy}")


def _bits(image: Any) -> int:
    """Bits of a gray image of more than 8, as Pillow opens it: it scales PNG and PPM to 16."""
    if image.format != "TIFF":
        return 16
    try:
        return max(int(bits) for bits in image.tag_v2[258] if 8 < bits <= 64)
    except Exception:  # as above
        return 32


def to_rgb(image: Any) -> np.ndarray:
    """The pixels of convert("RGB") of what `open_image` gave: uint8, (H, W, 3), of the first frame. Raises RecordError.

    Refuses the modes that Pillow clips instead of scaling them.
    """
    refuse_deep_gray(image)
    try:
        image.load()
        image.info.pop("transparency", None)  # only the reason of a warning: convert("RGB") takes no notice of it
        return np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # as above: whatever Pillow raises is the fault of the file
        raise RecordError(f"the {image.format} file is truncated or damaged: Pillow cannot decode it ({error})"
                          ) from error
