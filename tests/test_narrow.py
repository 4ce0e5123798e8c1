"""Tables in windows of any width: nothing is cut off, and no number, name, shape or flag is broken."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
import torch
from shell import commands, forget_modules_of
from torch import nn

import rnnctl
from rnnctl import FullRNN
from rnnctl.__main__ import main
from rnnctl.results import Result
from rnnctl.shapes.unroll import drawn, unroll
from rnnctl.view.fitting import Filled, parts
from rnnctl.view.heatmap import RAMP, heatmap
from rnnctl.view.layouts.layout import Column, Table
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.numbers import number
from rnnctl.view.render import rendered
from rnnctl.view.scalars import scalars_text
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
    "gradnorm --gain 3 --seq-len 45 --loss-at all",
    "gradnorm --cell lstm",
    f"gradnorm --model mine:Deep {OWN}",
    "gradnorm --from run.jsonl",
    "flow",
    "flow --cell lstm --seq-len 45",
    "truncation",
    "spectrum --hidden-size 6",
    "spectrum --cell lstm --hidden-size 11",
    f"spectrum --model mine:Leaky {OWN}",
    "lyapunov --hidden-size 6",
    "lyapunov --cell gru --hidden-size 6",
    f"lyapunov --model mine:Leaky {OWN}",
    "lyapunov --autonomous --steps 30 --hidden-size 4",
    "weights weights.pt",
    "check --seq-len 3",
    "bench --hidden-size 3 --repeats 1 --no-memory",
    "bench --hidden-size 3 --repeats 1 --no-memory --flow",
    "bench --hidden-size 3 --repeats 1 --no-memory --probe",
)


@dataclass
class Shown:
    """What a command line hands to the view, to be shown at any width."""

    result: Result
    config: Mapping[str, Any]

    def at(self, width: int | None, *, color: bool = False, ascii_only: bool = False) -> str:
        """Its tables in such a window."""
        return rendered(self.result, View(terminal=Terminal(width, color, ascii_only)), self.config, {})

    @cached_property
    def wide(self) -> str:
        """Its tables where they go to a pipe."""
        return self.at(None)


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


Of = Callable[[str], Shown]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("line", LINES)
def test_no_line_is_too_long_and_no_number_name_or_flag_is_broken(line: str, width: int, shown: Of) -> None:
    made = shown(line)
    text, wide = made.at(width), made.wide
    assert max(map(len, text.splitlines())) <= width
    for cell in unbroken(made, width):
        assert holds_whole(text, cell), cell
    # Nothing that looks like a number or a flag is a piece of one.
    words, all_words = set(text.split()), set(wide.split())
    assert {word for word in words if re.match(r"-?\d|--\w", word)} <= all_words
    for name in re.findall(r"^(\w+)  ", wide, re.MULTILINE):
        assert holds_whole(text, name)


@pytest.mark.parametrize("line", LINES)
def test_what_is_piped_has_no_trailing_spaces_and_ascii_is_ascii(line: str, shown: Of) -> None:
    for text in (shown(line).wide, shown(line).at(60, ascii_only=True)):
        assert [each for each in text.split("\n") if each != each.rstrip()] == []
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 60


def test_nor_has_what_a_terminal_shows_in_colour_but_for_its_codes(shown: Of) -> None:
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown("flow").at(80, color=True))
    assert plain.split() == shown("flow").at(80).split()
    assert not re.search(r" $", shown("flow").at(80), re.MULTILINE)


def test_bars_go_before_spare_columns_and_those_before_the_table_is_split(shown: Of) -> None:
    flow, gradnorm = shown("flow --cell lstm --seq-len 45"), shown("gradnorm")
    titles = ("median, log", "h alone", "c alone")
    assert [[title in flow.at(width) for title in titles] for width in (160, 60, 40)] == [
        [True, True, True],
        [False, True, False],
        [False, False, False],
    ]
    assert ["W_hh, log" in gradnorm.at(width) for width in (160, 80, 60)] == [True, True, False]
    # In two parts, each of which says which step a line is of.
    assert [len(re.findall(r"^ t  ", gradnorm.at(width), re.MULTILINE)) for width in (80, 60, 40)] == [1, 1, 2]


def test_every_part_of_a_split_table_has_all_that_names_a_row(shown: Of) -> None:
    text = shown("bench --hidden-size 3 --repeats 1 --no-memory --probe").at(40)
    assert len(re.findall(r"^ case +cell +method", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^ T 7.* coupled-", text, re.MULTILINE)) == 4


def test_a_path_of_names_is_broken_between_its_names(shown: Of) -> None:
    text = shown("weights weights.pt").at(60)
    assert "\n encoder_of_" in text
    for piece in re.findall(r"^ ([\w.]+) ", text, re.MULTILINE):
        assert piece[-1] in "._" or re.fullmatch(r"[a-z_.]*\.?(\w+_)*(l\d|reverse|name|weight|bias|elements)", piece)


def test_notes_go_below_their_numbers_where_they_have_no_room_beside(shown: Of) -> None:
    notes = {width: shown("gradnorm").at(width) for width in (40, 80)}
    assert re.search(r"^spectral_norm +1\.119\n    largest singular value of W_hh$", notes[40], re.MULTILINE)
    assert re.search(r"^spectral_norm +1\.119  largest singular value of W_hh$", notes[80], re.MULTILINE)
    # A note of several lines stays in its column.
    (indent,) = re.findall(r"^( +)tolerance 1e-05$", notes[80], re.MULTILINE)
    assert indent == " " * len("autograd_relative_error  1.621e-07  ")


def test_no_flag_in_a_note_is_broken_at_any_width(shown: Of) -> None:
    result, layout = shown("gradnorm").result, LAYOUTS["gradnorm"]
    for width in range(40, 140):
        words = scalars_text(result, layout, width).plain.split()
        assert {"(--vanish-below)", "(--explode-above);"} <= set(words), width
    flag = "--a-flag-of-thirty-eight-letters-or-so"
    noted = replace(layout, notes=lambda scalars: {"loss": f"see {flag}"})
    for width in range(45, 140):
        assert flag in scalars_text(result, noted, width).plain.split(), width


def test_a_word_is_broken_only_where_it_is_longer_than_its_column(shown: Of) -> None:
    text = shown("cell").at(60)
    assert re.search(r"^ W_hh h_\{t-1\} \+ +transformed", text, re.MULTILINE)
    assert not holds_whole(text, "hh")


def test_every_shape_is_whole() -> None:
    tables = [table for layout in LAYOUTS.values() for table in (*layout.tables, *layout.closing)]
    tables += [table for layout in LAYOUTS.values() for several in layout.more.values() for table in several]
    shapes = [column for table in tables for column in table.columns if column.field == "shape"]
    assert len(shapes) >= 8
    assert all(column.whole for column in shapes)


def test_in_the_narrowest_window_text_gives_way_first_and_numbers_last() -> None:
    text = Filled(Column("a", "a", right=False), "a", ["b" * 30])
    name = Filled(Column("n", "n", right=False, whole=True), "n", ["c" * 14])
    value = Filled(Column("v", "v"), "v", ["1,234,567"])
    (one,) = parts([text, name, value], 2, 36)
    assert [each.width for each in one] == [5, 14, 9]
    (one,) = parts([text, name, value], 2, 24)
    assert [each.width for each in one] == [1, 6, 9]
    (one,) = parts([text, name, value], 2, 15)
    assert sum(each.width for each in one) == 15 - 8


def test_dots_stand_for_the_rows_that_are_left_out_in_every_column(shown: Of) -> None:
    text = shown("spectrum --cell lstm --hidden-size 11").at(160)
    assert len(re.findall(r"^ \.\.\. +\.\. +\.\.\.( +\.\.\.)*$", text, re.MULTILINE)) == 2
    assert not re.search(r"^ +\.$", text, re.MULTILINE)


@pytest.mark.parametrize("width", WIDTHS)
def test_an_unrolled_network_fits_the_window(width: int) -> None:
    graph = unroll(FullRNN(3, 4, 2, output_activation="softmax"), torch.zeros(1, 20, 3))
    text, wide = drawn(graph, "text", width=width), drawn(graph, "text")
    assert max(map(len, text.splitlines())) <= width
    without_trunk = [re.sub(r"[├─▶│└\s]+", " ", each).strip() for each in (text, wide)]
    assert without_trunk[0] == without_trunk[1]
    assert (len(text.splitlines()) > len(wide.splitlines())) == (width < max(map(len, wide.splitlines())))


# ---- two lists of a matrix ----------------------------------------------------------------------

SPECTRA = [line for line in LINES if line.startswith("spectrum")]


@pytest.mark.parametrize("line", SPECTRA)
def test_no_line_holds_an_eigenvalue_and_a_singular_value(line: str, shown: Of) -> None:
    made = shown(line)
    rows = made.result.more.get("eigenvalues", made.result.rows)
    assert {"i", "real", "imag", "modulus", "singular_value"} <= set(rows[0])
    for row in rows[:5]:
        size, singular = number(row["modulus"]), number(row["singular_value"])
        assert holds_whole(made.wide, size)
        assert holds_whole(made.wide, singular)
        assert size == singular or not re.search(rf"^ .*{re.escape(size)} .*{re.escape(singular)}$", made.wide, re.M)
    assert re.search(r"^ .*i +real +imag +modulus$", made.wide, re.MULTILINE)
    assert re.search(r"^ (gate +)?i +singular value$", made.wide, re.MULTILINE)


def test_a_matrix_that_is_not_square_has_singular_values_alone() -> None:
    layer = nn.LSTM(3, 4, proj_size=2, batch_first=True, dtype=torch.float64)
    found = rnnctl.spectrum(layer, torch.ones(1, 2, 3, dtype=torch.float64))
    text = Shown(found, {"file": "x"}).wide
    assert "the singular values of every gate's rows of W_hh\n" in text
    assert "modulus" not in text


# ---- pictures -----------------------------------------------------------------------------------


def test_a_picture_and_its_words_fit_the_window(shown: Of) -> None:
    matrix = [[1.0] * 3000]
    for width in (40, 41, 47, 60):
        assert max(map(len, heatmap(matrix, "k", "t", Terminal(width)).splitlines()[2:-1])) <= width
    assert heatmap([[1.0] * 21], "k", "t", Terminal(40)).splitlines()[1].split() == ["0", "10", "20"]


def test_a_picture_of_values_within_a_decade_does_not_run_from_blank_to_full() -> None:
    lines = heatmap([[1.0, 0.9]], "k", "t", Terminal()).splitlines()
    first, second = lines[2].split()[1]
    assert (first, RAMP.index(second) >= len(RAMP) - 2) == (RAMP[-1], True)
    assert "from 0.1 or less to 1" in lines[-1]


# ---- tables and CSV -----------------------------------------------------------------------------

# What the rows have, as in CSV, and no table: the guide names these.
MORE_IN_CSV = {
    "cell": {"kind"},
    "forward": {"kind"},
    "forward-modules": {"kind", "batch", "longest", "shortest"},
    # Beside them grad_norm_ of every gate, which a table of its own sums up.
    "gradnorm-modules": {"call", "grad_norm_state", *(f"grad_norm_{gate}" for gate in "ifgo")},
    # Drawn as pictures.
    "gradnorm-history": {"step", "t", "grad_norm_W_hh", "grad_norm_h"},
    "flow": {"k", "t", "norm", "sensitivity", "sensitivity_h", "sensitivity_c"},
}


class Read(dict[str, Any]):
    """A record that notes which of its fields are asked for."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        super().__init__(record)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)


def fields_shown(made: Shown) -> set[str]:
    """Those of the rows that stand in some column, or are their section."""
    layout = LAYOUTS[made.result.schema]
    found = {layout.section} if layout.section else set()
    for table in (*layout.tables, *layout.closing):
        for column in table.columns:
            found.add(column.field)
            for row in filter(table.shows, map(Read, made.result.rows) if column.text else ()):
                row.asked.clear()
                column.text(row)  # type: ignore[misc]
                found |= row.asked
    return found


@pytest.mark.parametrize("line", LINES)
def test_a_table_shows_every_field_of_csv_but_those_that_the_guide_names(line: str, shown: Of) -> None:
    made = shown(line)
    left_out = set(made.result.rows[0]) - fields_shown(made)
    assert left_out <= MORE_IN_CSV.get(made.result.schema, set())
    assert left_out or made.result.schema not in MORE_IN_CSV
