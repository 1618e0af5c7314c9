"""examples/fidelity.py: both sides train with the same recipe, and the table says what was found."""
import importlib.util
import json
import math

import pytest

import fidelity
from helpers.paths import ROOT

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
TINY = ["--seeds", "2", "--epochs", "1", "--size", "32", "--images", "16"]


def test_a_difference_is_told_in_its_standard_errors():
    gap, errors = fidelity.difference([0.9, 0.8, 0.7], [0.6, 0.5, 0.4])
    # Both vary by 0.1 over three seeds, so each mean has a standard error of 0.1 / sqrt(3).
    assert gap == pytest.approx(0.3) and errors == pytest.approx(0.3 / (0.1 * math.sqrt(2 / 3)))
    assert fidelity.difference([0.5, 0.5], [0.5, 0.5]) == (0, 0)
    assert fidelity.difference([0.5, 0.5], [0.75, 0.75]) == (-0.25, -math.inf)


def test_the_table_has_a_row_for_each_loader_and_recipe():
    base = {"ImageFolder": 0.9, "LMDBLoader": 0.8, "LMDBLoader, fast_decode": 0.95}
    results = [{"loader": loader, "recipe": recipe, "seed": seed, "accuracy": base[loader] - 0.02 * seed}
               for seed in range(2) for recipe in fidelity.RECIPES for loader in fidelity.LOADERS]
    lines = fidelity.table(results).splitlines()
    assert len(lines) == 2 + 6 and {line.count("|") for line in lines} == {8}
    assert lines[2] == "| plain | ImageFolder | 89.0% | 1.4 points | 2 |  |  |"
    assert lines[3] == "| plain | LMDBLoader | 79.0% | 1.4 points | 2 | -10.0 points | -7.1 |"
    assert lines[7] == "| TrivialAugment | LMDBLoader, fast_decode | 94.0% | 1.4 points | 2 | +5.0 points | +3.5 |"


@pytest.mark.skipif(HAS_TORCHVISION, reason="torchvision is installed")
def test_a_missing_torchvision_is_named(capsys):
    assert fidelity.main(TINY) == 1
    error = capsys.readouterr().err
    assert "torchvision is not installed" in error and "pip install torchvision" in error


@pytest.mark.parametrize("option, value, why", [
    ("--seeds", "1", "must be a whole number of at least 2, not 1"),
    ("--out", "no_such_folder/a.json", "no_such_folder/a.json is no file in a folder that exists"),
    ("--out", "docs", "docs is no file in a folder that exists")])
def test_what_cannot_be_done_is_refused_at_once(option, value, why, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        fidelity.main([option, value])
    assert ended.value.code == 2 and f"argument {option}: {why}" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["plain", "TrivialAugment"])
def test_all_loaders_carry_out_the_same_recipe(recipe):
    pytest.importorskip("torchvision", reason="the recipes are torchvision's")
    from dataflows.images.pipeline import pipeline_of

    for ours, fast in zip(fidelity.transforms(recipe, 48), fidelity.fast_transforms(recipe, 48), strict=True):
        ours, fast = pipeline_of(ours), pipeline_of(fast)
        assert vars(fast.crop) == vars(ours.crop) | {"fast_decode": True}  # so the crop of torchvision's is fused
        assert str(fast.tail) == str(ours.tail)
        assert ours.tail.scale and ours.tail.normalize == (fidelity.MEAN, fidelity.STD)
        assert list(map(str, fast.steps)) == list(map(str, ours.steps))


def test_a_tiny_run_prints_the_table_and_writes_what_it_is_made_of(tmp_path, capsys):
    pytest.importorskip("torchvision", reason="its ImageFolder is one side")
    out = tmp_path / "fidelity.json"
    assert fidelity.main([*TINY, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert capsys.readouterr().out == fidelity.table(found["results"]) + "\n"
    assert found["arguments"] == {"seeds": 2, "epochs": 1, "size": 32, "images": 16}
    runs = {(result["loader"], result["recipe"], result["seed"]) for result in found["results"]}
    assert len(runs) == len(found["results"]) == 3 * 2 * 2
    assert all(result["accuracy"] * 16 == round(result["accuracy"] * 16) for result in found["results"])
