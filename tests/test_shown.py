"""What a notebook shows of a result, and what leads on from it: the same for every public result and for a trace."""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure
from pages import Node, codes_of, tree

import rnnctl
from rnnctl.errors import InputError
from rnnctl.results import Result
from rnnctl.view.figures import FIGURES, PANELS
from rnnctl.view.shown import Shown

METHODS = ("_repr_html_", "to_pandas", "plot")


def gru() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.GRU(2, 3, batch_first=True)


def full() -> rnnctl.FullRNN:
    torch.manual_seed(0)
    return rnnctl.FullRNN(2, 3, 1)


def inputs() -> torch.Tensor:
    return torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(1))


def trace(model: torch.nn.Module | None = None) -> rnnctl.Trace:
    model = gru() if model is None else model
    with rnnctl.probe(model) as found:
        model(inputs())[0][:, -1].square().sum().backward()
    return found


def history(tmp_path):
    model = gru()
    with rnnctl.watch(model, every=1, to=tmp_path / "run.jsonl"):
        model(inputs())[0][:, -1].square().sum().backward()
    return rnnctl.gradnorm_history(tmp_path / "run.jsonl")


class Leaky(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.U = torch.nn.Linear(2 + 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, states = x.new_zeros(x.shape[0], 3), []
        for t in range(x.shape[1]):
            h = 0.5 * h + 0.5 * self.U(torch.cat((x[:, t], h), 1)).tanh()
            states.append(h)
        return torch.stack(states, 1)


def swept():
    with ThreadPoolExecutor(1) as executor:
        return rnnctl.sweep(
            "spectrum", {"hidden-size": 3}, {"gain": [0.5, 1.0, 2.0], "seed": range(2)}, executor=executor
        )


SHOWN = {
    "gradnorm": lambda path: rnnctl.gradnorm(full(), inputs()),
    "gradnorm-modules": lambda path: rnnctl.gradnorm(gru(), inputs()),
    "trace": lambda path: trace(),
    "gradnorm-history": history,
    "flow": lambda path: rnnctl.flow(full(), inputs()),
    "truncation": lambda path: rnnctl.truncation(full(), inputs()),
    "spectrum": lambda path: rnnctl.spectrum(full(), inputs()),
    "spectrum-gates": lambda path: rnnctl.spectrum(gru(), inputs()),
    "spectrum-steps": lambda path: rnnctl.spectrum(Leaky(), inputs()),
    "lyapunov": lambda path: rnnctl.lyapunov(full(), inputs()),
    "sweep": lambda path: swept(),
}


def test_every_public_result_and_the_trace_have_the_methods_from_one_place():
    public = [getattr(rnnctl, name) for name in rnnctl.__all__]
    kinds = [each for each in public if isinstance(each, type) and issubclass(each, Result)]
    assert len(kinds) > 15
    for kind in (*kinds, rnnctl.Trace):
        assert [getattr(kind, name) for name in METHODS] == [getattr(Shown, name) for name in METHODS], kind


@pytest.mark.parametrize("schema", SHOWN)
def test_a_notebook_shows_the_answer_a_picture_and_the_scalars(schema, tmp_path):
    result = SHOWN[schema](tmp_path)
    text = result._repr_html_()
    read = tree(text)
    assert len(text) < 100_000
    assert schema.partition("-")[0] in read.all("b")[0].text
    assert read.all("svg", role="img") or read.all("img")
    names = [each.text for each in read.all("th")]
    assert names and set(names) <= (result.scalars if schema != "trace" else {"weights": 1}).keys()
    # Nothing of it reaches beyond it, or needs anything.
    assert not read.all("style") and not read.all("script") and not read.all(id="verdict")
    assert result._repr_html_() == text


def test_the_picture_of_a_long_matrix_is_small_in_a_notebook():
    torch.manual_seed(0)
    (image,) = tree(rnnctl.flow(rnnctl.FullRNN(1, 2, 1), torch.randn(1, 300, 1))._repr_html_()).all("img")
    assert len(codes_of(str(image.attributes["src"]))) == 150


def test_a_result_without_layout_or_picture_shows_its_scalars():
    for result in (rnnctl.unroll(full(), inputs()), rnnctl.sequence_shapes(full(), inputs())):
        read: Node = tree(result._repr_html_())
        assert not read.all("img") and not read.all("svg")
        assert "rnnctl" in read.text
        with pytest.raises(InputError, match=f"there is no picture of a result of {result.schema}; there are of gradn"):
            result.plot()
    assert "seq_len" in tree(rnnctl.unroll(full(), inputs())._repr_html_()).text


@pytest.mark.parametrize("schema", SHOWN)
def test_plot_gives_the_figure_of_the_option_or_draws_its_first_panel_into_axes(schema, tmp_path):
    result = SHOWN[schema](tmp_path)
    figure, axes = result.plot()
    whole = figure.axes[0]
    assert axes is whole and axes.has_data()
    mine = Figure().subplots()
    same, drawn = result.plot(mine)
    assert (same, drawn) == (mine.figure, mine)
    assert drawn.has_data() and (drawn.get_xlabel(), drawn.get_ylabel()) == (axes.get_xlabel(), axes.get_ylabel())
    lines = [[line.get_xydata().tolist() for line in each.lines] for each in (axes, drawn)]
    assert str(lines[0]) == str(lines[1])


@pytest.mark.parametrize("given", [[1, 2], "axes", Figure(), Figure().subplots(2)])
def test_plot_refuses_what_is_no_axes(given):
    with pytest.raises(InputError, match=f"ax: expected axes of matplotlib's.*; got {type(given).__name__} "):
        rnnctl.flow(full(), inputs()).plot(given)


def test_every_kind_with_a_picture_has_a_first_panel():
    assert FIGURES.keys() == PANELS.keys() == SHOWN.keys()


def test_to_pandas_makes_a_frame_of_the_rows(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    result = rnnctl.gradnorm(full(), inputs())
    assert result.to_pandas() == ("a frame", list(result.rows))
    kind, rows = trace().to_pandas()
    assert kind == "a frame" and [row["t"] for row in rows] == list(range(8))
    assert {row["weight"] for row in rows} == {"weight_hh_l0"}


class Pandas:
    """In place of the package, which the tests do not need."""

    __spec__ = SimpleNamespace(name="pandas")
    DataFrame = staticmethod(lambda rows: ("a frame", rows))


@pytest.mark.parametrize(
    ("package", "method", "install"),
    [("pandas", "to_pandas", "pip install 'pandas'"), ("matplotlib", "plot", "pip install 'rnnctl\\[plot\\]'")],
)
def test_without_the_package_it_says_how_to_install_it(package, method, install, monkeypatch):
    result = rnnctl.gradnorm(full(), inputs())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{method}\(\) needs {package}. Install it: .*{install}"):
        getattr(result, method)()


def stacked() -> rnnctl.Trace:
    torch.manual_seed(0)
    model = torch.nn.LSTM(2, 3, num_layers=3, batch_first=True)
    with rnnctl.probe(model, decay=True) as found:
        model(inputs())[0][:, -1].square().sum().backward()
    return found


def test_a_notebook_shows_every_weight_of_a_trace_with_its_numbers_and_the_first_pictures_by_name():
    found = stacked()
    read = tree(found._repr_html_())
    head, *lines = ([cell.text for cell in row.all("td")] for row in read.all("table")[0].all("tr"))
    assert [line[0] for line in lines] == list(found)
    for line, weight in zip(lines, found.values(), strict=True):
        said = dict(zip(head, line, strict=True))
        assert (said["cell"], said["seq_len"]) == ("LSTM", "8")
        assert said["||grad||"] == f"{weight.grad_W_hh.norm():.4g}"
        assert said["state, first step"] == f"{weight.grad_norm_state[0]:.4g}"
        assert said["state, last step"] == f"{weight.grad_norm_state[-1]:.4g}"
        assert weight.decay is not None and said["per step"] == f"{weight.decay.factor_per_step:.4g}"
    titles = [each for each in ("l0", "l1", "l2") if f"sends back: weight_hh_{each}" in read.text]
    assert titles == ["l0", "l1"] and "2 of 3 pictures" in read.text
    # What was not asked for has no column.
    assert "per step" not in [each.text for each in tree(trace()._repr_html_()).all("b")]


def test_a_weight_of_a_trace_is_shown_as_a_trace_of_it_alone():
    found = stacked()
    weight = found["weight_hh_l1"]
    text = weight._repr_html_()
    assert "sends back: weight_hh_l1" in text and "weight_hh_l0" not in text
    figure, _ = weight.plot()
    assert [axes.get_title() for axes in figure.axes] == ["weight_hh_l1"]


def test_a_trace_is_shown_once_its_block_has_ended():
    model = gru()
    with rnnctl.probe(model) as found:
        for method in METHODS:
            with pytest.raises(InputError, match="filled when the block ends"):
                getattr(found, method)()
        model(inputs())[0].sum().backward()
    assert "weights" in found._repr_html_()
