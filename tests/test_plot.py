"""The options of --plot: --title, --dpi, and what a command without pictures says of them."""

import pytest
from shell import runner


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    return runner(capsys, monkeypatch, tmp_path)


def test_letters_without_a_glyph_are_boxes_of_which_a_note_tells(run, tmp_path):
    ran = run("gradnorm --plot a.png --json --title", "a \N{CJK UNIFIED IDEOGRAPH-65E5}\x1b\udc80 b")
    assert ran.code == 0
    assert "matplotlib's font has no \N{CJK UNIFIED IDEOGRAPH-65E5}: boxes in the title" in ran.err
    ran = run("gradnorm --plot a.svg --json --title", "a \N{CJK UNIFIED IDEOGRAPH-65E5}\x1b\udc80 b")
    assert "boxes" not in ran.err
    assert ">a \N{CJK UNIFIED IDEOGRAPH-65E5}\ufffd\ufffd b<" in (tmp_path / "a.svg").read_text("utf-8")


def test_the_title_is_what_was_run_or_what_is_given_or_none(run, tmp_path):
    texts = []
    for more in ((), ("--title", "My own <title>"), ("--title", "")):
        assert run("gradnorm --plot a.svg --force --json", *more).code == 0
        texts.append((tmp_path / "a.svg").read_text())
    headline = "FullRNN(10, 20, 5)"
    assert [headline in text for text in texts] == [True, False, False]
    assert "My own &lt;title&gt;" in texts[1]


@pytest.mark.parametrize(("dpi", "width"), [(None, 960), (30, 192)])
def test_the_resolution_is_that_of_a_png(dpi, width, run, tmp_path):
    assert run("gradnorm --plot a.png --json", *(("--dpi", str(dpi)) if dpi else ())).code == 0
    header = (tmp_path / "a.png").read_bytes()[16:20]
    assert abs(int.from_bytes(header, "big") - width) <= 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gradnorm --title mine", "--title is about --plot, which is not given"),
        ("flow --dpi 60", "--dpi is about --plot, which is not given"),
        ("spectrum --plot a.svg --dpi 60", "--dpi is about the pixels of a .png; a .svg has none. Leave it out"),
        ("lyapunov --plot a.pdf --dpi 60", "a .pdf has none"),
        ("gradnorm --plot a.png --dpi 29", "expected a whole number from 30 to 1,200; got '29'"),
        ("truncation --plot a.png --dpi 1201", "expected a whole number from 30 to 1,200; got '1201'"),
        ("gradnorm --from run.jsonl --title mine", "--title is about --plot"),
    ],
)
def test_what_would_be_ignored_is_refused_before_computing(line, message, run, tmp_path, monkeypatch):
    monkeypatch.setattr("rnnctl.cli.setup.prepared.require_consistent", None)
    ran = run(line)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "example"), [("--plot", "picture.png"), ("--report", "page.html"), ("-o", "result.json")]
)
def test_a_name_without_letters_is_said_to_be_one(flag, example, run):
    ran = run("flow --seq-len 5", flag, "")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"Error: {flag} is empty, or '.', which is a folder; name a file, such as {flag} {example}\n"


@pytest.mark.parametrize("command", ["forward", "cell", "unroll", "check", "weights w.pt", "bench"])
@pytest.mark.parametrize("flags", [("--plot", "a.png"), ("--plot=a.png",), ("--title", "mine")])
def test_a_command_that_draws_no_picture_names_those_that_do(command, flags, run):
    ran = run(command, *flags)
    assert (ran.code, ran.out) == (2, "")
    flag = flags[0].partition("=")[0]
    assert f"No such option: {flag}. {command.split()[0]} does not have it" in ran.err
    assert "gradnorm, flow, truncation, spectrum and lyapunov have\n" in ran.err


def test_an_option_that_no_command_has_is_not_said_to_be_anywhere(run):
    assert "does not have it" not in run("forward --plott a.png").err
