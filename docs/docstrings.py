"""Docstrings as Markdown, for `make docs`: examples become code, and options become lists.

Only text at the left margin is changed. Sections of Google's style, such as `Args:`, are left to mkdocstrings.
"""
import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.M)
_OPTIONS = re.compile(r"^\w+(?:, \w+)*: .*(?:\n.+)*", re.M)  # from a line `name: text` to the end of its paragraph
_OPTION = re.compile(r"^(\w+(?:, \w+)*): ", re.M)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = _OPTIONS.sub(lambda found: "\n" + _OPTION.sub(r"- **\1**: ", found[0]), obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)
