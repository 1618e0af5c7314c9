"""Pillow's view of an image file, which is what torchvision's ImageFolder shows of it. Only the dump imports this.

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

from dataflows.record import RecordError

_CLASSES: dict[str, Any] = {
    "JPEG": JpegImagePlugin.JpegImageFile, "PNG": PngImagePlugin.PngImageFile, "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile, "BMP": BmpImagePlugin.BmpImageFile, "PPM": PpmImagePlugin.PpmImageFile,
    "GIF": GifImagePlugin.GifImageFile}
FORMATS = tuple(_CLASSES)


def open_image(content: bytes, kind: str) -> Any:
    """The PIL image of a file of one of FORMATS. Its header is read, and nothing is decoded. Raises RecordError."""
    try:
        return _CLASSES[kind](io.BytesIO(content))
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise RecordError(f"the {kind} file is damaged: Pillow cannot read its header ({error})") from error


def to_rgb(image: Any) -> np.ndarray:
    """The pixels of convert("RGB") of what `open_image` gave: uint8, (H, W, 3), of the first frame. Raises RecordError.

    Refuses the modes that Pillow clips instead of scaling them: nearly all of a 16-bit gray image would be white.
    """
    if image.mode.startswith(("I", "F")):
        raise RecordError(f"it has no faithful RGB form: Pillow cuts mode {image.mode} off at 255. Scale it to 8 bits")
    try:
        image.load()
        image.info.pop("transparency", None)  # only the reason of a warning: convert("RGB") takes no notice of it
        return np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # as above: whatever Pillow raises is the fault of the file
        raise RecordError(f"the {image.format} file is truncated or damaged: Pillow cannot decode it ({error})"
                          ) from error
