"""Figures of sweeps: lines with bands, maps with contours, and points without a number."""

import math

import numpy as np
import pytest
from made_sweeps import sweep

from rnnctl.errors import InputError
from rnnctl.view.figures import FIGURES, figure_bytes
from rnnctl.view.layouts.table import LAYOUTS
from rnnctl.view.terminal import Terminal

GAINS = [0.5, 1.0, 1.5, 2.0, 2.5]


def legend_of(owner):
    return [text.get_text() for text in owner.texts]


def test_lines_of_a_figure_are_the_numbers_of_the_rows():
    result = sweep(
        {"gain": [1.5, 0.5, 2.5, 1.0, 2.0]},
        lambda at: at["gain"] - 1,
        spread=(-0.5, 0.0, 0.5),
        theory=lambda at: at["gain"] - 1.2,
    )
    (axes,) = FIGURES["sweep"](result).axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["median"].get_xydata(), [(g, g - 1) for g in GAINS])
    np.testing.assert_allclose(lines["theory"].get_ydata(), [g - 1.2 for g in GAINS])
    band = axes.collections[0].get_paths()[0].vertices
    # p10 and p90 of three values 0.5 apart.
    assert band[:, 1].min() == pytest.approx(0.5 - 1 - 0.4)
    assert band[:, 1].max() == pytest.approx(2.5 - 1 + 0.4)
    assert any(list(line.get_ydata()) == [0, 0] for line in axes.lines)
    assert (axes.get_xlabel(), axes.get_xscale(), axes.get_yscale()) == ("gain", "linear", "linear")
    said = legend_of(axes.get_legend())
    assert said == ["median", "10 to 90 % over the seeds", "mean-field theory", "critical value 0"]


def test_a_further_axis_makes_several_lines_and_a_logarithmic_grid_a_log_axis():
    axes = {"hidden_size": [16, 64, 256], "batch_size": [1, 2]}
    result = sweep(
        axes, lambda at: at["hidden_size"] * at["batch_size"] / 100, value="factor_per_step", theory=lambda at: 1
    )
    (panel,) = FIGURES["sweep"](result).axes
    assert (panel.get_xscale(), panel.get_yscale(), panel.get_xlabel()) == ("log", "log", "hidden size")
    assert [text.get_text() for text in panel.get_xticklabels()] == ["16", "64", "256"]
    lines = {line.get_label(): list(line.get_ydata()) for line in panel.lines}
    assert lines["batch size 2"] == [0.32, 1.28, 5.12]
    assert legend_of(panel.get_legend())[:2] == ["batch size 1", "batch size 2"]
    assert "dashed: mean-field theory" in legend_of(panel.get_legend())


def test_points_that_no_scale_shows_are_marked_and_named():
    values = dict(zip(GAINS, ("failed", None, math.inf, 0.5, -0.5), strict=True))
    (panel,) = FIGURES["sweep"](sweep({"gain": GAINS}, lambda at: values[at["gain"]])).axes
    marks = {line.get_label(): list(line.get_xdata()) for line in panel.lines}
    assert (marks["failed"], marks["undefined"], marks["inf"]) == ([0.5], [1.0], [1.5])
    assert legend_of(panel.get_legend())[-3:] == ["inf", "failed", "undefined"]
    zeros = sweep({"gain": GAINS}, lambda at: max(0.0, at["gain"] - 1) ** 5, value="factor_per_step")
    (panel,) = FIGURES["sweep"](zeros).axes
    assert {line.get_label(): list(line.get_xdata()) for line in panel.lines}["0"] == [0.5, 1.0]


def mesh_of(panel):
    return next(each for each in panel.collections if type(each).__name__ == "QuadMesh")


def contours_of(panel):
    return [each for each in panel.collections if type(each).__name__ == "QuadContourSet"]


def test_a_map_has_its_numbers_theory_beside_it_and_contours_where_the_regime_changes():
    axes = {"gain": GAINS, "hidden_size": [16, 32, 64, 128]}
    result = sweep(axes, lambda at: at["gain"] - 1.2, theory=lambda at: at["gain"] - 1.7)
    figure = FIGURES["sweep"](result)
    measured, theory, bar = figure.axes
    assert [measured.get_title(), theory.get_title()] == ["measured", "mean-field theory"]
    np.testing.assert_allclose(mesh_of(measured).get_array(), [[g - 1.2 for g in GAINS]] * 4)
    np.testing.assert_allclose(mesh_of(theory).get_array(), [[g - 1.7 for g in GAINS]] * 4)
    crossings = [contour.get_paths()[0].vertices[:, 0].mean() for contour in contours_of(measured)]
    assert sorted(crossings) == pytest.approx([1.2, 1.7])
    (by_theory,) = contours_of(theory)
    assert by_theory.get_paths()[0].vertices[:, 0].mean() == pytest.approx(1.7)
    # The colour in the middle is that of the critical value.
    low, high = mesh_of(measured).get_clim()
    assert (low, high) == pytest.approx((-1.3, 1.3))
    assert measured.get_yscale() == "log"
    assert (measured.get_xlabel(), measured.get_ylabel()) == ("gain", "hidden size")
    assert bar.get_ylabel() == "largest Lyapunov exponent (nats per step)"
    assert legend_of(figure.legends[0]) == ["critical value 0, measured", "critical value 0, by theory"]


def test_every_cell_of_a_map_surrounds_its_point():
    axes = {"gain": [1.0, 2.0, 4.0], "h": [1.0, 2.0, 4.0, 5.0]}
    panel = FIGURES["sweep"](sweep(axes, lambda at: 1.0)).axes[0]
    corners = mesh_of(panel).get_coordinates()
    # Half way of an axis that is logarithmic, and of one that is not.
    np.testing.assert_allclose(corners[0, :, 0], 2.0 ** np.array([-0.5, 0.5, 1.5, 2.5]))
    np.testing.assert_allclose(corners[:, 0, 1], [0.5, 1.5, 3.0, 4.5, 5.5])


def test_cells_without_a_number_are_hatched_or_grey_and_named():
    axes = {"gain": [1, 2, 3, 4], "h": [1, 2, 3]}
    values = {1: "failed", 2: None, 3: 2.0, 4: 3.0}
    points = [(g, h) for g in values for h in (1, 2, 3) if (g, h) != (4, 3)]
    figure = FIGURES["sweep"](sweep(axes, lambda at: values[at["gain"]], value="reach", points=points))
    hatches = {each.get_hatch(): each for each in figure.axes[0].collections if each.get_hatch()}
    assert {hatch: int((~each.get_array().mask).sum()) for hatch, each in hatches.items()} == {"xxxx": 3, "....": 3}
    assert legend_of(figure.legends[0]) == ["failed", "undefined", "no run"]
    assert mesh_of(figure.axes[0]).get_cmap().name == "cividis"


def test_a_text_axis_makes_a_map_for_each_of_its_values():
    axes = {"gain": GAINS, "h": [1, 2, 3], "init": ["a", "$b$", "c"]}
    figure = FIGURES["sweep"](sweep(axes, lambda at: at["gain"] - 1.1))
    assert [panel.get_title() for panel in figure.axes[:3]] == ["init a", "init $b$", "init c"]
    assert len(figure.axes) == 4


@pytest.mark.parametrize("axes", [{"gain": [1, 2, 3], "h": [1, 2, 3]}, {"gain": [1, 2, 3], "init": ["$x_$", "b"]}])
@pytest.mark.parametrize(
    "value_at", [lambda at: "failed", lambda at: math.inf, lambda at: 0.0, lambda at: 10.0 ** (-290 - 5 * at["gain"])]
)
@pytest.mark.parametrize("value", ["factor_per_step", "reach"])
def test_whatever_the_numbers_a_figure_and_a_table_are_drawn(axes, value_at, value):
    result = sweep(axes, value_at, value=value)
    assert figure_bytes(result, "title", "png", 20).startswith(b"\x89PNG")
    drawn = LAYOUTS["sweep"].picture(result, Terminal(60)).splitlines()
    assert all(len(line) <= 60 for line in drawn if not line.startswith("scale: "))


def test_a_figure_of_no_axis_of_numbers_is_an_error():
    with pytest.raises(InputError, match="init is none"):
        FIGURES["sweep"](sweep({"init": ["a", "b"]}, lambda at: 1.0))
