"""One small file of each kind that a dump meets, made by Pillow and OpenCV: {name: (content, what is found)}."""
import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from helpers.photos import make_photo

PHOTO = make_photo(36, 52, seed=3)
IMAGE = Image.fromarray(PHOTO)
GRAY, CMYK = IMAGE.convert("L"), IMAGE.convert("CMYK")
_ALPHA = np.tile(np.linspace(0, 255, 52).astype(np.uint8), (36, 1))
RGBA = Image.fromarray(np.dstack([PHOTO, _ALPHA]))
GRAY_ALPHA = Image.merge("LA", (GRAY, Image.fromarray(_ALPHA)))
DEEP = PHOTO.astype(np.uint16) * 257


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def segment(marker, payload):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def with_segment(jpeg, marker, payload):
    return jpeg[:2] + segment(marker, payload) + jpeg[2:]


def with_precision(jpeg, bits):
    at = jpeg.index(b"\xff\xc0") + 4
    return jpeg[:at] + bytes([bits]) + jpeg[at + 1:]


def with_adobe_transform(jpeg, transform):
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + bytes([transform]) + jpeg[at + 1:]


def without_adobe(jpeg):
    at = jpeg.index(b"Adobe") - 4
    return jpeg[:at] + jpeg[at + 16:]


def png_header(height, width):
    """A PNG of which nothing but the header is there: 60 bytes that state any number of pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")),
              (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + name + data
                                           + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)


def jpeg_with_size(jpeg, height, width):
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4:]


def gray_tiff(values, bits):
    """A TIFF of one row of whole numbers of so many bits, which Pillow does not write itself."""
    data = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(len(values) * bits // 8, "big")
    tags = ((256, 3, len(values)), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 3, 1), (279, 4, len(data)))
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + rows + bytes(4)


JPEG = saved(IMAGE, "JPEG", quality=90)
CMYK_JPEG = saved(CMYK, "JPEG", quality=95, subsampling=0)
PNG = saved(IMAGE, "PNG")
OTHER = saved(Image.fromarray(255 - PHOTO), "PNG")
DEEPER = "more than 8 bits per channel"

# Stored in every mode.
PLAIN = {
    "photo.JPEG": (JPEG, ()),
    "progressive.jpg": (saved(IMAGE, "JPEG", progressive=True), ()),
    "rgb.jpg": (saved(IMAGE, "JPEG", keep_rgb=True), ()),  # an Adobe marker that says so
    "gray.jpg": (saved(GRAY, "JPEG"), ("grayscale",)),
    "turned.jpg": (saved(IMAGE, "JPEG", exif=turned(6)), ("EXIF orientation",)),
    "trailing.jpg": (JPEG + b"what a camera appends \xff\xd9", ("trailing bytes",)),
    "trailing progressive.jpg": (saved(IMAGE, "JPEG", progressive=True) + b"\0", ("trailing bytes",)),
    "no end.jpg": (JPEG[:-2] + bytes(500), ("no end marker",)),  # as a disk leaves it that lost the last block
    "no end but text.jpg": (JPEG[:-2] + b"what comes next on the disk", ("no end marker",)),
    "half of zeros.jpg": (JPEG[:len(JPEG) // 2] + bytes(len(JPEG)), ("no end marker",)),  # many a code is of zeros
    "no end.png": (PNG[:-12], ("no end marker",)),
    "flawed.jpg": (JPEG[:-2] + b"\x12\x34\xff\xd9", ("flawed data",)),
    "header.jpg": (JPEG[:20] + b"garbage" + JPEG[20:], ("unusual header",)),
    "a png.JPEG": (PNG, ("PNG content, JPEG name",)),
    "a jpeg.png": (JPEG, ("JPEG content, PNG name",)),
    "photo.png": (PNG, ()),
    "photo.bmp": (saved(IMAGE, "BMP"), ()),
    "photo.ppm": (saved(IMAGE, "PPM"), ()),
    "gray.pgm": (saved(GRAY, "PPM"), ("grayscale",)),
    "photo.tif": (saved(IMAGE, "TIFF"), ()),
    "photo.TIFF": (saved(IMAGE, "TIFF", compression="tiff_lzw"), ()),
    "photo.webp": (saved(IMAGE, "WEBP", lossless=True), ()),
    "gray.png": (saved(GRAY, "PNG"), ("grayscale",)),
    "1 bit.png": (saved(IMAGE.convert("1"), "PNG"), ("grayscale",)),
    "palette.png": (saved(IMAGE.quantize(16), "PNG", bits=4), ()),
    "turned.png": (saved(IMAGE, "PNG", exif=turned(3)), ("EXIF orientation",)),
    "turned.webp": (saved(IMAGE, "WEBP", exif=turned(8)), ("EXIF orientation",)),
    "turned.tif": (saved(IMAGE, "TIFF", exif=turned(6)), ("EXIF orientation",)),
    "trailing.png": (PNG + b"more", ("trailing bytes",)),
    "trailing.webp": (saved(IMAGE, "WEBP") + b"more", ("trailing bytes",)),
    "moves.webp": (saved(IMAGE, "WEBP", save_all=True, append_images=[GRAY]), ("several frames",)),
    "moves.png": (saved(IMAGE, "PNG", save_all=True, append_images=[GRAY.convert("RGB")]), ("several frames",)),
    "pages.tif": (saved(IMAGE, "TIFF", save_all=True, append_images=[GRAY.convert("RGB")]), ("several frames",)),
    "a gif.jpg": (saved(IMAGE, "GIF", save_all=True, append_images=[GRAY]), ("GIF content, JPEG name",
                                                                              "several frames")),
}
# Errors, unless they are to be fixed.
LOSSY = {
    "cmyk.jpg": (CMYK_JPEG, ("CMYK",)),
    "cmyk plain.jpg": (without_adobe(CMYK_JPEG), ("CMYK",)),
    "ycck.jpg": (with_adobe_transform(CMYK_JPEG, 2), ("YCCK",)),
    "cmyk.tif": (saved(CMYK, "TIFF"), ("CMYK",)),
    "lab.tif": (saved(IMAGE.convert("LAB"), "TIFF"), ("unusual colours",)),
    "alpha.png": (saved(RGBA, "PNG"), ("alpha",)),
    "alpha.tif": (saved(RGBA, "TIFF"), ("alpha",)),
    "alpha.webp": (saved(RGBA, "WEBP", lossless=True), ("alpha",)),
    "gray alpha.png": (saved(GRAY_ALPHA, "PNG"), ("grayscale", "alpha")),
    "palette alpha.png": (saved(IMAGE.quantize(256), "PNG", transparency=bytes(range(256))), ("alpha",)),
    "one colour.png": (saved(IMAGE, "PNG", transparency=(1, 2, 3)), ("alpha",)),
    "deep.png": (cv2.imencode(".png", DEEP[:, :, ::-1])[1].tobytes(), (DEEPER,)),
    "deep.tif": (cv2.imencode(".tif", DEEP[:, :, ::-1])[1].tobytes(), (DEEPER,)),
    "deep.ppm": (b"P6 52 36 65535\n" + DEEP.byteswap().tobytes(), (DEEPER,)),
}
# Errors in every mode, and what the error says.
BAD = {
    "empty.jpg": (b"", "the file is empty"),
    "zeros.jpg": (bytes(500), "damaged, or of a format other than JPEG"),
    "text.JPEG": (b"not an image", "damaged, or of a format other than JPEG"),
    "half.jpg": (JPEG[:len(JPEG) // 2], "truncated"),
    "half progressive.jpg": (PLAIN["progressive.jpg"][0][:700], "truncated"),
    "no end at all.jpg": (JPEG[:-2], "truncated"),
    "no end of scans.jpg": (PLAIN["progressive.jpg"][0][:-2] + bytes(500), "truncated"),
    "two starts.jpg": (JPEG[:-2] + b"\xff\xd8" + JPEG[-2:], "damaged: Pillow"),  # OpenCV shows it
    "half.png": (PNG[:1000], "truncated"),
    "half.webp": (saved(IMAGE, "WEBP")[:300], "damaged"),
    "half.tif": (PLAIN["photo.tif"][0][:1000], "truncated or damaged|damaged: Pillow"),
    "half.bmp": (PLAIN["photo.bmp"][0][:1000], "truncated or damaged"),
    "bomb.png": (png_header(60_000, 60_000),
                 "60,000 x 60,000 pixels, and max_pixels is 178,956,970: .*max_pixels=3600000000 takes it"),
    "bomb.jpg": (jpeg_with_size(JPEG, 65_000, 65_000), "65,000 x 65,000 pixels, and max_pixels is 178,956,970"),
    "hidden bomb.jpg": (jpeg_with_size(PLAIN["header.jpg"][0], 65_000, 65_000), "65,000 x 65,000 pixels"),
    "no height.jpg": (jpeg_with_size(JPEG, 0, 52), "damaged"),
    "no width.jpg": (jpeg_with_size(JPEG, 36, 0), "damaged"),
    "12 bits.jpg": (with_precision(JPEG, 12), "of a kind that Pillow, and so ImageFolder, does not read .*12-bit"),
    "deep gray.png": (cv2.imencode(".png", DEEP[:, :, 0])[1].tobytes(), "it is 16-bit gray, .*>> 8"),
    "deep gray.tif": (cv2.imencode(".tif", DEEP[:, :, 0])[1].tobytes(), "it is 16-bit gray, .*>> 8"),
    "deep gray.pgm": (b"P5 52 36 65535\n" + DEEP[:, :, 0].byteswap().tobytes(), "it is 16-bit gray, .*>> 8"),
    "12 bits.tif": (gray_tiff(range(0, 4096, 64), 12), "it is 12-bit gray, .*>> 4"),
    "32 bits.tif": (saved(Image.fromarray(DEEP[:, :, 0].astype(np.int32) * 9999), "TIFF"), "it is 32-bit gray, .*ptp"),
    "float.tif": (saved(Image.fromarray(PHOTO[:, :, 0].astype(np.float32)), "TIFF"), "floating-point gray, .*ptp"),
    "float rgb.tif": (cv2.imencode(".tif", PHOTO.astype(np.float32))[1].tobytes(), "does not read .*pixel mode"),
}
