"""Every code block of the README is run, and prints what stands there."""

import contextlib
import io
import re
import shlex
import shutil

import pytest
from documents import BLOCK, ROOT, assert_alike, assert_same_run, commands, run_in_a_shell

from rnnctl.__main__ import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = BLOCK.findall(README)


def blocks(*languages):
    return [text for language, text in BLOCKS if language in languages]


CONSOLE = [pair for block in blocks("console") for pair in commands(block)]
# Shown after the block of Python that leaves its file.
OF_THE_RUN = [(command, expected) for command, expected in CONSOLE if "run.jsonl" in command]


@pytest.mark.parametrize(
    ("command", "expected"),
    [pair for pair in CONSOLE if pair not in OF_THE_RUN],
    ids=lambda value: value if value.startswith("rnnctl") else "",
)
def test_a_command_prints_what_the_readme_shows(command, expected, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    assert program == "rnnctl"
    assert main(arguments) == 0
    assert_alike(capsys.readouterr().out, expected)


@pytest.mark.parametrize("block", [b for b in blocks("sh") if "venv" not in b])
def test_a_shell_recipe_works(block, tmp_path):
    if "jq" in block and shutil.which("jq") is None:
        block = block.split("|")[0]
    run_in_a_shell(block, tmp_path)
    if "factors.csv" in block:
        lines = (tmp_path / "factors.csv").read_text(encoding="utf-8").splitlines()
        assert [line.split(",")[0] for line in lines] == ["hidden_size", "10", "40", "160"]


def test_the_install_lines_end_in_commands_that_work(monkeypatch, capsys):
    """The environments themselves are made by the gate."""
    monkeypatch.chdir(ROOT)
    run, test = [block.strip().split(" && ") for block in blocks("sh") if "venv" in block]
    assert run[:2] == ["python3 -m venv .venv", ".venv/bin/pip install ."]
    assert main(shlex.split(run[2])[1:]) == 0
    assert "sunspots" in capsys.readouterr().out
    assert test[2] == ".venv/bin/python -m pytest"


PYTHON = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("block", "expected"), PYTHON, ids=lambda text: text.splitlines()[-1])
def test_a_block_of_python_prints_what_the_readme_shows(block, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "README.md", "exec"), {})
    assert_alike(printed.getvalue(), expected)
    for command, shown in OF_THE_RUN if "run.jsonl" in block else ():
        assert main(shlex.split(command)[1:]) == 0
        assert_same_run(capsys.readouterr().out, shown)


def test_every_block_of_python_is_followed_by_its_output():
    assert len(PYTHON) == len(blocks("python")) == len(blocks("text")) >= 3
    assert OF_THE_RUN


def test_every_command_and_every_config_is_in_the_readme(capsys):
    assert main(["--help"]) == 0
    listed = re.findall(r"│ (\w+) ", capsys.readouterr().out)
    assert len(listed) >= 11
    for name in listed:
        assert f"rnnctl {name}" in README
    for path in (ROOT / "configs").iterdir():
        assert f"`configs/{path.name}`" in README


def test_the_comparison_itself_notices_a_difference():
    assert_alike("a 1.000 ██ b", "a   1.001 █ b")
    with pytest.raises(AssertionError, match="1.5"):
        assert_alike("a 1.5 b", "a 1.0 b")
    with pytest.raises(AssertionError, match="stable"):
        assert_alike("verdict stable", "verdict vanishing")
