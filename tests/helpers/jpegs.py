"""JPEGs of a size and a sampling that are asked for, whole and damaged."""
import cv2
import numpy as np

FACTORS = {"4:4:4": 0x111111, "4:2:2": 0x211111, "4:2:0": 0x221111, "4:4:0": 0x121111, "4:1:1": 0x411111}


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth shapes with noise: every DC category and run length turns up."""
    rng = np.random.default_rng([seed, height, width])
    small = rng.integers(0, 256, (height // 24 + 2, width // 24 + 2, channels), np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    noise = rng.normal(0, 12, smooth.shape) * (rng.random((height, width, 1)) < 0.3)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def encode(height: int, width: int, sampling: str = "4:2:0", *, quality: int = 85, optimize: int = 0, restart: int = 0,
           seed: int = 0) -> bytes:
    image = picture(height, width, 1 if sampling == "gray" else 3, seed)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, optimize,
               cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    if sampling != "gray":
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, FACTORS[sampling]]
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def damaged(jpeg: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(jpeg)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(data)))
        kind = rng.integers(4)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at:at + int(rng.integers(1, 9))]
        else:
            data[at:at + 1] = rng.integers(0, 256, int(rng.integers(1, 3)), np.uint8).tobytes()
        data = data or bytearray(b"\xff")
    return bytes(data)
