"""Errors of command lines name what a misspelt option, command or choice was probably meant to be."""
import importlib.util

import pytest

import benchmark
import dataflows.__main__
import dump_imagenet
from dataflows import shuffle_quality, verify
from dataflows.arguments import ArgumentParser, did_you_mean
from dump_imagenet import check_split, dump_split
from helpers.paths import ROOT


def train_example():
    spec = importlib.util.spec_from_file_location("train_example", ROOT / "examples" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


DUMP, BENCHMARK = "--source a --target b --split c ", "--source a --lmdb b "
TOOLS, BENCH, TRAIN = dataflows.__main__.main, benchmark.main, train_example()


def refused(main, line, capsys):
    """The last line of what it prints about a command line that it refuses."""
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: ")
    return err.splitlines()[-1]


@pytest.mark.parametrize("main, line, meant", [
    (dump_imagenet.main, DUMP + "--formt jpeg", "--format instead of --formt"),
    (dump_imagenet.main, DUMP + "--formt=jpeg", "--format instead of --formt"),
    (dump_imagenet.main, DUMP + "-format jpeg", "--format instead of -format"),
    (dump_imagenet.main, DUMP + "--num_workers 3", "--num-workers instead of --num_workers"),
    (dump_imagenet.main, DUMP + "--NUM-WORKERS 3", "--num-workers instead of --NUM-WORKERS"),
    (dump_imagenet.main, DUMP + "--workers 3", "--num-workers instead of --workers"),
    (dump_imagenet.main, DUMP + "--format jpg", "jpeg instead of jpg"),
    (dump_imagenet.main, DUMP + "--on-error=Fix", "fix instead of Fix"),
    (dump_imagenet.main, "--sorce a --target b --split c", "--source instead of --sorce"),
    (TOOLS, "inof x", "info instead of inof"),
    (TOOLS, "info x --jsn", "--json instead of --jsn"),
    (TOOLS, "advise x --num-workers 3", "--workers instead of --num-workers"),
    (TOOLS, "sheet x --transform vla", "val instead of vla"),
    (BENCH, BENCHMARK + "--epoch-s 3", "--epochs instead of --epoch-s"),
    (BENCH, BENCHMARK + "--formats jpeg unit8", "uint8 instead of unit8"),
    (BENCH, BENCHMARK + "--what pool loder", "loader instead of loder"),
    (BENCH, BENCHMARK + "--cold --what iterlaoder", "iterloader instead of iterlaoder"),
    (TRAIN, "DIR --batchsize 3", "--batch-size instead of --batchsize"),
    (TRAIN, "DIR --worker-type threads", "thread instead of threads")])
def test_what_was_meant_is_named(main, line, meant, capsys):
    assert refused(main, line, capsys).endswith(f"; did you mean {meant}?")


def test_several_mistakes_are_all_named(capsys):
    assert refused(dump_imagenet.main, DUMP + "--formt jpeg --sede 3", capsys) == (
        "dump-imagenet: error: unrecognized arguments: --formt jpeg --sede 3; did you mean --format instead of "
        "--formt?; did you mean --seed instead of --sede?")


def test_a_command_answers_with_its_own_usage(capsys):
    with pytest.raises(SystemExit):
        TOOLS(["info", "x", "--jsn"])
    assert capsys.readouterr().err.startswith("usage: python -m dataflows info [-h] [--json] file")


@pytest.mark.parametrize("line", ["--xyz", "--format gif", "--max-side x", "more", "-1", "-- --formt"])
def test_nothing_is_suggested_where_nothing_is_alike(line, capsys):
    assert "did you mean" not in refused(dump_imagenet.main, DUMP + line, capsys)


def test_beginnings_of_options_and_negative_numbers_are_understood():
    parser = ArgumentParser()
    parser.add_argument("--num-workers", type=int)
    parser.add_argument("--seed", type=int)
    assert vars(parser.parse_args(["--num-work", "3", "--seed=-1"])) == {"num_workers": 3, "seed": -1}
    assert vars(parser.parse_known_args(["--seed", "-2"])[0]) == {"num_workers": None, "seed": -2}


def test_the_closest_of_the_known_words_is_named_as_it_is_written():
    assert did_you_mean("loder", ["loader", "folder", "pool"]) == "; did you mean loader instead of loder?"
    assert did_you_mean("jpeg", ["JPEG"]) == "; did you mean JPEG instead of jpeg?"
    assert did_you_mean("", ["a"]) == did_you_mean("a", []) == did_you_mean("--", ["--a"]) == ""


def test_without_a_command_the_help_is_printed(capsys):
    assert TOOLS([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: python -m dataflows [-h] COMMAND ...")
    for command in ("info", "sheet", "advise", "verify"):
        assert f"\n    {command}  " in err


@pytest.mark.parametrize("text, told", [
    ("1.jpg: empty; on_error='skip' leaves it out", "1.jpg: empty; --on-error skip leaves it out"),
    ("format='jpeg', max_side=N or shorter_side=N", "--format jpeg, --max-side N or --shorter-side N"),
    ("overwrite=True replaces it, tiles=False", "--overwrite replaces it, --no-tiles"),
    ("(or leave resume=True out)", "(or leave --resume out)"),
    ("resume=False, tiles=True", "resume=False, tiles=True"),  # no flag says so
    ("verify=True is no option of a dump", "verify=True is no option of a dump"),
    ("seed was 1 and is 2", "seed was 1 and is 2"),
    ("/data/seed=1/format=jpeg.tar, x.seed=2", "/data/seed=1/format=jpeg.tar, x.seed=2"),  # names of files
])
def test_options_in_errors_are_flags_on_the_command_line(text, told):
    assert dump_imagenet._parser().in_flags(text) == told


@pytest.mark.parametrize("function, name, near", [
    (dump_split, "on_eror", "on_error"), (check_split, "max_sid", "max_side"), (verify, "num_thread", "num_threads"),
    (shuffle_quality, "epoch", "epochs")])
def test_functions_suggest_options_too(function, name, near):
    with pytest.raises(TypeError, match=f"{function.__name__} got an unexpected option '{name}'; did you mean {near}"):
        function("source", **{name: 1})
