"""Draws a contact sheet: samples with their labels, before and after the transform, as one picture."""
import bisect
import math
import os
from typing import Any, Mapping

from PIL import Image, ImageDraw, ImageFont

from dataflows.terminal import printable
from dataflows.tools.sheet.views import SIDE, WIDTH, View, Views

COLUMNS = 3
_MARGIN, _GAP, _PADDING, _LINE = 32, 20, 14, 20  # pixels
_TITLE = 92  # height of the head
_CARD = (WIDTH + _PADDING + SIDE + 2 * _PADDING, SIDE + 3 * _LINE + 2 * _PADDING + 4)
_PAGE, _PAPER, _EDGE, _EMPTY = "#eef0f3", "#ffffff", "#d9dde3", "#f3f4f6"
_INK, _FAINT, _ACCENT = "#1b2430", "#5d6875", "#1f5f8b"
_ABOUT = {"train": "random resized crops, half of them mirrored",
          "val": "center crops, after the shorter side was resized to 256"}


def contact_sheet(path: str | os.PathLike[str], *, transform: str = "train", count: int = 24, seed: int = 0,
                  storage_options: Mapping[str, Any] | None = None) -> Image.Image:
    """Samples of an LMDB file, drawn by the seed: on the left of each the stored image, on the right what training or
    evaluation sees of it, below its class, file, key and size.

    transform: "train" for RandomResizedCrop(224), "val" for CenterCrop(224); the frame on the left is what it takes.
    count: how many, 1 to 300; a file that has fewer is shown whole. seed: of the samples and of the crops.
    storage_options: how to reach a URL, as LMDBLoader has them.

    Returns an RGB picture of COLUMNS cards in a row. The same arguments give the same picture. Names are set in the
    font that Pillow brings: characters that it lacks are boxes here, and text in the page of `--report`. Raises what
    Store and RecordReader raise for files and records that cannot be read, and ValueError for options out of range.

    >>> contact_sheet("val.lmdb", transform="val", count=6).save("sheet.png")
    """
    with Views(path, storage_options) as views:
        numbers = views.draw(count, seed)
        cards = map(_card, views(numbers, transform, seed))
        columns = min(COLUMNS, len(numbers))
        rows = -(-len(numbers) // columns)
        width, height = _CARD[0] + _GAP, _CARD[1] + _GAP
        sheet = Image.new("RGB", (2 * _MARGIN + columns * width - _GAP, 2 * _MARGIN + _TITLE + rows * height - _GAP),
                          _PAGE)
        told = f"{len(numbers):,} of {len(views):,} records, seed {seed}. Left: as stored, with the part that is taken."
        for top, text, size, color in (
                (-4, printable(os.path.basename(views.path)), 26, _INK), (32, told, 15, _FAINT),
                (53, f"Right: what a loader gives for {transform}, {_ABOUT[transform]}.", 15, _FAINT)):
            _write(ImageDraw.Draw(sheet), (_MARGIN, _MARGIN + top), text, size, color, sheet.width - 2 * _MARGIN)
        for place, card in enumerate(cards):
            row, column = divmod(place, columns)
            sheet.paste(card, (_MARGIN + column * width, _MARGIN + _TITLE + row * height))
    return sheet


def _card(sample: View) -> Image.Image:
    card = Image.new("RGB", _CARD, _PAGE)
    draw, room = ImageDraw.Draw(card), _CARD[0] - 2 * _PADDING
    draw.rounded_rectangle((0, 0, _CARD[0] - 1, _CARD[1] - 1), 8, _PAPER, _EDGE)
    left, right, top = _PADDING, WIDTH + 2 * _PADDING, SIDE + _PADDING + 8
    draw.rectangle((left, left, left + WIDTH - 1, left + SIDE - 1), _EMPTY)
    before, after = sample.before, sample.after
    assert after is not None
    card.paste(before, (left + (WIDTH - before.width) // 2, left + (SIDE - before.height) // 2))
    card.paste(after, (right, left))
    _write(draw, (left, top), sample.class_name, 17, _INK, room)
    _write(draw, (left, top + _LINE + 3), "  ·  ".join(sample.details), 14, _FAINT, WIDTH)
    if sample.mirrored:
        _write(draw, (right, top + _LINE + 3), "mirrored", 14, _ACCENT, SIDE)
    _write(draw, (left, top + 2 * _LINE + 2), sample.source, 14, _FAINT, room)
    return card


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: str, room: int) -> None:
    """Writes a line of text, cut off with an ellipsis where it is longer than `room` pixels."""
    font, most = ImageFont.load_default(size), room // 2  # letters: none is narrower than two pixels
    if len(text) > most or draw.textlength(text, font) > room:
        lengths = range(min(len(text), most))
        text = text[:bisect.bisect(lengths, room, key=lambda n: math.ceil(draw.textlength(text[:n] + "…", font))) - 1]
        text += "…"
    draw.text(at, text, color, font)
