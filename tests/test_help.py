"""Help long and short, versions, completion, the resolved configuration, and variables of the environment."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
import typer
from shell import runner

import rnnctl
from rnnctl.cli.app import app
from rnnctl.cli.options.completing import column_names, input_names, target_names

COMMANDS = typer.main.get_command(app).commands
ASKING = [name for name, command in COMMANDS.items() if any(each.name == "config" for each in command.params)]
WIDTHS = (60, 80, 160)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    return runner(capsys, monkeypatch, tmp_path)


def page(name):
    return COMMANDS[name].callback.page


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_help_fits_the_window_and_shows_no_machinery(name, width, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for flag in ("--help", "-h"):
        shown = (ran := run(f"{name} {flag}")).out
        assert shown, ran
        assert max(map(len, shown.splitlines())) <= width
        assert all(line == line.rstrip() for line in shown.splitlines())
        assert "<bool>" not in shown
        assert "default: (" not in shown
        assert shown.startswith(f"Usage: rnnctl {name}")
        # What goes on from the line before stands under what it says.
        begun = [line[2] for line in shown.splitlines() if line.startswith("│ ")]
        assert set(begun) <= {"-", " ", "["} or name in ("weights", "completion")
        assert shown.count("─ Options ─") <= 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_two_examples_and_the_chapter(name, run):
    lines = run(f"{name} --help").out.splitlines()
    assert lines[-4:-1] == ["Examples", *(f"  {example}" for example in page(name).examples)]
    assert lines[-1].startswith(f"More: rnnctl guide {page(name).chapter}".rstrip())
    assert len(page(name).examples) == 2


@pytest.mark.parametrize("name", ASKING)
def test_the_examples_are_command_lines_that_are_understood(name, run):
    for example in page(name).examples:
        program, *arguments = shlex.split(example)
        assert (program, arguments[0]) == ("rnnctl", name)
        ran = run("", *arguments, "--show-config", "--json")
        assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("name", ASKING)
def test_the_short_help_has_the_eight_options_most_used(name, run):
    often = page(name).often
    assert len(often) <= 8
    shown = run(f"{name} -h").out
    rows = [line.split()[1].split("/")[0] for line in shown.splitlines() if line.startswith(("│ --", "│ -o"))]
    assert [row.strip(",") for row in rows] == [flag if flag != "--output" else "-o" for flag in often]
    assert len(shown) < len(run(f"{name} --help").out) / 1.5


def test_panels_come_in_the_order_of_use(run):
    shown = run("gradnorm --help").out
    order = [
        shown.index(f"─ {panel} ─") for panel in ("Model", "Data", "Your model", "Loss", "Verdict", "Run", "Output")
    ]
    assert order == sorted(order)
    assert shown.index("--seq-len") < shown.index("--model ")


def test_help_names_every_option_with_its_default_as_one_types_it(run):
    shown = " ".join(run("gradnorm --help").out.replace("│", " ").split())
    for parameter in COMMANDS["gradnorm"].params:
        assert max(parameter.opts, key=len) in shown
    for words in ("--hidden-size INTEGER Hidden units. [default: 20]", "--bias/--no-bias", "[default: tanh]"):
        assert words in shown


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("gradnorm", "Steps that carry a loss. [default: last]"),
        ("bench", "Steps that carry a loss. [default: all]"),
        ("check", "Dtype of weights and data. [default: float64]"),
        ("cell", "The hidden state before step 0. [default: zeros]"),
        ("lyapunov", "The hidden state before step 0. [default: zeros; --autonomous: normal]"),
    ],
)
def test_a_default_is_that_of_the_command(command, said, run):
    assert said in " ".join(run(f"{command} --help").out.replace("│", " ").split())


def test_a_long_example_goes_on_as_a_shell_takes_it(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("gradnorm -h").out.split("Examples\n")[1].splitlines()
    assert shlex.split("\n".join(lines[1:3]).replace("\\\n", "")) == shlex.split(page("gradnorm").examples[1])
    assert lines[1].endswith(" \\")


def test_help_as_a_command_is_that_of_the_option(run):
    assert run("help").out == run("--help").out
    assert run("help flow").out == run("flow --help").out
    assert run("help flwo").code == 2
    assert "Did you mean flow?" in run("help flwo").err


def test_versions_say_what_is_installed_and_where(run):
    ran = run("version")
    words = {line.split()[0]: line.split()[1:] for line in ran.out.splitlines()}
    assert words["rnnctl"] == [rnnctl.__version__, str(Path(rnnctl.__file__).parent)]
    assert words["Python"] == [".".join(map(str, sys.version_info[:3])), sys.executable]
    assert words["torch"] == [torch.__version__, str(Path(torch.__file__).parent)]
    assert run("-V").out == run("--version").out == f"rnnctl {rnnctl.__version__}\n"


def test_the_version_of_torch_is_known_without_loading_it(monkeypatch):
    from rnnctl.cli.versions import torch_version

    monkeypatch.delitem(sys.modules, "torch")
    assert torch_version() == torch.__version__
    assert "torch" not in sys.modules


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(shell, run):
    ran = run(f"completion {shell}")
    assert (ran.code, ran.err) == (0, "")
    assert f"complete_{shell}" in ran.out
    assert "rnnctl" in ran.out


def test_files_bundled_names_and_words_complete(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.csv").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "next.npy").write_text("")
    assert input_names("su") == ["sunspots", "sums.csv"]
    assert input_names("f") == ["folder/"]
    assert input_names("folder/n") == ["folder/next.npy"]
    assert input_names("missing/") == []
    assert target_names("ne") == ["next"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alpha,beta\n1,2\n3,4\n", ["alpha"]),
        ("alpha;gamma\n1,5;2\n3;4\n", ["alpha"]),
        ("1,2\n3,4\n", []),
        ("", []),
    ],
)
def test_columns_of_the_file_complete(text, found, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    context = typer.Context(COMMANDS["gradnorm"])
    context.params["input"] = str(tmp_path / "x.csv")
    assert column_names(context, "al") == found
    context.params["input"] = "macrodata"
    assert column_names(context, "realgdp,realc") == ["realgdp,realcons"]
    assert "realgdp,realgdp" not in column_names(context, "realgdp,realg")
    assert "year" not in column_names(context, "")
    context.params["input"] = None
    assert column_names(context, "") == []


def settings(ran):
    assert (ran.code, ran.err) == (0, "")
    return {row["option"]: row for row in json.loads(ran.out)["rows"]}


def test_the_configuration_says_what_each_value_is_and_who_gave_it(run, tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text("seq_len = 9\nhidden-size = 6\n[gradnorm]\nloss-at = 'all'\n")
    monkeypatch.setenv("RNNCTL_SEED", "4")
    monkeypatch.setattr("rnnctl.gradients.gradnorm.gradnorm", None)
    found = settings(run("gradnorm --config my.toml --hidden-size 8 --no-bias --show-config --json"))
    said = {name: (row["value"], row["source"], row["where"]) for name, row in found.items()}
    assert said["--seq-len"] == (9, "file", "my.toml")
    assert said["--loss-at"] == ("all", "file", "my.toml")
    assert said["--hidden-size"] == (8, "flag", None)
    assert said["--bias"] == (False, "flag", None)
    assert said["--seed"] == (4, "environment", "RNNCTL_SEED")
    assert said["--output-size"] == (5, "default", None)
    assert said["--gain"] == (1.0, "default", None)
    assert len(said) == len(COMMANDS["gradnorm"].params) - 1


def test_the_configuration_of_what_only_the_run_settles_says_by_what(run):
    line = "gradnorm --input sunspots --target next --fail-on vanishing --dtype float64 --show-config --json"
    found = {name: row["value"] for name, row in settings(run(line)).items()}
    assert found["--seq-len"] == found["--input-size"] == "as --input says"
    assert found["--output-size"] == "as --target says"
    assert (found["--hidden-size"], found["--loss-at"], found["--nonlinearity"]) == (20, "last", "tanh")
    assert found["--fail-on"] == ["vanishing"]


def test_the_configuration_is_a_table_too(run):
    lines = [line.split() for line in run("cell --hidden-size 8 --show-config").out.splitlines()]
    assert ["--hidden-size", "8", "flag"] in [line[:3] for line in lines]
    assert ["--output-size", "5", "default"] in [line[:3] for line in lines]
    # However long it is, all of it.
    assert {line[0] for line in lines if line and line[0].startswith("--")} == set(
        settings(run("cell --show-config --json"))
    )


@pytest.mark.parametrize(
    ("name", "near"), [("RNNCTL_HIDEN_SIZE", "RNNCTL_HIDDEN_SIZE"), ("RNNCTL_COLOUR", "RNNCTL_COLOR")]
)
def test_a_misspelt_variable_is_refused_with_the_nearest(name, near, run, monkeypatch):
    monkeypatch.setenv(name, "3")
    ran = run("cell")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"Error: {name} in the environment is no setting of rnnctl. Did you mean {near}?\n"
    assert run("cell --help").code == 0


def test_a_variable_that_resembles_no_setting_is_said_to_be_unheard(run, monkeypatch):
    monkeypatch.setenv("RNNCTL_XYZZY", "3")
    # A setting of another command is one.
    monkeypatch.setenv("RNNCTL_REPEATS", "3")
    ran = run("cell --only scalars")
    assert ran.code == 0
    assert ran.err == "Note: RNNCTL_XYZZY in the environment is no setting of rnnctl; nothing hears it\n"
    assert run("cell --only scalars -q").err == ""


def test_a_switch_in_the_environment_that_is_neither_is_told_in_our_words(run, monkeypatch):
    monkeypatch.setenv("RNNCTL_QUIET", "maybe")
    ran = run("cell")
    assert ran.code == 2
    assert ran.err.startswith(
        "Error: Invalid value for '--quiet': expected true or false; got 'maybe' (from RNNCTL_QUIET)\n"
    )
