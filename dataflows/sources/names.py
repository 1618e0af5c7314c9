"""Tells by a file's name whether it is an image, as ImageFolder does, and counts the others by kind.

    kind                       of
    .gif, .txt, ...            files with another extension, which is in lower case
    without an extension       files without
    with another extension     those with one that lacks a letter or is longer than 10, and the rarest where there are
                               more than 30 kinds
    macOS companion            ._NAME, what macOS adds to NAME on file systems of others; .DS_Store
    image beside the classes   images outside of the class folders, which ImageFolder does not take
"""
import os
import re
from collections import Counter
from typing import Callable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
COMPANION, BESIDE = "macOS companion", "image beside the classes"
MACOS_FOLDER = "__MACOSX"  # of companions, beside what an archive of macOS is unpacked to
_WITHOUT, _OTHER = "without an extension", "with another extension"
_EXTENSION = re.compile(r"\.(?=.*[a-z])[a-z0-9~_+-]{1,10}", re.ASCII)
_KINDS = 30
_APPLE_DOUBLE = b"\0\x05\x16\x07"  # how a companion begins (RFC 1740)


def is_image(name: str) -> bool:
    """Whether ImageFolder takes a file of this name."""
    return name.lower().endswith(EXTENSIONS)


def is_companion(name: str, start: Callable[[], bytes]) -> bool:
    """Whether a file of this name, whose first bytes `start` gives, is a companion, and so no image or tar.

    A name alone does not tell: a real image may be called so.
    """
    return os.path.basename(name).startswith("._") and start().startswith(_APPLE_DOUBLE)


def kind_left_out(name: str) -> str:
    """The kind of a file that is no image by its name."""
    base = os.path.basename(name)
    if base.startswith("._") or base == ".DS_Store":
        return COMPANION
    extension = os.path.splitext(base)[1].lower()
    return extension if _EXTENSION.fullmatch(extension) else _OTHER if extension else _WITHOUT


def by_kind(counts: Counter[str]) -> dict[str, int]:
    """How many files of each kind are left out, the most frequent first, and the rarest of many kinds together."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rare = sum(count for _, count in ranked[_KINDS:])
    kept = dict(ranked[:_KINDS])
    return kept | {_OTHER: kept.get(_OTHER, 0) + rare} if rare else kept
