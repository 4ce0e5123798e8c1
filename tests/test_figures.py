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


# ---- what is judged by eye, held by numbers -----------------------------------------------------


def drawn(figure):
    """The figure, laid out."""
    figure.draw_without_rendering()
    return figure


def hand_written(question, T=9, nonlinearity="tanh", scale=1.0, **settings):
    import torch

    import rnnctl

    torch.manual_seed(0)
    model = rnnctl.FullRNN(3, 4, 2, nonlinearity=nonlinearity)
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.mul_(scale)
    found = getattr(rnnctl, question)(model, torch.randn(2, T, 3), **settings)
    return found, FIGURES[found.schema](found)


def ticks_of(axis):
    """The numbers at the ticks that are in the picture."""
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_ticklocs() if low <= tick <= high]


@pytest.mark.parametrize(
    ("question", "T"),
    [("gradnorm", 1), ("gradnorm", 7), ("gradnorm", 150), ("flow", 1), ("flow", 61), ("lyapunov", 2), ("spectrum", 2)],
)
def test_what_is_counted_is_ticked_by_whole_numbers(question, T):
    _, figure = hand_written(question, T)
    counted = [axes.xaxis for axes in figure.axes if axes.get_xlabel() and not axes.get_xlabel().startswith("Re ")]
    counted += [axes.yaxis for axes in figure.axes if axes.get_ylabel() == "loss step k"]
    assert counted
    for axis in counted:
        assert ticks_of(axis)
        assert all(tick == int(tick) for tick in ticks_of(axis))
        assert all("." not in label.get_text() for label in axis.get_ticklabels())


def test_one_step_of_every_weight_is_ticked_by_its_number():
    _, figure = modules_picture(layers=2, T=1)
    for axes in figure.axes:
        assert ticks_of(axes.xaxis) == [0]


@pytest.mark.parametrize("question", ["gradnorm", "flow", "truncation"])
def test_a_single_step_has_a_mark_or_words_in_every_panel(question):
    _, figure = hand_written(question, T=1)
    for axes in figure.axes:
        marked = [
            line
            for line in axes.lines
            if line.get_marker() not in ("", "None") and np.isfinite(np.asarray(line.get_ydata(), float)).any()
        ]
        bar = axes.get_label() == "<colorbar>"
        assert bar or marked or axes.texts


def test_points_that_stand_alone_have_marks_however_many_there_are():
    from matplotlib.figure import Figure

    from rnnctl.view.figures.drawing import curve

    axes = Figure().subplots()
    values = [1.0 if t % 2 == 0 or t > 150 else None for t in range(200)]
    line = curve(axes, values, "words", {"marker": "o"}).line
    assert line.get_markevery() == list(range(0, 150, 2))
    assert curve(axes, [1.0] * 200, "words", {"marker": "o"}).line.get_marker() == ""
    assert curve(axes, [1.0] * 20, "words", {"marker": "o"}).line.get_markevery() is None


def test_windows_are_ticked_by_their_values():
    found, figure = hand_written("truncation", T=20, windows=[3, 5, 12])
    axis = figure.axes[0].xaxis
    assert [label.get_text() for label in axis.get_ticklabels()] == ["3", "5", "12", "20"]
    assert list(axis.get_ticklocs()) == [row["window"] for row in found.rows]
    assert not list(axis.get_minorticklocs())


def test_numbers_of_many_windows_do_not_touch():
    _, figure = hand_written("truncation", T=60, windows=list(range(1, 60)))
    (axes,) = figure.axes
    drawn(figure)
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert axes.get_xticklabels()[-1].get_text() == "60"
    assert len(boxes) > 4
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_what_is_no_more_than_rounding_is_left_out_and_named():
    found, figure = hand_written("truncation", T=100, scale=0.5)
    (axes,) = figure.axes
    turned = {row["window"]: 1 - row["cosine"] for row in found.rows}
    assert 0 < abs(turned[64]) < 1e-14 or turned[64] == 0
    for line in axes.lines:
        shown = np.asarray(line.get_ydata(), float)
        assert not (shown <= 1e-14).any()
        assert math.isnan(shown[-1])
    assert axes.get_ylim()[0] > 1e-16
    errors, cosines = legend_of(axes)
    assert "left out at K = " in errors
    assert "100: below 1e-14, no more than rounding" in cosines


def test_no_axis_magnifies_rounding():
    import torch

    import rnnctl

    model = rnnctl.FullRNN(3, 4, 2, nonlinearity="linear")
    with torch.no_grad():
        model.rnn_cell.hidden_to_hidden.weight.copy_(torch.linalg.qr(torch.randn(4, 4)).Q)
    for result in (rnnctl.spectrum(model, torch.randn(2, 9, 3)), rnnctl.lyapunov(model, torch.randn(2, 9, 3))):
        axes = FIGURES[result.schema](result).axes[-1]
        low, high = axes.get_ylim()
        assert high - low >= 1e-3
        assert low < axes.lines[0].get_ydata()[0] < high


def test_norms_of_one_size_are_not_magnified():
    found, figure = hand_written("gradnorm", T=1)
    low, high = figure.axes[0].get_ylim()
    assert high / low == pytest.approx(100)
    assert low < float(found.grad_norm_h[0]) < high


@pytest.mark.parametrize(("T", "dpi"), [(1, 70), (2, 186), (80, 70)])
def test_the_labels_of_two_panels_do_not_overlap(T, dpi):
    _, figure = hand_written("flow", T)
    figure.set_dpi(dpi)
    left, right, *bars = drawn(figure).axes
    # Of one step nothing is drawn, and no scale of it.
    bar = bars[0] if T > 1 else left
    of_bar, of_right = bar.yaxis.label.get_window_extent(), right.yaxis.label.get_window_extent()
    assert of_bar.x1 + 3 < of_right.x0
    assert of_right.y0 >= 0
    assert of_right.y1 <= figure.bbox.height


def test_the_lag_is_a_subscript():
    _, figure = hand_written("flow")
    assert r"_{k-\mathrm{lag}}" in figure.axes[1].get_ylabel()


@pytest.mark.parametrize("layers", [1, 3])
def test_nothing_of_a_picture_is_cut_off_or_under_another_panel(layers):
    _, figure = modules_picture(layers)
    assert_within(figure)
    panels = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(one.overlaps(other) for i, one in enumerate(panels) for other in panels[:i])


def assert_within(figure):
    """Whatever belongs to a panel is in the picture."""
    for axes in drawn(figure).axes:
        box = axes.get_tightbbox()
        assert min(box.x0, box.y0) > -1
        assert (box.x1, box.y1) <= (figure.bbox.width + 1, figure.bbox.height + 1)


@pytest.mark.parametrize(
    ("question", "T"), [("gradnorm", 1), ("flow", 30), ("truncation", 30), ("spectrum", 1), ("lyapunov", 1)]
)
def test_nothing_of_a_question_is_cut_off(question, T):
    _, figure = hand_written(question, T)
    assert_within(figure)
    assert all(axes.get_xlabel() or axes.get_label() == "<colorbar>" for axes in figure.axes)
    assert all(axes.get_ylabel() for axes in figure.axes)


def test_the_verdict_its_factor_and_reason_stand_above_the_norms():
    found, figure = hand_written("gradnorm")
    title = " ".join(figure.axes[0].get_title().split())
    assert title.startswith(f"{found.verdict}: each step back multiplies d(last loss)/dh by ")
    assert f"{found.scalars['factor_per_step']:.3g};" in title
    assert found.scalars["reason"] in title


def test_without_a_factor_the_reason_stands_there():
    found, figure = hand_written("gradnorm", T=1)
    title = " ".join(figure.axes[0].get_title().split())
    assert title == f"undecided: {found.scalars['reason']}"


def test_every_weight_has_its_own_verdict():
    found, figure = modules_picture(layers=3)
    for axes, judged in zip(figure.axes, found.more["weights"], strict=True):
        (said,) = (text.get_text() for text in axes.texts)
        factor = f"{judged['factor_per_step']:.3g}"
        assert said == f"{judged['verdict']}: each step back multiplies d(last loss)/dh by {factor}"


def test_a_reverse_direction_is_told_from_the_other():
    import torch

    from rnnctl import model_gradnorm
    from rnnctl.models.torch_layers import LayeredRNN

    found = model_gradnorm(LayeredRNN("gru", 3, 4, 2, bidirectional=True), torch.randn(2, 5, 3))
    labels = [axes.get_xlabel() for axes in FIGURES["gradnorm-modules"](found).axes]
    assert labels == ["time step t", "time step t, read from the last to the first"]


def test_a_line_that_another_covers_is_named_in_the_legend():
    _, figure = hand_written("gradnorm", T=1)
    assert legend_of(figure.axes[0]) == [
        "||G_t||, what step t adds (all 0)",
        "||dL/dh_t||, in all",
        "||dL/dh_t||, by y_t alone ≈ ||dL/dh_t||",
    ]
    _, figure = hand_written("gradnorm")
    assert legend_of(figure.axes[0])[2] == "||dL/dh_t||, by y_t alone"


def test_eigenvalues_at_one_point_are_counted():
    _, figure = hand_written("spectrum", scale=0)
    assert [text.get_text() for text in figure.axes[0].texts] == ["4 here"]
    _, figure = hand_written("spectrum")
    assert not figure.axes[0].texts


def test_exponents_have_an_axis_that_says_which_they_are():
    for count in (1, 4):
        _, figure = hand_written("lyapunov", count=count, init="default")
        assert figure.axes[0].get_xlabel().startswith("exponent i (largest first")
        assert "mean-field theory" in " ".join(legend_of(figure.axes[0]))


def test_gates_beyond_those_with_a_look_are_named_together():
    from matplotlib.figure import Figure

    from rnnctl.view.figures.gradnorm import _gates

    axes = Figure().subplots()
    curves = _gates(axes, {str(i): [1.0, i + 1.0] for i in range(9)})
    assert len(axes.lines) == 9
    assert [each.words for each in curves] == [*(f"its gate {i}" for i in range(4)), "its other 5 gates"]
    assert [each.words for each in _gates(axes, {"a": [1.0]})] == ["its gate a"]


@pytest.mark.parametrize("suffix", STARTS)
def test_the_same_result_makes_the_same_bytes(suffix):
    found, _ = hand_written("truncation")
    assert figure_bytes(found, "title", suffix) == figure_bytes(found, "title", suffix)


def test_the_text_of_an_svg_is_text():
    found, _ = hand_written("gradnorm")
    text = figure_bytes(found, "cost $5 <&> $x_^{", "svg").decode()
    assert ">time step t</text>" in text
    assert ">cost $5 &lt;&amp;&gt; $x_^{</text>" in text
    assert f"{found.verdict}: each step back multiplies d(last loss)/dh by" in text
    assert "<dc:date>" not in text


def test_somebodys_settings_of_matplotlib_change_nothing_and_are_left_alone():
    import matplotlib

    found, _ = hand_written("gradnorm")
    plain = figure_bytes(found, "title", "svg")
    with matplotlib.rc_context({"font.family": "No Such Font", "text.usetex": True, "lines.linewidth": 9}):
        assert figure_bytes(found, "title", "svg") == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("title", ["W" * 900, "word " * 900, "\N{CJK UNIFIED IDEOGRAPH-65E5}" * 200])
def test_a_title_of_any_length_fits_and_leaves_the_panels_their_room(title):
    from rnnctl.view.figures.title import MOST_LINES, set_title

    _, figure = hand_written("gradnorm")
    before = drawn(figure).axes[0].get_window_extent().height
    set_title(figure, title)
    box = drawn(figure)._suptitle.get_window_extent()
    assert len(figure.get_suptitle().splitlines()) <= MOST_LINES
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert figure.axes[0].get_window_extent().height > 0.8 * before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.0, 0.0], "all 0"),
        ([None, math.nan], "unknown"),
        ([0.0, math.inf], "not finite"),
        ([1e308, 5e-324], "too small or too large to draw"),
    ],
)
def test_what_no_log_scale_shows_is_named(values, words):
    from rnnctl.view.figures.drawing import curve, heat, logarithmic, single

    figure, axes = single()
    assert curve(axes, values, "norm", {}).words == f"norm ({words})"
    logarithmic(axes)
    assert [text.get_text() for text in axes.texts] == ["nothing that can be drawn"]
    figure, axes = single()
    heat(figure, axes, np.array([values], float), "norm", aspect="auto")
    assert [text.get_text() for text in axes.texts] == [words]


def test_norms_of_all_sizes_are_drawn_on_one_scale():
    from rnnctl.view.figures.drawing import curve, heat, logarithmic, single

    values = [1e-269, 1e199, 5e-324, 1e308]
    figure, axes = single()
    line = curve(axes, values, "norm", {}).line
    logarithmic(axes)
    heat(*single(), np.array([values]), "norm", aspect="auto")
    assert np.isfinite(line.get_ydata()).tolist() == [True, True, False, False]
    low, high = drawn(figure).axes[0].get_ylim()
    assert 0 < low < 1e-269 < 1e199 < high < math.inf


def test_a_large_heat_map_shows_the_largest_of_every_block_at_its_place():
    from rnnctl.view.figures.drawing import heat, single

    norms = np.full((401, 1), 1e-3)
    norms[7], norms[400] = 1.0, 0.0
    figure, axes = single()
    heat(figure, axes, norms, "norm", aspect="auto")
    cells = axes.images[0].get_array()
    assert cells.shape == (134, 1)
    assert [cells[2, 0], cells[1, 0], cells[133, 0]] == [1.0, 1e-3, 1e-3]
    assert axes.images[0].get_extent() == [-0.5, 0.5, 401.5, -0.5]
    assert axes.get_ylim() == (400.5, -0.5)
    assert figure.axes[1].get_ylabel() == "norm\n(largest of 3 x 1)"
    heat(*single(), norms[:200], "norm", aspect="auto")
