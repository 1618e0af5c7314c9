"""Examines an image file by its header: format, size and findings. Nothing is decoded.

A finding is one of these texts. Those of LOSSY mean that 8-bit RGB is not all of the image; those of UNREADABLE, that
it has no pixels to trust. All others are worth knowing, and change nothing.

    finding                           of                         means
    PNG content, JPEG name (etc.)     all                        the name's extension belongs to another format
    grayscale                         all                        one channel, spread to three
    EXIF orientation                  JPEG, PNG, WebP, TIFF      neither turned nor mirrored (but TIFF: as Pillow does)
    trailing bytes                    JPEG, PNG, WebP            something follows the end of the image
    no end marker                     JPEG, PNG, WebP            nothing says where it ends; Pillow knows if it does
    several frames                    PNG, WebP, TIFF, GIF       the first is the image
    unusual header                    JPEG                       no plain list of segments; Pillow decodes it
    CMYK, YCCK                        JPEG, TIFF                 LOSSY: four colours
    alpha                             PNG, WebP, TIFF, GIF       LOSSY: transparency, which RGB leaves out
    more than 8 bits per channel      JPEG, PNG, TIFF, PPM       LOSSY
    unusual colours                   TIFF                       LOSSY: L*a*b* and others
    truncated                         JPEG                       UNREADABLE: the file ends before the image's data
    empty                             all                        UNREADABLE: no byte
    not an image                      all                        UNREADABLE: none of pillow.FORMATS
"""
import hashlib
import os
import struct
from typing import Any, NamedTuple

from dataflows.errors import UnsupportedJPEG
from dataflows.images import pillow
from dataflows.jpeg.header import APP1, APP14, FRAMES, image_end, parse_frame, segments

NO_END = "no end marker"
GRAY = "grayscale"
DEEP = "more than 8 bits per channel"
LOSSY = ("CMYK", "YCCK", "alpha", DEEP, "unusual colours")
UNREADABLE = {"empty": "the file is empty",
              "not an image": f"it is damaged, or of a format other than {', '.join(pillow.FORMATS)}",
              "truncated": "it is damaged: truncated, its end is missing"}
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"GIF87a": "GIF", b"GIF89a": "GIF",
          b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
          **{b"P%d" % i: "PPM" for i in range(1, 7)}}
_EXTENSIONS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WebP", ".bmp": "BMP", ".tif": "TIFF",
               ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".gif": "GIF"}


class Examined(NamedTuple):
    """What a file's header says."""

    kind: str | None  # one of pillow.FORMATS
    height: int  # pixels; 0 when they are unknown
    width: int
    findings: tuple[str, ...]


def digest(content: bytes) -> bytes:
    """16 bytes that only equal contents share. Works outside the GIL."""
    return hashlib.blake2b(content, digest_size=16).digest()


def examine(content: bytes, name: str = "") -> Examined:
    """What the header of a file of this name and content says; any bytes will do. An empty name has no extension."""
    if not content:
        return Examined(None, 0, 0, ("empty",))
    kind = _kind(content)
    if kind is None:
        return Examined(None, 0, 0, ("not an image",))
    named = _EXTENSIONS.get(os.path.splitext(name)[1].lower(), kind)
    misnamed = (f"{kind} content, {named} name",) if named != kind else ()
    height, width, findings = _examine_jpeg(content) if kind == "JPEG" else _examine_other(content, kind)
    return Examined(kind, height, width, (*misnamed, *findings))


def _kind(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)


def _examine_jpeg(content: bytes) -> tuple[int, int, list[str]]:
    height = width = end = 0
    components, bits, transform, orientation = b"", 8, 0, 1
    try:
        for marker, start, end in segments(content):
            if marker in FRAMES and not components:
                height, width, components, _ = parse_frame(content, start, end)
                bits = content[start + 4]
            elif marker == APP14 and content[start + 4:start + 9] == b"Adobe" and end - start >= 16:
                transform = content[start + 15]
            elif marker == APP1 and orientation == 1 and content[start + 4:start + 10] == b"Exif\0\0":
                orientation = _orientation(content[start + 10:end])
    except UnsupportedJPEG as error:
        if error.reason == "truncated":
            return height, width, ["truncated"]
        height = 0
    if not height or not width:
        return 0, 0, ["unusual header"]
    image_at = image_end(content, end)
    found = {GRAY: len(components) == 1, "EXIF orientation": orientation > 1,
             "trailing bytes": image_at is not None and image_at < len(content),
             "CMYK": len(components) == 4 and transform != 2, "YCCK": len(components) == 4 and transform == 2,
             DEEP: bits > 8, NO_END: image_at is None}
    return height, width, [finding for finding, holds in found.items() if holds]


def _examine_other(content: bytes, kind: str) -> tuple[int, int, list[str]]:
    try:
        image = pillow.open_image(content, kind)
        width, height = image.size
        return height, width, [finding for finding, holds in _pillow_findings(image, content, kind).items() if holds]
    except MemoryError:
        raise
    except Exception:  # its properties read more of the header, which may be damaged too; decoding it says how
        return 0, 0, []


def _pillow_findings(image: Any, content: bytes, kind: str) -> dict[str, bool]:
    exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    orientation = image.tag_v2.get(274, 1) if kind == "TIFF" else _orientation(exif)
    image_at = {"PNG": _png_end, "WebP": _webp_end}.get(kind, len)(content)
    usual = image.mode.startswith(("1", "L", "P", "RGB", "CMYK", "I", "F")) and image.mode != "LAB"
    return {GRAY: image.mode.startswith(("1", "L", "I", "F")) and image.mode != "LAB",
            "EXIF orientation": orientation in range(2, 9), "trailing bytes": image_at < len(content),
            "several frames": getattr(image, "is_animated", False), "CMYK": image.mode == "CMYK",
            "alpha": image.mode.endswith(("A", "a")) or "transparency" in image.info,
            DEEP: image.mode.startswith(("I", "F")) or _most_bits(image, content, kind) > 8,
            "unusual colours": not usual, NO_END: image_at > len(content)}


def _most_bits(image: Any, content: bytes, kind: str) -> int:
    """Bits per channel where Pillow's mode does not tell them."""
    if kind == "PNG":
        return int(content[24])
    if kind == "TIFF":
        return int(max(image.tag_v2.get(258, (1,))))
    if kind == "PPM" and image.tile and isinstance(image.tile[0][3], tuple):
        return int(image.tile[0][3][1]).bit_length()  # the greatest value that occurs
    return 8


def _orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, that EXIF data, from its TIFF header on, states; 1 if it states none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    at, = struct.unpack_from(f"{order}I", exif, 4)
    count, = struct.unpack_from(f"{order}H", exif, at) if at + 2 <= len(exif) else (0,)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if tag == 0x0112:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1


def _png_end(content: bytes) -> int:
    """Where the IEND chunk of a PNG ends; beyond the content when that is cut off."""
    at = 8
    while at + 8 <= len(content):
        length, chunk = int.from_bytes(content[at:at + 4], "big"), content[at + 4:at + 8]
        at += 12 + length
        if chunk == b"IEND":
            return at
    return max(at, len(content) + 1)


def _webp_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[4:8], "little")
