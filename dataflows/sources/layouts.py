"""Finds which of ImageNet's forms a source has, for one split.

    SOURCE/SPLIT/CLASS/*                       class folders, of any dataset
    SOURCE/SPLIT/*                             images in one folder, with a file beside it that has their classes
    SOURCE/ILSVRC/Data/CLS-LOC/SPLIT           Kaggle's folders, either of the above; also from a folder on the way
    SOURCE/ILSVRC2012_img_SPLIT.tar            the official tar, of one tar per class, or of images as above

SPLIT may be ILSVRC2012_img_SPLIT, as the official tars unpack; SOURCE may be the split's folder or tar itself.
"""
import dataclasses
import os
import stat

from dataflows.sources import ground_truth
from dataflows.sources.folders import class_folders, images_in

_RULE = ("A split is a folder with one sub-folder per class: SOURCE/SPLIT/CLASS/image.JPEG; one of images with "
         "their ground truth beside it; the official ILSVRC2012_img_SPLIT.tar; or Kaggle's ILSVRC/Data/CLS-LOC")
_REMEDY = "check source and split"
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a split's images are, and how."""

    kind: str  # "class folders", "flat images" or "tar"
    path: str  # a folder or a tar


def find_layout(source: str, split: str) -> Layout:
    """The one layout that `source` has for `split`.

    Raises FileNotFoundError when there is none, ValueError, listing all, when there are several, and OSError when a
    folder on the way cannot be looked into.
    """
    if os.path.isfile(source):
        return _tar(source, split)
    try:
        found = _distinct(_in_source(source, split) or _the_source_itself(source, split))
    except OSError as error:
        raise OSError(f"{error.filename} cannot be looked into: {error.strerror}. Make it readable for the user that "
                      f"dumps, or give as the source the folder or tar to read") from error
    if not found:
        raise FileNotFoundError(_nothing(source, split))
    if len(found) > 1:
        listed = "; ".join(f"{layout.kind} in {layout.path}" for layout in found)
        raise ValueError(f"{source} holds split {split!r} in {len(found)} forms: {listed}. Give the one to "
                         f"read as the source, or move the others away")
    return found[0]


def _in_source(source: str, split: str) -> list[Layout]:
    roots = [source, *(os.path.join(source, inner) for inner in _KAGGLE)]
    found = [layout for root in roots for name in (split, f"ILSVRC2012_img_{split}")
             for layout in _in_folder(os.path.join(root, name), split)]
    tar = os.path.join(source, f"ILSVRC2012_img_{split}.tar")
    return [*found, Layout("tar", tar)] if os.path.isfile(tar) else found


def _the_source_itself(source: str, split: str) -> list[Layout]:
    named = os.path.basename(os.path.abspath(source)) in (split, f"ILSVRC2012_img_{split}")
    return _in_folder(source, split) if named else []


def _in_folder(folder: str, split: str) -> list[Layout]:
    """The layouts of a split's folder: two, when some of its images are sorted into class folders and some are not."""
    if not _is_folder(folder):
        return []
    classes, images = class_folders(folder), images_in(folder)
    # Images beside class folders are ignored, as ImageFolder does, unless a file has their classes; train has none.
    flat = images and (not classes or split != "train" and ground_truth.truth_files(ground_truth.folders_near(folder)))
    return [Layout(kind, folder) for kind, there in (("class folders", classes), ("flat images", flat)) if there]


def _is_folder(path: str) -> bool:
    """Raises OSError where that cannot be told, as in a folder that may not be entered."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _tar(path: str, split: str) -> Layout:
    if split not in os.path.basename(path):
        raise ValueError(f"the name of the source {path} must contain the split's name {split!r}, so that no split is "
                         f"taken for another. Give the other split, or rename the file")
    return Layout("tar", path)


def _distinct(layouts: list[Layout]) -> list[Layout]:
    """Each layout once: links may lead to one of them again."""
    distinct: dict[tuple[str, str], Layout] = {}
    for layout in layouts:
        distinct.setdefault((layout.kind, os.path.realpath(layout.path)), layout)
    return list(distinct.values())


def _nothing(source: str, split: str) -> str:
    folder = os.path.join(source, split)
    if os.path.islink(folder) and not os.path.exists(folder):
        return f"{folder} is a link to {os.readlink(folder)}, which is not there. Mount or restore that, or {_REMEDY}"
    if not os.path.isdir(source):
        return f"there is no folder {folder}, because there is no {source}. {_RULE}; {_REMEDY}"
    seen = sorted(os.listdir(folder if os.path.isdir(folder) else source))
    listed = ", ".join(seen[:10]) + (", ..." if len(seen) > 10 else "") or "nothing"
    if os.path.isdir(folder):
        return f"{folder} holds no class folders and no images, but {listed}. {_RULE}; sort its images first"
    return f"there is no folder {folder}; {source} holds {listed}. {_RULE}; {_REMEDY}"
