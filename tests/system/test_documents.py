"""README.md and docs/: their Python runs, their commands exist with their options, and so does what they link to."""
import argparse
import importlib.util
import re
import shlex

import numpy as np
import pytest
import torch

import benchmark
import dataflows.__main__
import dump_imagenet
from helpers.paths import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = [ROOT, ROOT / "dataflows", ROOT / "benchmarks"]  # of files that the text names
OPTIONAL = ("torchvision", "timm", "lightning", "accelerate", "datasets")  # what blocks may use, and may be missing
# What stands for a user's own in the documents, and what it is here: a small dump, and few of everything.
PLACEHOLDERS = {r'"DIR/': '"{folder}/', r'"TARGET"': '"{target}"', r'"s3://bucket/': '"memory://documents/',
                r'"CACHE"': '"{target}"', r"(?<=, )256(?=[,)])": "4",
                r"range\(90\)": "range(2)", r"num_workers=8": "num_workers=2", r"num_classes=1000": "num_classes=3",
                r"max_epochs=90": 'max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False'}


def your_torchvision_transform(image):
    """A PIL image to a tensor."""
    return torch.from_numpy(np.array(image.convert("RGB").resize((8, 8)))).permute(2, 0, 1)


def your_lightning_module():
    """The smallest that trains on batches of the documents."""
    lightning = importlib.import_module("lightning")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(3, 3)

        def training_step(self, batch, number):
            images, labels = batch
            return torch.nn.functional.cross_entropy(self.net(images.mean((2, 3))), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Model()


def name(path):
    return path.relative_to(ROOT).as_posix()


def code_blocks(text):
    """(language, line number, content) of each block between fences."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        yield match[1], text.count("\n", 0, match.start()) + 2, match[2]


def without_blocks(text):
    return re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.M | re.S)


def inline_code(text):
    return re.findall(r"`([^`]+)`", without_blocks(text).replace("\n", " "))


def commands(text):
    """Lines of code that may be a shell's: indented ones, without comments; and code in the text, which may be a part
    of a command, so "..." is added to it.
    """
    indented = re.findall(r"^    (\S.*)$", without_blocks(text), re.M)
    return [*(re.sub(r"\s+# .*", "", line) for line in indented), *(f"{code} ..." for code in inline_code(text))]


# Python.

PYTHON = [path for path in DOCUMENTS if any(kind == "python" for kind, _, _ in code_blocks(path.read_text()))]


FRAMEWORKS = [ROOT / "docs" / "frameworks.md"]
WARNS = pytest.mark.filterwarnings("default")  # Lightning and Accelerate advise, and use what torch will drop


def test_the_documents_have_python():
    assert {"README.md", "docs/migration.md", "docs/tuning.md"} <= set(map(name, PYTHON))


@pytest.mark.parametrize("path", [pytest.param(path, id=name(path), marks=WARNS if path in FRAMEWORKS else ())
                                  for path in PYTHON])
def test_python_runs(path, tiled_lmdb, tmp_path):
    """Block by block, in one namespace: as somebody would who reads from the top."""
    namespace, left_out = {"your_torchvision_transform": your_torchvision_transform}, []
    if installed("lightning") and "your_lightning_module" in path.read_text():
        namespace["your_lightning_module"] = your_lightning_module()
    if "s3://" in path.read_text():
        serve_in_memory(tiled_lmdb)
    try:
        for kind, line, block in code_blocks(path.read_text()):
            if kind == "python":
                missing = [module for module in OPTIONAL if re.search(f"^(from|import) {module}\\b", block, re.M)
                           and not installed(module)]
                left_out += [f"line {line} needs {module}" for module in missing]
                if not missing:
                    run(block, line, path, {"folder": tiled_lmdb, "target": tmp_path}, namespace)
    finally:
        for value in namespace.values():
            if isinstance(value, dataflows.load.loader.TorchBatches):
                value.close()
    if left_out:
        pytest.skip(f"all but the blocks of {name(path)} whose {', whose '.join(left_out)}")


def serve_in_memory(folder):
    """What stands for a bucket."""
    import fsspec

    for file in folder.iterdir():
        fsspec.filesystem("memory").pipe_file(f"/documents/{file.name}", file.read_bytes())


def run(block, line, path, places, namespace):
    for pattern, value in PLACEHOLDERS.items():
        block = re.sub(pattern, lambda _, value=value: value.format(**places), block)
    exec(compile("\n" * (line - 1) + block, str(path), "exec"), namespace)  # so that errors name the document's line


def installed(module):
    return importlib.util.find_spec(module) is not None


def test_all_fenced_code_says_what_it_is():
    for path in DOCUMENTS:
        for kind, line, _ in code_blocks(path.read_text()):
            assert kind in ("python", "text"), f"{name(path)}:{line}"


# Commands.

def example(name):
    spec = importlib.util.spec_from_file_location(f"{name}_example", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


PROGRAMS = {"dump-imagenet": dump_imagenet.main, "dump_imagenet.py": dump_imagenet.main, "benchmark.py": benchmark.main,
            "examples/train.py": example("train"), "examples/fidelity.py": example("fidelity"),
            "dataflows": dataflows.__main__.main}
COMMAND = re.compile(r"(?:dump-imagenet|python (?:-m (?=dataflows))?|torchrun (?:--[\w-]+ \d+ )*)"
                     r"(dump_imagenet\.py|benchmark\.py|examples/train\.py|examples/fidelity\.py|dataflows)?(.*)")


class Parsed(Exception):
    """A parser, and what it made of its arguments."""


@pytest.fixture
def parse(monkeypatch):
    """Parses arguments with the parser of a program, which ends there; returns the parser and what it has parsed."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, args=None, namespace=None):
        known = "..." not in args  # which stands for others, also for those that are required
        raise Parsed(parser, original(parser, args, namespace) if known else None)

    def parse(program, arguments):
        with pytest.raises(Parsed) as parsed:
            program(arguments)
        return parsed.value.args

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    return parse


def options(parser):
    """The options of a parser and of its commands."""
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*map(options, action.choices.values()))
    return found


def programs_of(text):
    """(command, program, arguments) of each line that starts a program of this project."""
    for command in commands(text):
        if match := COMMAND.fullmatch(command):
            program = "dump-imagenet" if command.startswith("dump-imagenet") else match[1]
            if program:
                yield command, program, shlex.split(match[2])


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_are_understood(path, parse, capsys):
    for command, program, arguments in programs_of(path.read_text()):
        try:
            parser, _ = parse(PROGRAMS[program], arguments)
        except SystemExit:
            pytest.fail(f"{name(path)}: {command}: {capsys.readouterr().err}")
        unknown = {word for word in arguments if word.startswith("--")} - options(parser)
        assert not unknown, f"{name(path)}: {command}"


def test_commands_are_found():
    found = {program for path in DOCUMENTS for _, program, _ in programs_of(path.read_text())}
    assert found == set(PROGRAMS)


@pytest.mark.parametrize("command, program, arguments", [
    ("dump-imagenet --source A --split train", "dump-imagenet", ["--source", "A", "--split", "train"]),
    ("python dump_imagenet.py ...", "dump_imagenet.py", ["..."]),
    ("python -m dataflows verify DIR/train.lmdb", "dataflows", ["verify", "DIR/train.lmdb"]),
    ("torchrun --nproc-per-node 8 examples/train.py DIR", "examples/train.py", ["DIR"]),
    ("python benchmark.py --cold", "benchmark.py", ["--cold"])])
def test_a_command_is_recognized(command, program, arguments):
    assert list(programs_of(f"Text.\n\n    {command}   # why\n\nMore.")) == [(command, program, arguments)]
    assert list(programs_of(f"Or `{command}`.")) == [(f"{command} ...", program, [*arguments, "..."])]


def test_options_in_the_text_exist(parse):
    known = {"--nproc-per-node"}  # torchrun's
    for program in PROGRAMS.values():
        known |= options(parse(program, ["..."])[0])
    for path in DOCUMENTS:
        for code in inline_code(path.read_text()):
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code if code.startswith("--") else ""):
                assert option in known, f"{name(path)}: {option}"


def test_targets_of_make_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    used = {match[1] for path in DOCUMENTS for command in commands(path.read_text())
            if (match := re.match(r"make ([a-z-]+)", command))}
    assert {"demo", "train", "test"} <= used <= set(targets)


# Links and names of files.

@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", without_blocks(path.read_text())):
        if not link.startswith("https://"):
            file, _, heading = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), f"{name(path)}: {link}"
            assert not heading or heading in anchors(target.read_text()), f"{name(path)}: {link}"


def anchors(text):
    """The names that headings have in links."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_files_in_the_text_exist(path):
    for code in inline_code(path.read_text()):
        if re.fullmatch(r"[\w./]+\.(py|md)", code):
            assert any((folder / code).exists() for folder in FOLDERS), f"{name(path)}: {code}"
