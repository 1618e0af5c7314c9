"""What an image is for a user's callable: a tensor, an array or a PIL image; and what it is for a batch."""
from typing import Any

import numpy as np
import torch

from dataflows.images.resize import to_planes

IMAGE_TYPES = ("tensor", "numpy", "pil")
KINDS = {"tensor": "uint8 tensors (3, H, W)", "numpy": "uint8 arrays (H, W, 3)", "pil": "PIL images"}


def as_image(pixels: np.ndarray, image_type: str) -> Any:
    """uint8 pixels of shape (H, W, 3) as what `image_type` says."""
    if image_type == "tensor":
        return torch.from_numpy(planar(pixels))
    if image_type == "numpy":
        return pixels
    from PIL import Image  # only image_type="pil" needs it

    return Image.fromarray(pixels)


def planar(image: Any) -> Any:
    """An array or PIL image as an array that torch takes, (3, H, W) if it was (H, W, 3); other things as they are."""
    if not hasattr(image, "__array_interface__"):  # numpy and PIL have it, torch tensors lack it
        return image
    image = np.asarray(image)
    if not image.size:
        raise ValueError(f"the transform gave an image without pixels, of shape {image.shape}")
    if image.dtype.kind not in "biufc":
        raise TypeError(f"the transform gave an array of dtype {image.dtype}, of which torch makes no tensor: it must "
                        f"be of numbers")
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.ndim == 3 and image.shape[2] == 3:
        return to_planes(image) if image.dtype == np.uint8 else np.ascontiguousarray(image.transpose(2, 0, 1))
    return image if image.flags.writeable and image.flags.c_contiguous else image.copy("C")
