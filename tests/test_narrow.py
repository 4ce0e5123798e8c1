"""Tables in windows of any width: nothing is cut off, and no number, name, shape or flag is broken."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from shell import commands, forget_modules_of
from torch import nn

import rnnctl
from rnnctl.__main__ import main
from rnnctl.results import Result
from rnnctl.view.layouts.layout import Column, Table
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.numbers import number
from rnnctl.view.render import rendered
from rnnctl.view.terminal import Terminal, View

WIDTHS = (40, 60, 79, 80, 100, 160)
MINE = """
import torch
from torch import nn


class Leaky(nn.Module):
    def __init__(self):
        super().__init__()
        self.inward, self.across, self.readout = nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 2)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for x_t in x.unbind(1):
            h = 0.5 * h + 0.5 * torch.tanh(self.inward(x_t) + self.across(h))
        return self.readout(h)


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_of_sequences = nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True)
        self.readout_of_states = nn.Linear(8, 2)

    def forward(self, x):
        return self.readout_of_states(self.encoder_of_sequences(x)[0])
"""
OWN = "--input-size 3 --seq-len 6 --batch-size 2"
LINES = (
    "cell",
    "cell --h-init normal --no-bias",
    "forward --output-activation softmax",
    "forward --seq-len 1 --hidden-size 1000 --input-size 1000 --batch-size 1",
    "forward --cell gru --num-layers 2",
    f"forward --model mine:Deep {OWN}",
    "gradnorm",
    "gradnorm --gain 3 --seq-len 50 --loss-at all",
    "gradnorm --cell lstm",
    f"gradnorm --model mine:Deep {OWN}",
    "gradnorm --from run.jsonl",
    "flow",
    "flow --cell lstm --seq-len 45",
    "truncation",
    "spectrum",
    "spectrum --cell lstm",
    f"spectrum --model mine:Leaky {OWN}",
    "lyapunov",
    "lyapunov --cell gru",
    f"lyapunov --model mine:Leaky {OWN}",
    "lyapunov --autonomous --steps 30",
    "weights weights.pt",
    "check --seq-len 3",
    "bench --hidden-size 3 --repeats 1 --no-memory",
    "bench --hidden-size 3 --repeats 1 --no-memory --flow",
    "bench --hidden-size 3 --repeats 1 --no-memory --probe",
)


@dataclass(frozen=True)
class Shown:
    """What a command line hands to the view, to be shown at any width."""

    result: Result
    config: Mapping[str, Any]

    def at(self, width: int | None, **terminal: Any) -> str:
        """Its tables in such a window."""
        return rendered(self.result, View(terminal=Terminal(width, **terminal)), self.config, {})


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Shown]]:
    """Runs a command line once and keeps what it hands to the view."""
    folder, kept, met = tmp_path_factory.mktemp("narrow"), dict[str, Shown](), list[Shown]()

    def keep(result: Result, view: View, config: Mapping[str, Any], versions: Mapping[str, str]) -> str:
        met.append(Shown(result, config))
        return ""

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr("rnnctl.view.render.rendered", keep)
        patched.setattr("rnnctl.cli.app.app", commands())
        patched.setattr(sys, "path", list(sys.path))
        patched.setattr(sys, "dont_write_bytecode", True)
        (folder / "mine.py").write_text(MINE)

        def of(line: str) -> Shown:
            if line not in kept:
                _files_for(line)
                assert main([*line.split(), "--quiet"]) == 0
                kept[line] = met[-1]
            return kept[line]

        yield of
    forget_modules_of(folder)


def _files_for(line: str) -> None:
    """The files that it reads: weights of layers with long names, a training run of three steps."""
    model = nn.ModuleDict({"encoder_of_sequences": nn.LSTM(3, 4, 2, bidirectional=True), "head": nn.Linear(8, 2)})
    if "weights.pt" in line:
        torch.save(model.state_dict(), "weights.pt")
    if "run.jsonl" in line:
        layer = nn.GRU(3, 4)
        with rnnctl.watch(nn.Sequential(layer), every=1, to="run.jsonl"):
            for _ in range(3):
                layer(torch.ones(5, 2, 3))[0].sum().backward()


def tables_of(shown: Shown) -> Iterator[tuple[Table, Sequence[Mapping[str, Any]]]]:
    """Every table of the layout with the rows that it shows."""
    layout = LAYOUTS[shown.result.schema]
    for table in (*layout.tables, *layout.closing):
        yield table, [row for row in shown.result.rows if table.shows(row)]
    for name, tables in layout.more.items():
        for table in tables:
            yield table, [row for row in shown.result.more[name] if table.shows(row)]


def stays(column: Column) -> bool:
    """Whether it is drawn at every width, and its cells are not to be broken."""
    return (column.right or column.whole) and not (column.bar or column.spare or column.optional)


def cells_of(column: Column, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Line by line, without what is left out in the middle of a long table."""
    for row in (*rows[:20], *rows[-20:]):
        yield from (column.text(row) if column.text else number(row[column.field])).splitlines()


def unbroken(shown: Shown, width: int) -> Iterator[str]:
    """Every number, shape and name that such a window may not break; a path of names that fills it has to be."""
    for table, rows in tables_of(shown):
        for column in filter(stays, table.columns):
            yield from (cell for cell in cells_of(column, rows) if column.right or len(cell) <= width // 2)


def holds_whole(text: str, cell: str) -> bool:
    return re.search(rf"(?<!\S){re.escape(cell)}(?!\S)", text) is not None


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("line", LINES)
def test_no_line_is_too_long_and_no_number_name_or_flag_is_broken(
    line: str, width: int, shown: Callable[[str], Shown]
) -> None:
    made = shown(line)
    text, wide = made.at(width), made.at(None)
    assert max(map(len, text.splitlines())) <= width
    for cell in unbroken(made, width):
        assert holds_whole(text, cell), cell
    # Nothing that looks like a number or a flag is a piece of one.
    words, all_words = set(text.split()), set(wide.split())
    assert {word for word in words if re.match(r"-?\d|--\w", word)} <= all_words
    for name in re.findall(r"^(\w+)  ", wide, re.MULTILINE):
        assert holds_whole(text, name)
