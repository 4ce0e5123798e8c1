"""--fail-on: conditions are parsed, never evaluated as code."""

import json
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnctl.__main__ import main
from rnnctl.cli.output.conditions import held, parsed, require_known
from rnnctl.errors import InputError, RnnctlError

SCALARS: dict[str, Any] = {"factor": 0.5, "steps": 7, "verdict": "stable", "first": None, "bad": math.nan, "zero": True}
WORDS = {"vanishing": True, "exploding": False}
PLAIN = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}


def holds(text: str, scalars: dict[str, Any] = SCALARS) -> bool:
    conditions = parsed([text])
    require_known(conditions, scalars, WORDS)
    return bool(held(conditions, scalars, WORDS))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return run


@given(
    value=st.floats(allow_nan=False) | st.integers(-(10**6), 10**6),
    limit=st.floats(allow_nan=False),
    comparison=st.sampled_from(sorted(PLAIN)),
    spaces=st.sampled_from(["", " ", "\t "]),
)
def test_every_comparison_is_that_of_the_numbers(value: float, limit: float, comparison: str, spaces: str) -> None:
    text = f"{spaces}x{spaces}{comparison}{spaces}{limit!r}{spaces}"
    assert holds(text, {"x": value}) == PLAIN[comparison](value, limit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("factor<0.9", True),
        ("factor<0.5", False),
        ("factor<=5e-1", True),
        ("factor > -inf", True),
        ("steps==7", True),
        ("steps!=7.0", False),
        ("verdict==stable", True),
        ("verdict!=stable", False),
        ("verdict==vanishing", False),
        ("zero==true", True),
        ("zero!=1", False),
        ("vanishing", True),
        (" vanishing ", True),
        ("exploding", False),
    ],
)
def test_a_condition_holds_as_it_reads(text: str, expected: bool) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "<1",
        "factor<",
        "factor=1",
        "factor=<1",
        "factor<>1",
        "factor===1",
        "0<factor",
        "0<factor<1",
        "factor<1 and steps>2",
        "factor<0.9;steps>2",
        "factor-1<0",
        "max(factor,1)<2",
        "factor.real<1",
        "factor<1\nsteps>2",
        "fäktor < 1 2",
        "__import__('os').system('true')",
    ],
)
def test_what_is_no_single_comparison_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--fail-on .*(expected a comparison|is no number)"):
        parsed([text])


@pytest.mark.parametrize("limit", ["1+1", "steps", "0x10", "__import__('os')", "(lambda:1)()", "1e", "zehn"])
def test_a_limit_is_a_number_and_no_expression(limit: str) -> None:
    with pytest.raises(InputError, match="is no number to compare with"):
        parsed([f"factor<{limit}"])


@pytest.mark.parametrize("text", ["verdict==exit()", "verdict=='stable'", "verdict==__import__('os').abort()"])
def test_text_that_looks_like_code_is_only_text(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize("text", ["factor<nan", "factor==nan", "factor!=NaN"])
def test_nothing_is_compared_with_nan(text: str) -> None:
    with pytest.raises(InputError, match="nothing compares with nan. Try --fail-on nonfinite"):
        parsed([text])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("facto<1", r"no 'facto' here; known are .*Did you mean factor\?"),
        ("vanish", r"no 'vanish' here; .*Did you mean vanishing\?"),
        ("factor", "factor is a value; compare it with one"),
        ("vanishing>1", "vanishing stands alone"),
        ("__class__==1", "no '__class__' here"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        require_known(parsed([text]), SCALARS, WORDS)


@pytest.mark.parametrize(("text", "words"), [("verdict<1", "with text"), ("factor==low", "with a number")])
def test_text_and_numbers_are_not_compared(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        held(parsed([text]), SCALARS, WORDS)


@pytest.mark.parametrize("text", ["first<1", "first!=1", "bad<1", "bad!=1"])
def test_what_has_no_value_is_an_error_and_no_success(text: str) -> None:
    with pytest.raises(RnnctlError, match="has no value here; nothing to compare"):
        held(parsed([text]), SCALARS, WORDS)


def test_every_condition_that_holds_is_told_with_its_value() -> None:
    messages = held(parsed(["factor<0.9", "steps>100", "vanishing", "verdict==stable"]), SCALARS, WORDS)
    assert len(messages) == 3
    assert "'factor<0.9': factor is 0.5" in messages[0]
    assert "vanishing" in messages[1]
    assert "stable" in messages[2]


def test_a_condition_that_holds_gives_exit_3_and_the_whole_result(cli) -> None:
    code, out, err = cli("gradnorm", "--json", "--fail-on", "factor_per_step<1e9")
    assert code == 3
    assert json.loads(out)["scalars"]["factor_per_step"] < 1e9
    assert "factor_per_step" in err


def test_one_of_several_conditions_is_enough(cli) -> None:
    quiet = ["gradnorm", "--json", "--fail-on", "loss<-1", "--fail-on", "nonfinite"]
    assert cli(*quiet)[0] == 0
    assert cli(*quiet, "--fail-on", "loss>=0")[0] == 3


@pytest.mark.parametrize("word", ["vanishing", "exploding"])
def test_a_word_is_the_verdict_with_its_thresholds(cli, word: str) -> None:
    threshold = {"vanishing": "--vanish-below", "exploding": "--explode-above"}[word]
    always, never = {"vanishing": ("999", "0"), "exploding": ("0.002", "1e30")}[word]
    assert cli("gradnorm", "--fail-on", word, threshold, always)[0] == 3
    assert cli("gradnorm", "--fail-on", word, threshold, never)[0] == 0


@pytest.mark.parametrize("text", ["factor_per_step<", "import os", "factor_per_step<1+1"])
def test_a_condition_that_cannot_be_parsed_is_refused_before_computing(cli, monkeypatch, text: str) -> None:
    def too_late(*_: Any, **__: Any) -> None:
        raise AssertionError("computed before the condition was read")

    monkeypatch.setattr("rnnctl.cli.setup.experiment.experiment", too_late)
    code, out, err = cli("gradnorm", "--fail-on", text)
    assert (code, out) == (2, "")
    assert text in err


def test_an_unknown_scalar_gives_exit_2_and_the_nearest(cli) -> None:
    code, _, err = cli("gradnorm", "--fail-on", "canceling<0.1")
    assert code == 2
    assert "Did you mean cancellation?" in err


def test_a_scalar_without_a_value_does_not_pass_for_success(cli) -> None:
    code, _, err = cli("gradnorm", "--seq-len", "1", "--fail-on", "factor_per_step<0.9")
    assert code == 1
    assert "has no value here" in err


@pytest.mark.parametrize("word", ["stable", "undecided"])
def test_a_verdict_that_stands_alone_is_shown_how_to_ask(cli: Callable[..., tuple[int, str, str]], word: str) -> None:
    code, out, err = cli("gradnorm", "--fail-on", word)
    assert (code, out) == (2, "")
    assert f"say 'verdict=={word}'" in err
