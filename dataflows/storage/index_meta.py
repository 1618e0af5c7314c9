"""The meta object of an index: how the dump was made, and what it found in its source."""
import dataclasses
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexMeta:
    """The parts of the object, in the order in which they are written. `to_dict` adds version and count to them.

    An index that is read may lack a part that has a default here, and then has that one; where it lacks class_names,
    it has `classes` there. Reading checks only what readers of records need (classes, file_size, rest_crc32). Other
    parts may be of any type that JSON has; `wrong_part` checks them.
    """

    format: str = ""  # "jpeg" or "uint8"
    split: str = ""  # "train", "val", ...
    seed: int | None = None  # of the permutation in which records are written; None for the source's order
    classes: list[str]  # folder names by class number: wnids, for ImageNet; of vectors, what each number is called
    class_names: list[str]  # what they are called; `classes` where the source does not say
    layout: str = ""  # what was found in the source
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)  # files that are no images, by kind (names.py)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the dump
    tools: dict[str, str] = dataclasses.field(default_factory=dict)  # versions of packages that made it
    file_size: int  # of the LMDB, in bytes
    rest_crc32: int  # of the LMDB's bytes outside of all values, in their order
    untiled: dict[str, int] = dataclasses.field(default_factory=dict)  # JPEGs that were stored without tiles, by reason
    skipped: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # files left out: "name" and "reason"
    findings: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # record numbers by finding, ascending
    duplicates: list[list[int]] = dataclasses.field(default_factory=list)  # record numbers of equal files, in groups
    class_counts: list[str] = dataclasses.field(default_factory=list)  # how numbers of images differ from ImageNet's
    missing: frozenset[str] = frozenset()  # no part: the names of those that the index lacks

    @classmethod
    def from_dict(cls, written: dict[str, Any]) -> "IndexMeta":
        """What an index holds; parts that this class does not know are ignored.

        Raises KeyError or ValueError where what reading records needs is missing or of another type.
        """
        if not all(isinstance(written[name], int) for name in ("file_size", "rest_crc32")):
            raise ValueError("its meta object lacks file_size or rest_crc32, numbers")
        if not all(isinstance(name, str) for name in written["classes"]):
            raise ValueError("its meta object lacks classes, a list of texts")
        found = {name: written[name] for name in _PARTS if name in written}
        return cls(**{"class_names": written["classes"]} | found, missing=frozenset(_PARTS) - found.keys())

    def to_dict(self, version: int, count: int) -> dict[str, Any]:
        """What is written as JSON: all parts but missing ones, the version of the index, and its number of records."""
        parts = {name: getattr(self, name) for name in _PARTS if name not in self.missing}
        return parts | {"version": version, "count": count}

    def wrong_part(self, count: int) -> str | None:
        """The name of a part that is not what its field says, in an index of `count` records; None if all are."""
        for name in _PARTS:
            if not _is(getattr(self, name), _PARTS[name]):
                return name
        rules = {"class_names": len(self.class_names) == len(self.classes),
                 "findings": _are_records(self.findings.values(), count),
                 "duplicates": _are_records(self.duplicates, count),
                 "skipped": all(_is(entry.get(key), str) for entry in self.skipped for key in ("name", "reason"))}
        return next((name for name, holds in rules.items() if not holds), None)

    @property
    def shuffled(self) -> bool | None:
        """Whether records are written in a permutation; None where the index does not say."""
        return None if "seed" in self.missing else self.seed is not None

    def class_of(self, label: int) -> tuple[str, str]:
        """(folder name, what it is called) of a class; a label that has none is called by its number."""
        if 0 <= label < len(self.classes):
            return self.classes[label], self.class_names[label]
        return f"label {label}", f"label {label}"


_PARTS = {name: hint for name, hint in get_type_hints(IndexMeta).items() if name != "missing"}


def _is(value: Any, hint: Any) -> bool:
    """Whether a value that JSON gave has the type of a field. True and False are no numbers."""
    kind, of = get_origin(hint), get_args(hint)
    if kind is list:
        return isinstance(value, list) and all(_is(item, of[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_is(item, of[1]) for item in value.values())
    if kind in (Union, UnionType):
        return any(_is(value, one) for one in of)
    return hint is Any or type(value) is hint


def _are_records(groups: Any, count: int) -> bool:
    return all(0 <= number < count for group in groups for number in group)
