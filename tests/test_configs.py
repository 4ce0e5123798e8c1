"""Every file in configs/ shows what its name says."""

import json
import tomllib
from pathlib import Path

import pytest

from rnnctl.__main__ import main

CONFIGS = Path(__file__).parents[1] / "configs"


def scalars_of(capsys, *arguments):
    assert main(["gradnorm", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("vanishing", "vanishing"), ("exploding", "exploding"), ("orthogonal", "stable"), ("irnn", "stable")],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_verdict_is_the_files_name(capsys, name, verdict, seed):
    found = scalars_of(capsys, "--config", str(CONFIGS / f"{name}.toml"), "--seed", str(seed))
    assert found["scalars"]["verdict"] == verdict


def test_irnn_passes_the_gradient_back_nearly_unchanged(capsys):
    assert scalars_of(capsys, "--config", str(CONFIGS / "irnn.toml"))["scalars"]["factor_per_step"] > 0.95


def test_sunspots_predicts_the_next_of_309_years(capsys):
    found = scalars_of(capsys, "--config", str(CONFIGS / "sunspots.toml"))
    assert len(found["rows"]) == 308
    assert found["config"]["loss_at"] == "all"
    assert found["scalars"]["loss"] > 0.1


def test_the_guide_spells_out_the_defaults(capsys):
    spelled, plain = scalars_of(capsys, "--config", str(CONFIGS / "guide.toml"), "--json"), scalars_of(capsys)
    assert spelled["rows"] == plain["rows"]
    assert spelled["config"] == plain["config"]


def test_no_file_is_left_out():
    tested = {"guide", "vanishing", "exploding", "orthogonal", "irnn", "sunspots"}
    assert {path.stem for path in CONFIGS.glob("*.toml")} == tested
    for path in CONFIGS.glob("*.toml"):
        tomllib.loads(path.read_text(encoding="utf-8"))
