"""How a dump was made and what it found: the meta object of its index, with all types checked.

An index is sealed by a checksum, so nothing in it is damaged; but anyone can write one. What it says is shown to people
and looked up in arrays, so it has to be what its table (`index.py`) says.
"""
from typing import Any, Callable, NamedTuple

from dataflows.storage.index import REMEDY, Index


class Provenance(NamedTuple):
    """The parts of the table in `index.py` that tell of a dump as a whole; empty where an index lacks one."""

    format: str
    split: str
    layout: str
    seed: int | None
    classes: list[str]
    class_names: list[str]  # one for each of classes
    options: dict[str, Any]
    tools: dict[str, str]
    untiled: dict[str, int]
    findings: dict[str, list[int]]  # all numbers are of records
    duplicates: list[list[int]]
    skipped: list[dict[str, str]]  # each with "name" and "reason"
    class_counts: list[str]
    left_out: dict[str, int]  # how many files, by kind

    def class_of(self, label: int) -> tuple[str, str]:
        """(folder name, what it is called) of a class; a label that has none is called by its number."""
        if 0 <= label < len(self.classes):
            return self.classes[label], self.class_names[label]
        return f"label {label}", f"label {label}"


def provenance(index: Index, path: str) -> Provenance:
    """What an index says; `path` is its own. Raises ValueError, naming that, where a part is of another type."""
    def numbers(value: Any) -> bool:
        return isinstance(value, list) and all(type(n) is int and 0 <= n < index.count for n in value)

    rules: dict[str, tuple[Any, Callable[[Any], bool]]] = {
        "format": ("", _text), "split": ("", _text), "layout": ("", _text),
        "seed": (None, lambda value: value is None or type(value) is int),
        "classes": ([], _texts),
        "class_names": (index.meta["classes"], lambda value: _texts(value) and len(value) == len(index.classes)),
        "options": ({}, lambda value: isinstance(value, dict)),
        "tools": ({}, lambda value: isinstance(value, dict) and all(map(_text, value.values()))),
        "untiled": ({}, _counts),
        "findings": ({}, lambda value: isinstance(value, dict) and all(map(numbers, value.values()))),
        "duplicates": ([], lambda value: isinstance(value, list) and all(map(numbers, value))),
        "skipped": ([], lambda value: isinstance(value, list) and all(map(_skip, value))),
        "class_counts": ([], _texts), "left_out": ({}, _counts)}
    parts = {name: index.meta.get(name, default) for name, (default, _) in rules.items()}
    for name, (_, holds) in rules.items():
        if not holds(parts[name]):
            raise ValueError(f"{path}: {name} of its meta object is not what the format fixes. {REMEDY}")
    return Provenance(**parts)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(n) is int for n in value.values())


def _skip(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(value.get(name)) for name in ("name", "reason"))
