"""Finds the files beside the images that say the class of each val image and the names of classes.

Looked for in the images' folder, the one above, and, in Kaggle's ILSVRC/Data/CLS-LOC, those above that:

    ILSVRC2012_devkit_t12/data/ or ILSVRC2012_devkit_t12.tar.gz   ground truth and class names
    a .txt with a wnid on each line                               ground truth, in the sorted order of the images
    LOC_val_solution.csv                                          ground truth, by image
    LOC_synset_mapping.txt or synset_words.txt                    class names
"""
import dataclasses
import os
import tarfile
import zlib
from collections import Counter
from importlib.util import find_spec
from typing import Sequence

from dataflows.sources import annotations

_KAGGLE = ("CLS-LOC", "Data", "ILSVRC")  # its folders, from the inside
_SOLUTION = "LOC_val_solution.csv"
_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")
_DEVKIT = "ILSVRC2012_devkit_t12"
_IDS, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
FORMS = f"{_DEVKIT}.tar.gz, {_SOLUTION}, or a .txt with a wnid on each line"


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The classes of val images: a list in the images' sorted order, or a dict by name without extension."""

    path: str
    wnids: list[str] | dict[str, str]

    def of(self, names: Sequence[str]) -> list[str]:
        """The wnid of each of the images `names`, which are sorted. Raises ValueError unless both are of the same."""
        if isinstance(self.wnids, dict):
            return self._by_name([os.path.splitext(name)[0] for name in names], self.wnids)
        if len(names) != len(self.wnids):
            raise ValueError(f"there are {len(names):,} images, and {self.path} has the classes of "
                             f"{len(self.wnids):,}. Add the missing images, or remove those that are not val's")
        return self.wnids

    def _by_name(self, names: list[str], wnids: dict[str, str]) -> list[str]:
        unknown, absent = sorted(set(names) - set(wnids)), sorted(set(wnids) - set(names))
        twice = [name for name, count in Counter(names).items() if count > 1]
        if unknown or absent or twice:
            listed = [_some(unknown, "images are not in it"), _some(absent, "images in it are missing"),
                      _some(twice, "images are there with several extensions")]
            raise ValueError(f"there are {len(names):,} images, and {self.path} has the classes of {len(wnids):,}: "
                             f"{' and '.join(filter(None, listed))}. Complete or remove these")
        return [wnids[name] for name in names]


def folders_near(path: str) -> list[str]:
    """Where files about the images of a folder or tar may be, nearest first."""
    path = os.path.abspath(path)
    folders = [path] if os.path.isdir(path) else []
    folders.append(os.path.dirname(path))
    while os.path.basename(folders[-1]) in _KAGGLE:
        folders.append(os.path.dirname(folders[-1]))
    return folders


def truth_files(folders: list[str]) -> list[str]:
    """The files that say which classes images have, and the devkit's folder or archive behind all others."""
    found = [path for folder in folders for path in
             (os.path.join(folder, _SOLUTION), *_lists_in(folder)) if os.path.isfile(path)]
    devkit = _find_devkit(folders)
    return found if devkit is None else [*found, devkit]


def labels_of(names: Sequence[str], folders: list[str]) -> tuple[list[str], list[str]]:
    """The wnid of each of the images `names`, which are sorted, and the files that say so, all of them the same.

    Raises FileNotFoundError without any such file, ValueError when one is damaged or does not fit, or two disagree.
    """
    truths: list[GroundTruth] = []
    for path in truth_files(folders):
        if path == _find_devkit(folders):
            if not truths or find_spec("scipy"):
                truths.append(GroundTruth(path, _devkit_wnids(path)))
        elif path.endswith(".csv"):
            truths.append(GroundTruth(path, annotations.solution(_content(path), path)))
        elif (wnids := annotations.synset_list(_content(path), path)) and not _lists_classes(wnids, len(names)):
            truths.append(GroundTruth(path, wnids))
    if not truths:
        raise FileNotFoundError(f"nothing says which classes its {len(names):,} images have: there is no {FORMS}, in "
                                f"{' or '.join(folders)}")
    labels = [truth.of(names) for truth in truths]
    for truth, others in zip(truths, labels):
        for name, one, other in zip(names, labels[0], others):
            if one != other:
                raise ValueError(f"{truths[0].path} and {truth.path} disagree: image {name} is {one} in the first, and "
                                 f"{other} in the second. Remove the wrong one")
    return labels[0], [truth.path for truth in truths]


def class_names(folders: list[str]) -> tuple[dict[str, str], str | None]:
    """What classes are called, by wnid, and the file that says so, or None.

    Without scipy, which it needs, the devkit gives no names: they are not worth an error.
    """
    for path in (os.path.join(folder, name) for folder in folders for name in _NAMES):
        if os.path.isfile(path):
            return annotations.synset_names(_content(path), path), path
    devkit = _find_devkit(folders)
    if devkit is None or not find_spec("scipy"):
        return {}, devkit
    return {synset.wnid: synset.words for synset in _devkit_synsets(devkit)}, devkit


def _lists_in(folder: str) -> list[str]:
    return sorted(entry.path for entry in os.scandir(folder)
                  if entry.name.endswith(".txt") and entry.is_file() and _starts_with_a_wnid(entry.path))


def _starts_with_a_wnid(path: str) -> bool:
    with open(path, "rb") as file:
        first = file.readline(100)
    return annotations.is_wnid(first.decode("utf-8-sig", errors="replace").strip())


def _lists_classes(wnids: list[str], count: int) -> bool:
    """Whether these are the names of classes, such as Caffe's synsets.txt, rather than the classes of images."""
    return len(set(wnids)) == len(wnids) != count


def _find_devkit(folders: list[str]) -> str | None:
    for folder in folders:
        for inner in (f"{_DEVKIT}/data", _DEVKIT, "data", ""):
            if os.path.isfile(os.path.join(folder, inner, _IDS)):
                return os.path.join(folder, inner)
        for extension in (".tar.gz", ".tgz", ".gz", ".tar"):
            if os.path.isfile(os.path.join(folder, _DEVKIT + extension)):
                return os.path.join(folder, _DEVKIT + extension)
    return None


def _devkit_wnids(path: str) -> list[str]:
    by_id = {synset.number: synset.wnid for synset in _devkit_synsets(path)}
    where = f"{path}: {_IDS}"
    ids = annotations.id_list(_devkit_file(path, _IDS), where)
    unknown = [line for line, number in enumerate(ids, 1) if number not in by_id]
    if unknown:
        raise ValueError(f"{where}, line {unknown[0]}: none of the {len(by_id):,} classes in {_META} has the "
                         f"ILSVRC2012_ID {ids[unknown[0] - 1]}")
    return [by_id[number] for number in ids]


def _devkit_synsets(path: str) -> list[annotations.Synset]:
    return annotations.devkit_synsets(_devkit_file(path, _META), f"{path}: {_META}")


def _devkit_file(path: str, name: str) -> bytes:
    """One file of the devkit, unpacked or in its archive."""
    remedy = f"Take {_DEVKIT}.tar.gz as it is"
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, name)):
            raise ValueError(f"{path} lacks {name}. {remedy}")
        return _content(os.path.join(path, name))
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if os.path.basename(member.name) == name and (file := archive.extractfile(member)):
                    return file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        said = " ".join(str(error).split())  # one line, of tarfile's several
        raise ValueError(f"{path} is damaged ({said}). {remedy}, downloaded again") from error
    raise ValueError(f"{path} lacks {name}. {remedy}")


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _some(names: list[str], what: str) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names):,} {what} ({shown})" if names else ""
