"""From the bytes of an image file to what the dump stores: a tiled JPEG, the file's own JPEG, or pixels."""
import dataclasses
from typing import NamedTuple

import numpy as np

from dataflows.errors import RecordError, UnsupportedJPEG
from dataflows.images import pillow
from dataflows.images.codecs import MAX_PIXELS, decode, decode_perfect, encode, refuse_bomb
from dataflows.images.examine import DEEP, GRAY, LOSSY, NO_END, UNREADABLE, Examined, examine
from dataflows.images.resize import resize
from dataflows.jpeg.tile import cut, read_tiles, same_coefficients, tile
from dataflows.options import integer, one_of

CONVERTED, ENCODED, FLAWED = "converted to RGB", "encoded as JPEG", "flawed data"  # findings
_JPEG_SIDE = 65_500  # libjpeg's limit


class Prepared(NamedTuple):
    """What is stored of one image, and what it was."""

    image: bytes | np.ndarray  # encoded, or uint8 RGB of shape (H, W, 3)
    height: int  # as stored, in pixels
    width: int
    untiled: str | None  # why a JPEG is stored without tiles; None when it has them, or none were asked for
    findings: tuple[str, ...] = ()  # those of examine.examine, and "converted to RGB", "flawed data", "encoded as JPEG"


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How images are stored: `format`, and the sizes that limit them; a callable on a file's content and name.

    format: "jpeg" keeps a JPEG's coefficients, and encodes anew only what is resized, at `quality`, and what is no
        JPEG, at quality 100 in 4:4:4; "uint8" stores pixels.
    max_side: greatest length of the longer side in pixels, or None.
    shorter_side: greatest length of the shorter side in pixels, or None. Images are never enlarged.
    quality: of JPEGs encoded anew, 1 to 100.
    tiles: turn JPEGs into tiled ones, losslessly (see tiling.py); False keeps the file's bytes.
    compare_pixels: compare each tiled JPEG with the original: all coefficients, by the loaders' own decoder, and the
        pixels of two cuts; where that decoder does not know the original, all pixels.
    fix: convert what is not 8-bit RGB or gray (examine.LOSSY) as PIL's convert("RGB") does; False refuses it.
    max_pixels: how many an image may have: its header is asked before memory is taken for them.

    Raises ValueError for values out of range.
    """

    format: str = "jpeg"
    max_side: int | None = None
    shorter_side: int | None = None
    quality: int = 90
    tiles: bool = True
    compare_pixels: bool = True
    fix: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        one_of("format", self.format, ("jpeg", "uint8"))
        for name in ("max_side", "shorter_side"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), 1)
        integer("max_pixels", self.max_pixels, 1)
        if integer("quality", self.quality, 1) > 100:
            raise ValueError(f"quality is a JPEG quality from 1 to 100, not {self.quality}")

    def __call__(self, content: bytes | np.ndarray, name: str = "") -> Prepared:
        """What is stored of a file with this content; `name` tells whether its extension is right, unless it is empty.

        Decodes every image, so that a damaged one is found now and not in training. Content may also be pixels, a uint8
        array of shape (H, W, 3) in RGB or (H, W) in gray: these are stored as those of a PNG are. Raises RecordError.
        """
        if isinstance(content, np.ndarray):
            return self._of_pixels(content)
        examined = examine(content, name)
        self._refuse(content, examined)
        lossy = bool({*LOSSY} & {*examined.findings})
        foreign = lossy or examined.kind != "JPEG" or not examined.height  # loaders would not decode it alike
        pixels, decisions = self._pixels(content, examined, foreign)
        findings = examined.findings + ((CONVERTED,) if lossy else ()) + decisions
        size = self.stored_size(*pixels.shape[:2])
        resized = size != pixels.shape[:2]
        if resized:
            pixels = resize(pixels, *size)
        if self.format == "uint8":
            return Prepared(pixels, *size, None, findings)
        kept = None if resized or foreign else self._kept(content, findings, pixels)
        if kept is not None:
            flawless = not {NO_END, FLAWED} & {*findings}
            return Prepared(*self._tiled(kept, size, pixels, flawless), findings)
        if not resized or foreign:
            findings += (ENCODED,)
        return Prepared(*self._tiled(self._encoded(pixels, resized), size), findings)

    def _of_pixels(self, pixels: np.ndarray) -> Prepared:
        refuse_bomb(pixels.shape[0], pixels.shape[1], self.max_pixels)
        findings = (GRAY,) if pixels.ndim == 2 else ()
        size = self.stored_size(*pixels.shape[:2])
        resized = size != pixels.shape[:2]
        pixels = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
        pixels = resize(pixels, *size) if resized else pixels
        if self.format == "uint8":
            return Prepared(pixels, *size, None, findings)
        return Prepared(*self._tiled(self._encoded(pixels, resized), size), (*findings, ENCODED))

    def _encoded(self, pixels: np.ndarray, resized: bool) -> bytes:
        """Pixels as a JPEG: those of a file that keeps its size as faithfully as JPEG can."""
        if max(pixels.shape) > _JPEG_SIDE:
            raise RecordError(f"JPEG does not hold {pixels.shape[0]:,} x {pixels.shape[1]:,} pixels; max_side=N "
                              f"shrinks them")
        return encode(pixels, self.quality) if resized else encode(pixels, 100, full_color=True)

    def _kept(self, content: bytes, findings: tuple[str, ...], pixels: np.ndarray) -> bytes | None:
        """A JPEG as it is stored: without a flaw, its own bytes; else what loaders decode to its pixels, if anything.

        Where there is no end marker, one is appended: tiles need it, and other decoders may.
        """
        if NO_END in findings:
            forms = [content + b"\xff\xd9", content] if self.tiles else [content, content + b"\xff\xd9"]
        elif FLAWED in findings:
            forms = [content]
        else:
            return content
        return next((form for form in forms if _decodes(form, pixels)), None)

    def _tiled(self, jpeg: bytes, size: tuple[int, int], pixels: np.ndarray | None = None, flawless: bool = True
               ) -> tuple[bytes, int, int, str | None]:
        """A JPEG with tiles, its size, and None; or as it is, with why. `pixels` are its own, if they are known;
        `flawless` says that they are what its coefficients show."""
        if not self.tiles:
            return jpeg, *size, None
        try:
            tiled = tile(jpeg)
        except UnsupportedJPEG as error:
            return jpeg, *size, error.reason
        why = None
        if self.compare_pixels:
            pixels = decode(jpeg) if pixels is None else pixels
            same = flawless and same_coefficients(jpeg, tiled) or _decodes(tiled, pixels)
            why = _flaw_of_cuts(tiled, pixels) if same else "its tiled form has other pixels"
        return tiled if why is None else jpeg, *size, why

    def _refuse(self, content: bytes, examined: Examined) -> None:
        """Raises RecordError for a file that has no pixels to store, too many of them, or none without a loss."""
        for finding in examined.findings:
            if finding in UNREADABLE:
                raise RecordError(UNREADABLE[finding])
        refuse_bomb(examined.height, examined.width, self.max_pixels)
        lossy = [finding for finding in examined.findings if finding in LOSSY]
        if DEEP in lossy:  # told before what `fix` would do, for it would not
            pillow.refuse_deep_gray(pillow.open_image(content, str(examined.kind)))
        if lossy and not self.fix:
            raise RecordError(f"{', '.join(lossy)}: not 8-bit RGB. on_error='fix' stores PIL's "
                              f'convert("RGB") of it, as ImageFolder shows it')

    def _pixels(self, content: bytes, examined: Examined, foreign: bool) -> tuple[np.ndarray, tuple[str, ...]]:
        """The pixels of a file, as PIL's convert("RGB") gives them, and what more there is to say of them.

        A flawless JPEG is decoded as loaders do it, which is the same. Of all else Pillow is the judge: OpenCV shows
        some files that Pillow refuses.
        """
        pixels = None if foreign else decode_perfect(content)
        if pixels is not None:
            return pixels, ()
        image = pillow.open_image(content, str(examined.kind))
        refuse_bomb(image.height, image.width, self.max_pixels)  # again: the size of a damaged header was not known
        return pillow.to_rgb(image), () if foreign or NO_END in examined.findings else (FLAWED,)

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the limits; the longer side is truncated, as torchvision's Resize does it."""
        longer, shorter = max(height, width), min(height, width)
        if self.shorter_side is not None and shorter > self.shorter_side:
            longer, shorter = self.shorter_side * longer // shorter, self.shorter_side
        if self.max_side is not None and longer > self.max_side:
            longer, shorter = self.max_side, max(1, self.max_side * shorter // longer)
        return (longer, shorter) if height >= width else (shorter, longer)


def _decodes(jpeg: bytes, pixels: np.ndarray) -> bool:
    """Whether loaders decode a JPEG to these pixels."""
    try:
        return np.array_equal(decode(jpeg), pixels)
    except RecordError:
        return False


def _flaw_of_cuts(tiled: bytes, pixels: np.ndarray) -> str | None:
    """What is wrong with cuts of a tiled JPEG that shows these pixels as a whole; None if nothing is.

    A cut has a header and an order of its own, and any box shows what it makes of colors. The two here, of a few MCUs,
    show besides what a cut does to data. One is in the middle of the last rows: what is above and beside it is left
    out, but for margins, and where intervals wrap around, some are left out between rows and blank MCUs are added. The
    other ends in the lower right corner, where the last interval is short and MCUs reach beyond the image.
    """
    try:
        tiles = read_tiles(tiled)
        if tiles is None:
            return "its tiled form has no list of tiles"
        height, width = min(tiles.mcu_height + 1, tiles.height), min(tiles.mcu_width + 1, tiles.width)
        top = tiles.height - height
        for left in ((tiles.width - width) // 2, tiles.width - width):
            small, (y, x) = cut(tiled, tiles, top, left, height, width)
            if not np.array_equal(decode(small)[top - y:, left - x:left - x + width], pixels[top:, left:left + width]):
                return "a cut of its tiled form has other pixels"
    except ValueError:
        return "its tiled form cannot be cut"
    return None
