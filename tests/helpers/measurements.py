"""Hand-made measurements, as `python -m dataflows advise` makes them of a machine."""
import dataclasses

from dataflows.tools.advise.predict import PIXELS, Format, Measurements, Steps, Storage

GB = 10**9
PLAIN, TILED, FULL, AT_500, JPEG_320, SHORTER_256, JPEG_256, AT_256 = "jpeg --no-tiles", *PIXELS
JPEG_STEPS = Steps(copy_ms=0.02, decode_ms=0.9, huffman_ms=0.6, resize_ms=0.3, resize_linear_ms=0.1)
SMALL_JPEG_STEPS = dataclasses.replace(JPEG_STEPS, decode_ms=0.4, huffman_ms=0.2)
PIXEL_STEPS = Steps(copy_ms=0.05, decode_ms=0.0, huffman_ms=0.0, resize_ms=0.3, resize_linear_ms=0.1)
COPY_STEPS = Steps(copy_ms=0.5, decode_ms=0.0, huffman_ms=0.0, resize_ms=0.3, resize_linear_ms=0.1)
# With 4 threads, which are 3 times as fast as one.
FORMATS = (Format(PLAIN, 100_000, 0.0, 1500, 1.2, 2.2, dataclasses.replace(JPEG_STEPS, decode_ms=1.7), 0.2, None),
           Format(TILED, 100_000, 0.0, 2000, 1.2, 1.6, JPEG_STEPS, 0.2, None),
           Format(JPEG_320, 30_000, 0.0, 4000, 1.2, 0.8, SMALL_JPEG_STEPS, 0.4, 36.0),
           Format(JPEG_256, 20_000, 0.0, 5000, 1.2, 0.6, SMALL_JPEG_STEPS, 0.6, 32.0),
           Format(FULL, 500_000, 0.0, 6000, 1.2, 0.5, PIXEL_STEPS, 0.2, None),
           Format(AT_500, 400_000, 0.0, 8000, 1.2, 0.4, PIXEL_STEPS, 0.2, None),
           Format(SHORTER_256, 250_000, 0.0, 9000, 1.2, 0.3, PIXEL_STEPS, 0.6, 33.0),
           Format(AT_256, 150_000, 0.0, 12_000, 1.2, 0.25, PIXEL_STEPS, 0.9, 30.0))
SSD = Storage(sequential_mb_s=1000, random_mb_s=1000, cpu_s_per_mb=0.0, cold=True, about="")
HARD_DISK = Storage(sequential_mb_s=160, random_mb_s=20, cpu_s_per_mb=0.0, cold=True, about="")
SERVER = dataclasses.replace(HARD_DISK, remote=True)
UNKNOWN = dataclasses.replace(SSD, cold=False)


def measured(**changes):
    found = Measurements(
        source="train.lmdb", stored=TILED, images=1_000_000, permuted=True, shards=1, sampled=300, processors=4,
        load=0.0, memory_bytes=10_000 * GB, workers=4, scaling_encoded=((1, 600.0), (2, 1100.0), (4, 1800.0)),
        scaling_pixels=((1, 2000.0), (2, 4000.0), (4, 6000.0)), storage=SSD, formats=FORMATS)
    return dataclasses.replace(found, **changes)
