"""Pictures by --plot, and the heat map in the terminal."""

import importlib.util
import math

import numpy as np
import pytest

from rnnctl.__main__ import main
from rnnctl.view.figures import FIGURES, figure_bytes
from rnnctl.view.heatmap import RAMP, heatmap
from rnnctl.view.terminal import Terminal

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", STARTS)
@pytest.mark.parametrize("command", ["gradnorm", "flow", "truncation", "spectrum", "lyapunov"])
def test_a_picture_is_drawn_beside_the_result(command, suffix, tmp_path, capsys):
    path = tmp_path / f"picture.{suffix}"
    assert main([command, "--seq-len", "12", "--plot", str(path), "--format", "csv"]) == 0
    assert path.read_bytes().startswith(STARTS[suffix])
    ran = capsys.readouterr()
    assert ran.out.count("\n") > 3
    assert f"wrote {path}" in ran.err


@pytest.mark.parametrize("extreme", ["--seq-len 1", "--nonlinearity relu --init identity --gain 30 --seq-len 60"])
@pytest.mark.parametrize("command", ["gradnorm", "flow", "truncation", "spectrum", "lyapunov"])
def test_nothing_to_show_on_a_log_scale_is_no_error(command, extreme, tmp_path, capsys):
    path = tmp_path / "picture.png"
    assert main([command, *extreme.split(), "--plot", str(path), "-q"]) == 0
    assert path.stat().st_size > 1000


def test_a_picture_shows_the_result_and_names_its_axes():
    import torch

    from rnnctl import FullRNN, gradnorm

    torch.manual_seed(0)
    found = gradnorm(FullRNN(3, 4, 2), torch.randn(2, 9, 3))
    (axes,) = FIGURES["gradnorm"](found).axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["grad_norm_h"], found.grad_norm_h.numpy())
    assert math.isnan(lines["grad_norm_W_hh"][0])
    assert axes.get_xlabel() == "time step t"
    assert axes.get_yscale() == "log"


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def modules_picture(layers, T=9, **settings):
    import torch

    from rnnctl import model_gradnorm
    from rnnctl.models.torch_layers import LayeredRNN

    torch.manual_seed(0)
    model = LayeredRNN("lstm", 3, 4, 2, num_layers=layers)
    found = model_gradnorm(model, torch.randn(2, T, 3), **settings)
    return found, FIGURES["gradnorm-modules"](found)


def test_a_picture_of_a_model_has_a_panel_for_every_weight():
    found, figure = modules_picture(layers=3)
    assert [axes.get_title() for axes in figure.axes] == list(found.weights)
    for axes, weight in zip(figure.axes, found.weights.values(), strict=True):
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert list(lines) == ["grad_norm_W_hh", "grad_norm_h", "grad_norm_c", *(f"gate {g}" for g in "ifgo")]
        np.testing.assert_allclose(lines["grad_norm_W_hh"][1:], weight.grad_norm_W_hh.numpy()[1:])
        np.testing.assert_allclose(lines["grad_norm_c"], weight.grad_norm_c.numpy())
        np.testing.assert_allclose(lines["gate o"][1:], weight.grad_norm_gates["o"].numpy()[1:])
        assert (axes.get_xlabel(), axes.get_yscale()) == ("time step t", "log")
        words = [text.partition(" ≈")[0] for text in legend_of(axes)]
        assert words[:3] == ["||G_t||, what step t adds", "||dL/dh_t||, in all", "||dL/dc_t||, in all"]
        assert words[3:] == [f"its gate {g}" for g in "ifgo"]


def test_more_weights_than_panels_are_told_in_the_title():
    found, figure = modules_picture(layers=8)
    assert len(figure.axes) == 6
    assert figure.get_suptitle() == "the first 6 of 8 recurrent weights; --module picks others"
    assert b"PNG" in figure_bytes(found, "headline", "png")


def test_a_single_point_on_a_long_axis_has_a_mark():
    _, figure = modules_picture(layers=1, T=100)
    assert {line.get_marker() for line in figure.axes[0].lines[:3]} == {""}
    _, figure = modules_picture(layers=1, T=1)
    assert {line.get_marker() for line in figure.axes[0].lines[:3]} == {"o"}


def test_every_picture_has_labels_on_all_axes():
    import torch

    from rnnctl import FullRNN, flow, truncation

    torch.manual_seed(0)
    model, x = FullRNN(3, 4, 2), torch.randn(2, 9, 3)
    for figure in (FIGURES["flow"](flow(model, x)), FIGURES["truncation"](truncation(model, x))):
        assert all(axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize(
    ("path", "message"),
    [("picture.jpg", "draws .png, .svg or .pdf; got"), ("missing/picture.png", "there is no folder")],
)
def test_a_bad_place_is_refused_before_computing(path, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rnnctl.gradients.gradnorm.gradnorm", None)
    assert main(["gradnorm", "--plot", path]) == 2
    assert message in capsys.readouterr().err


def test_an_existing_picture_needs_force(tmp_path, capsys):
    path = tmp_path / "picture.png"
    path.write_bytes(b"mine")
    assert main(["gradnorm", "--plot", str(path)]) == 2
    assert path.read_bytes() == b"mine"
    assert main(["gradnorm", "--plot", str(path), "--force"]) == 0
    assert path.read_bytes().startswith(STARTS["png"])


def test_without_matplotlib_the_install_command_is_given(tmp_path, capsys, monkeypatch):
    real, place = importlib.util.find_spec, "rnnctl.cli.output.plotting.find_spec"
    monkeypatch.setattr(place, lambda name: None if name == "matplotlib" else real(name))
    assert main(["gradnorm", "--plot", str(tmp_path / "picture.png")]) == 2
    assert "-m pip install 'rnnctl[plot]'" in capsys.readouterr().err


def test_the_heat_map_scales_down_by_the_largest_of_every_block():
    matrix = [[0.0] * 200 for _ in range(200)]
    matrix[199][0], matrix[0][0] = 1.0, 1e-6
    text = heatmap(matrix, "k", "t", Terminal(width=60))
    lines = text.splitlines()
    assert "the largest of every 7 x 4 steps of 200 x 200" in lines[1]
    assert lines[3].split() == ["0", RAMP[0]]
    assert lines[-2].split() == ["196", RAMP[-1]]
    assert max(map(len, lines[1:])) <= 80
    assert "from 1e-06 or less to 1" in lines[-1]


def test_the_heat_map_is_the_same_without_colour():
    matrix = [[1e-3, 1.0], [1e-2, 1e-9]]
    plain = heatmap(matrix, "k", "t", Terminal())
    colored = heatmap(matrix, "k", "t", Terminal(color=True))
    assert "\x1b[" in colored
    import re

    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == plain
    assert plain.isascii()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_marked(value):
    assert "!" in heatmap([[value, 1.0]], "k", "t", Terminal())


def test_a_matrix_of_zeros_or_of_one_value_is_drawn():
    assert heatmap([[0.0]], "k", "t", Terminal()).splitlines()[2].strip() == "0"
    assert heatmap([[2.0]], "k", "t", Terminal()).splitlines()[2].split() == ["0", RAMP[-1]]
