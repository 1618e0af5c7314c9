"""Small photos, as pixels, as JPEGs and in folders of classes."""
import cv2
import numpy as np

CLASSES = ("n01440764", "n01443537", "n01484850")
SIZES = ((60, 90), (120, 80), (97, 131), (200, 150), (75, 75), (64, 199), (151, 100), (88, 61))  # (height, width)


def make_photo(height: int, width: int, seed: int) -> np.ndarray:
    """RGB pixels (height, width, 3) that compress like a photograph: smooth, with some noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (4, 5, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth + generator.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


def encode_jpeg(pixels: np.ndarray, *, quality: int = 90, subsampled: bool = True) -> bytes:
    """A JPEG of RGB (H, W, 3) or grayscale (H, W) pixels, with 4:2:0 or 4:4:4 chroma."""
    factor = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if pixels.ndim == 3:
        pixels, flags = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [*flags, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return cv2.imencode(".jpg", pixels, flags)[1].tobytes()


def write_photos(folder, counts) -> None:
    """Writes counts[i] JPEGs into folder / CLASSES[i]: several sizes, both chroma formats; the second is grayscale."""
    number = 0
    for name, count in zip(CLASSES, counts):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = make_photo(*SIZES[number % len(SIZES)], seed=number)
            image = pixels[:, :, 1] if number == 1 else pixels
            (folder / name / f"{name}_{i}.JPEG").write_bytes(encode_jpeg(image, subsampled=number % 3 != 0))
            number += 1
