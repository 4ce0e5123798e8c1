"""--config FILE.toml, and flag > RNNCTL_* > file > default."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from rnnctl.__main__ import main
from rnnctl.cli.app import app

Configured = Callable[..., Any]


@pytest.fixture
def configured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line with a configuration file of the given text."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("RNNCTL_"):
            monkeypatch.delenv(name)

    def ran(text: str, line: str = "gradnorm --json") -> tuple[int, str, str]:
        Path("my.toml").write_text(text, encoding="utf-8")
        code = main([*line.split(), "--config", "my.toml"])
        return code, *capsys.readouterr()

    return ran


def config_of(ran: tuple[int, str, str]) -> Any:
    code, out, err = ran
    assert (code, err) == (0, "")
    return json.loads(out)["config"]


def test_key_of_the_file_replaces_the_default(configured: Configured) -> None:
    assert config_of(configured(""))["hidden_size"] == 20
    assert config_of(configured("hidden-size = 6"))["hidden_size"] == 6


@pytest.mark.parametrize("text", ["hidden_size = 6", "[gradnorm]\nhidden_size = 6", "hidden-size = 6"])
def test_a_key_is_written_with_dashes_or_underscores(text: str, configured: Configured) -> None:
    assert config_of(configured(text))["hidden_size"] == 6


def test_environment_is_stronger_than_the_file(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCTL_HIDDEN_SIZE", "7")
    found = config_of(configured("hidden-size = 6\nseed = 3"))
    assert (found["hidden_size"], found["seed"]) == (7, 3)


def test_flag_is_stronger_than_environment_and_file(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCTL_HIDDEN_SIZE", "7")
    assert config_of(configured("hidden-size = 6", "gradnorm --json --hidden-size 8"))["hidden_size"] == 8


def test_default_value_as_a_flag_is_still_stronger_than_the_file(configured: Configured) -> None:
    found = config_of(configured("gain = 3\nbias = false", "gradnorm --json --gain 1 --bias"))
    assert (found["gain"], found["bias"]) == (1.0, True)


def test_environment_names_the_file(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.toml").write_text("hidden-size = 9")
    monkeypatch.setenv("RNNCTL_CONFIG", "other.toml")
    assert main(["cell", "-o", "cell.json"]) == 0
    assert json.loads(Path("cell.json").read_text())["config"]["hidden_size"] == 9


def test_table_of_a_command_is_stronger_than_the_shared_keys_and_for_it_alone(configured: Configured) -> None:
    text = "hidden-size = 6\n[gradnorm]\nhidden-size = 7\nloss-at = 'all'\n"
    assert config_of(configured(text))["hidden_size"] == 7
    assert config_of(configured(text))["loss_at"] == "all"
    assert config_of(configured(text, "cell --json"))["hidden_size"] == 6


def test_shared_key_is_left_alone_by_commands_that_do_not_have_it(configured: Configured) -> None:
    assert configured("repeats = 3\nloss-at = 'all'", "cell --json")[0] == 0


# Option -> TOML value, and the value as it is recorded.
VALUES: dict[str, tuple[str, Any]] = {
    "input-size": ("3", 3),
    "hidden-size": ("6", 6),
    "output-size": ("2", 2),
    "nonlinearity": ('"relu"', "relu"),
    "output-activation": ('"softmax"', "softmax"),
    "bias": ("false", False),
    "init": ('"identity"', "identity"),
    "gain": ("2", 2.0),
    "seq-len": ("3", 3),
    "batch-size": ("2", 2),
    "input": ('"sunspots"', "sunspots"),
    "h-init": ('"normal"', "normal"),
    "loss": ('"sum"', "sum"),
    "loss-at": ('"all"', "all"),
    "seed": ("18446744073709551615", 2**64 - 1),
    "dtype": ('"float64"', "float64"),
    "device": ('"cpu"', "cpu"),
    "threads": ("2", 2),
}


@pytest.mark.parametrize("key", VALUES)
def test_key_is_the_flags_name_and_its_value_is_recorded(key: str, configured: Configured) -> None:
    value, expected = VALUES[key]
    assert config_of(configured(f"{key} = {value}"))[key.replace("-", "_")] == expected


def test_every_option_is_a_key(configured: Configured, capsys: pytest.CaptureFixture[str]) -> None:
    commands: Any = typer.main.get_command(app)
    names = {
        name.removeprefix("--")
        for parameter in commands.commands["gradnorm"].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and parameter.name not in ("config", "help")
    }
    for name in names:
        # A table is no value of any option, but its name must not be an unknown one.
        _, _, err = configured(f"{name} = [[]]")
        assert "unknown key" not in err


def test_list_of_columns_and_of_conditions(configured: Configured) -> None:
    found = config_of(configured('input = "macrodata"\ncolumns = ["realgdp", "infl"]'))
    assert found["input_size"] == 2
    code, _, err = configured('fail-on = ["loss>0", "cancellation>2"]')
    assert (code, err.count("--fail-on")) == (3, 1)
    assert configured('fail-on = "loss>0"')[0] == 3


def test_negative_name_of_a_flag_is_a_key(configured: Configured) -> None:
    assert config_of(configured("no-bias = true"))["bias"] is False
    assert config_of(configured("no-bias = false"))["bias"] is True


@pytest.mark.parametrize(
    ("file", "line", "starts"),
    [
        ("json = true", "gradnorm", "{"),
        ("json = true", "gradnorm --format csv", "t,"),
        ('format = "csv"', "gradnorm --json", "{"),
        ('format = "csv"', "gradnorm", "t,"),
        ('json = true\n[gradnorm]\nformat = "json"', "gradnorm", "{"),
    ],
)
def test_format_of_the_flag_is_stronger_than_that_of_the_file(
    file: str, line: str, starts: str, configured: Configured
) -> None:
    code, out, _ = configured(file, line)
    assert code == 0
    assert out.startswith(starts)


@pytest.mark.parametrize(
    ("environment", "file", "line", "starts"),
    [
        ({"RNNCTL_FORMAT": "csv"}, "json = true", "gradnorm", "t,"),
        ({"RNNCTL_JSON": "1"}, 'format = "csv"', "gradnorm", "{"),
        ({"RNNCTL_JSON": "1"}, "", "gradnorm --format csv", "t,"),
        ({"RNNCTL_FORMAT": "csv"}, "", "gradnorm --json", "{"),
        ({"RNNCTL_JSON": "0"}, 'format = "csv"', "gradnorm", "t,"),
    ],
)
def test_format_of_the_environment_lies_between(
    environment: dict[str, str],
    file: str,
    line: str,
    starts: str,
    configured: Configured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, _ = configured(file, line)
    assert code == 0
    assert out.startswith(starts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hiden-size = 3", "unknown key 'hiden-size'. Did you mean hidden-size?"),
        ("hiden_size = 3", "unknown key 'hiden-size'. Did you mean hidden-size?"),
        ("hidden_size = 3\nhidden-size = 4", "hidden-size and hidden_size are one key"),
        ("[gradnorm]\nrepeat = 3", "[gradnorm]: unknown key 'repeat'"),
        ("[cell]\nseeed = 3", "[cell]: unknown key 'seeed'. Did you mean seed?"),
        ("[gradnrm]\nseed = 3", "unknown table [gradnrm]; tables are named after commands. Did you mean gradnorm?"),
        ("gradnorm = 3", "gradnorm is a command"),
        ("[[gradnorm]]\nseed = 1", "gradnorm is a command"),
        ("[gradnorm.deep]\nseed = 1", "[gradnorm]: unknown key 'deep'"),
        ("config = 'a.toml'", "unknown key 'config'"),
        ("help = true", "unknown key 'help'"),
        ("hidden-size = 2.5", "hidden-size = 2.5: expected a whole number of at least 1"),
        ("hidden-size = 0", "hidden-size = 0: expected a whole number of at least 1; got '0'"),
        ("hidden-size = true", "hidden-size = True: expected a value, not a boolean"),
        ("hidden-size = [1, 2]", "hidden-size = [1, 2]: expected a whole number"),
        ("seed = 1979-05-27", "seed = datetime.date(1979, 5, 27): expected a whole number"),
        ("seed = 99999999999999999999", "seed = 99999999999999999999: expected a whole number from 0"),
        ("gain = 'x'", "gain = 'x': expected a number, not a text in quotes"),
        ("bias = 1", "bias = 1: expected true or false"),
        ("no-bias = 'yes'", "no-bias = 'yes': expected true or false"),
        ("nonlinearity = 'gelu'", "'gelu' is not one of 'tanh', 'relu'"),
        ("seed = [", "is not valid TOML"),
        ("seed = 1\nseed = 2", "is not valid TOML"),
    ],
)
def test_mistake_in_the_file_names_file_key_and_what_is_right(text: str, said: str, configured: Configured) -> None:
    code, out, err = configured(text)
    assert (code, out) == (2, "")
    assert "my.toml" in err
    assert said in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 2


def test_file_that_is_not_text_is_no_traceback(configured: Configured, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bytes.toml").write_bytes(b"\xff\xfe\x00")
    assert main(["gradnorm", "--config", "bytes.toml"]) == 2
    assert "bytes.toml is not valid TOML" in capsys.readouterr().err


def test_bad_value_in_the_environment_names_the_variable(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNCTL_SEED", "abc")
    code, out, err = configured("")
    assert (code, out) == (2, "")
    assert "got 'abc' (from RNNCTL_SEED)" in err
    assert configured("", "gradnorm --json --seed 1")[0] == 0


def test_empty_variable_is_no_value(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCTL_SEED", "")
    assert config_of(configured("seed = 4"))["seed"] == 4
