"""Where tests are: in the folder of what they test, or here what needs the whole; what several use is in helpers/."""
import ast
from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGE, TESTS = ROOT / "dataflows", ROOT / "tests"
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("*.py"))
HELPERS = [path for path in FILES if path.parts[0] == "helpers"]


def parsed(path):
    return ast.parse((TESTS / path).read_text())


def imported(path):
    """The names of modules that a file imports, also in the scripts that it writes as strings."""
    trees = [parsed(path)]
    for node in ast.walk(trees[0]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            try:
                trees.append(ast.parse(node.value))
            except SyntaxError:  # words, or a part of a script
                continue
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def folders_of(root):
    return {path.parent.relative_to(root) for path in root.rglob("*.py")}


def test_each_folder_of_the_package_has_its_folder_of_tests():
    tested = {path.parent for path in FILES if path.name.startswith("test_")}
    for folder in folders_of(PACKAGE):
        assert any(folder == other or folder in other.parents for other in tested), folder


def test_each_folder_of_tests_is_one_of_the_package_or_is_known():
    others = {"helpers", "system", "benchmarks", "pipelines"}
    assert folders_of(TESTS) - folders_of(PACKAGE) == {Path(name) for name in others}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_imports_tests(path):
    for name in imported(path):
        assert not any(part.startswith("test_") or part == "conftest" for part in name.split(".")), name


@pytest.mark.parametrize("path", HELPERS, ids=str)
def test_helpers_say_what_they_are_and_hold_no_tests(path):
    assert not path.name.startswith("test_")
    tree = parsed(path)
    assert (ast.get_docstring(tree) or "").split("\n")[0].endswith((".", ":", "}"))
    for node in tree.body:
        assert not getattr(node, "name", "").lower().startswith("test"), node.name


def test_names_of_test_files_differ():
    """pytest imports them by their names alone."""
    names = [path.name for path in FILES if path.name.startswith("test_")]
    assert len(set(names)) == len(names)
