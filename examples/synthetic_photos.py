#!/usr/bin/env python3
"""Make a small folder of synthetic photos in ImageNet's layout, OUT/{train,val}/nXXXXXXXX/*.JPEG, without a download.

A photo is one textured thing (stripes, honeycomb, petals, ...: one texture per class, named after the ImageNet class it
imitates) at a random place, scale and angle on a smooth 1/f background, with random light, lens blur and sensor noise.
Sizes are ImageNet's: mostly 500x375 and 375x500, a few odd ones; a 500x375 file weighs 50-150 KB. Photo number i of a
split depends on (seed, split, i, num_classes) alone, so the same arguments, numpy and OpenCV give the same files.

    python examples/synthetic_photos.py --out /tmp/photos --train 320 --val 80
"""
import argparse
import pathlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

Texture = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
SPLITS = ("train", "val")


def stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    bend = rng.uniform(.1, .3) * np.sin(3 * v + rng.uniform(0, 6))
    return step(np.sin(rng.uniform(9, 14) * (u + bend))), ellipse(u, v)


def disc(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    light = 1 - .6 * np.hypot(u - rng.uniform(-.4, .4), v - rng.uniform(-.4, .4))
    return light + .04 * np.sin(40 * u) * np.sin(40 * v), ellipse(u, v)


def hexagons(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = rng.uniform(12, 18)
    waves = [np.cos(k * (u * np.cos(a) + v * np.sin(a))) for a in (0, np.pi / 3, 2 * np.pi / 3)]
    return step(sum(waves) + .6), np.ones_like(u)


def petals(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    edge = .55 + .45 * np.abs(np.cos(rng.integers(4, 8) * angle))
    return step((radius - .28) * 8), step((edge - radius) * 12)


def spots(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = rng.uniform(10, 15)
    warp_u, warp_v = u + .08 * np.sin(7 * v), v + .08 * np.sin(5 * u + 1)
    return 1 - step(np.cos(k * warp_u) * np.cos(k * warp_v) - .35), ellipse(u, v)


def web(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    spokes = np.abs(np.sin(rng.integers(5, 8) * angle)) * radius * 25
    rings = np.abs(np.sin(rng.uniform(16, 22) * radius)) * 4
    thread = 1 - np.clip(np.minimum(spokes, rings), 0, 1)
    return thread, thread * (radius < 1.3)


def squares(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = rng.uniform(4, 6)
    cells = rng.random((32, 32)) < .65
    column, row = (np.clip(np.floor(k * x) + 16, 0, 31).astype(int) for x in (u, v))
    line = np.minimum(np.abs(np.sin(np.pi * k * u)), np.abs(np.sin(np.pi * k * v))) > .15
    return (cells[row, column] & line).astype(float), (np.maximum(np.abs(u), np.abs(v)) < 1).astype(float)


def bricks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = rng.uniform(3, 5)
    row = np.floor(2 * k * v)
    shifted = k * u + .5 * (row % 2)
    joint = np.minimum(np.abs(np.sin(np.pi * shifted)), np.abs(np.sin(2 * np.pi * k * v)))
    stone = rng.uniform(.5, 1, (64, 64))[row.astype(int) % 64, np.floor(shifted).astype(int) % 64]
    return stone * step((joint - .15) * 8), np.ones_like(u)


# Texture, then its two RGB colours (at 0 and at 1), by ImageNet's folder name; the first num_classes of them are used.
CLASSES: dict[str, tuple[Texture, tuple[int, int, int], tuple[int, int, int]]] = {
    "n02391049": (stripes, (35, 30, 30), (235, 230, 220)),    # zebra
    "n07747607": (disc, (110, 40, 0), (255, 160, 30)),        # orange
    "n03530642": (hexagons, (90, 55, 15), (230, 175, 60)),    # honeycomb
    "n11939491": (petals, (235, 190, 30), (240, 240, 245)),   # daisy
    "n02128385": (spots, (40, 30, 20), (215, 165, 95)),       # leopard
    "n04275548": (web, (150, 150, 160), (240, 240, 250)),     # spider web
    "n06785654": (squares, (25, 25, 30), (240, 240, 230)),    # crossword puzzle
    "n04326547": (bricks, (60, 55, 55), (165, 155, 150)),     # stone wall
}


def step(x: np.ndarray) -> np.ndarray:
    """0 below zero, 1 above, with a soft edge about as wide as a pixel of a typical texture."""
    return np.clip(4 * x + .5, 0, 1)


def ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return step(4 * (1 - u * u - v * v))


def pink_noise(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width) float array of mean 0 and deviation 1 whose amplitude falls as 1/f, as in natural images."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = rng.standard_normal((2, *frequency.shape)) / frequency ** 1.2
    noise = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], (height, width)).astype(np.float32)
    return noise / noise.std()


def pink_hue(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width, 3) float array, one smooth field per channel: the eye, and 4:2:0, see little detail in colour."""
    small = np.stack([rng.uniform(4, 14) * pink_noise(height // 4 + 1, width // 4 + 1, rng) for _ in range(3)], -1)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def draw_photo(wnid: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One photo of class `wnid`: (height, width, 3) uint8 RGB."""
    texture, dark, bright = CLASSES[wnid]
    scale, angle = rng.uniform(.25, .55) * min(height, width), rng.uniform(0, 2 * np.pi)
    x = (np.arange(width) - rng.uniform(.25, .75) * width)[None] / scale
    y = (np.arange(height) - rng.uniform(.25, .75) * height)[:, None] / scale / rng.uniform(.8, 1.25)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    pattern, mask = (a.astype(np.float32)[..., None] for a in texture(u, v, rng))

    shade = pink_noise(height, width, rng)[..., None]
    mean = np.float32(rng.uniform(50, 190) + rng.uniform(-30, 30, 3))
    scene = mean + rng.uniform(25, 50) * shade + pink_hue(height, width, rng)
    dark, bright = np.float32((dark, bright) + rng.normal(0, 12, (2, 3)))
    thing = dark + (bright - dark) * pattern + 14 * shade[::-1, ::-1]
    image = scene + (thing - scene) * mask
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(.5, .9))                        # the lens
    image *= np.float32(rng.uniform(.75, 1.2) * rng.uniform(.92, 1.08, 3))              # exposure and white balance
    image += rng.uniform(4, 11) * rng.standard_normal((height, width, 1), np.float32)   # sensor noise: mostly shade ...
    image += 2 * rng.standard_normal(image.shape, np.float32)                           # ... and a little colour
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """(height, width) in pixels."""
    kind = rng.random()
    if kind < .62:
        return 375, 500
    if kind < .86:
        return 500, 375
    return int(rng.integers(161, 640)), int(rng.integers(161, 640))


def encode_photo(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """JPEG bytes of an RGB image: quality 88-95, 80 % 4:2:0 and 20 % 4:4:4, half with optimised Huffman tables."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if rng.random() < .8 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(88, 96)), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling,
               cv2.IMWRITE_JPEG_OPTIMIZE, int(rng.random() < .5)]
    ok, encoded = cv2.imencode(".jpg", image[..., ::-1], options)
    assert ok
    return encoded.tobytes()


def write_photos(out: str | pathlib.Path, *, train: int = 320, val: int = 80, num_classes: int = 4,
                 seed: int = 0) -> None:
    """Write `train` and `val` photos, dealt evenly to `num_classes` classes, to out/train and out/val.

    Raises ValueError for more classes than there are textures or a split with fewer photos than classes, and
    FileExistsError when out/train or out/val is there already: files of an earlier run would mix with the new ones.
    """
    out, counts = pathlib.Path(out), {"train": train, "val": val}
    if not 2 <= num_classes <= len(CLASSES):
        raise ValueError(f"num_classes must be 2 to {len(CLASSES)}, not {num_classes}")
    if min(train, val) < num_classes:
        raise ValueError(f"train={train} and val={val} must both be at least num_classes={num_classes}: "
                         "every class needs a photo")
    for split in SPLITS:
        if (out / split).exists():
            raise FileExistsError(f"{out / split} exists: remove it or write to another folder")

    wnids = list(CLASSES)[:num_classes]
    for split in SPLITS:
        for wnid in wnids:
            (out / split / wnid).mkdir(parents=True)
    jobs = [(out, split, i, wnids[i % num_classes], seed) for split in SPLITS for i in range(counts[split])]
    with ThreadPoolExecutor() as pool:
        list(pool.map(write_photo, *zip(*jobs, strict=True)))


def write_photo(out: pathlib.Path, split: str, i: int, wnid: str, seed: int) -> None:
    rng = np.random.default_rng([seed, SPLITS.index(split), i])
    name = f"{wnid}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{i + 1:08d}.JPEG"
    (out / split / wnid / name).write_bytes(encode_photo(draw_photo(wnid, *random_size(rng), rng), rng))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a small folder of synthetic photos in ImageNet's layout.")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder to make train/ and val/ in")
    parser.add_argument("--train", type=int, default=320, help="photos in train/ (default: %(default)s)")
    parser.add_argument("--val", type=int, default=80, help="photos in val/ (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=4, help=f"2 to {len(CLASSES)} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same arguments, same files (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        write_photos(args.out, train=args.train, val=args.val, num_classes=args.classes, seed=args.seed)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
