"""A matrix that stands still says what its axes and its colours are: on paper, without a script, in a notebook."""

import math

import pytest
import torch
from pages import Node, tree

import rnnctl
from rnnctl.view.html.matrix import matrix, picture
from rnnctl.view.html.page import Run as Made
from rnnctl.view.html.page import page
from rnnctl.view.html.still import colours

MADE = Made("rnnctl", {"file": "x"}, {"rnnctl": "0", "torch": "0"})


def flow(steps: int = 12, first: float = 1.0) -> rnnctl.Flow:
    torch.manual_seed(0)
    model, x = rnnctl.FullRNN(2, 3, 1), torch.randn(1, steps, 2)
    x[0, -1] *= first
    return rnnctl.flow(model, x)


def axes(still: Node) -> list[list[str]]:
    return [[each.text for each in axis.all("span")] for axis in still.all("div", class_="axis")]


def test_both_axes_have_their_names_and_the_numbers_at_their_ends_on_a_page_and_in_a_notebook():
    found = flow()
    expected = [["k 11", "loss step k", "k 0"], ["t 0", "source step t", "t 11"]]
    for text in (page(found, MADE), found._repr_html_()):
        (still,) = tree(text).all("div", class_="still")
        assert axes(still) == expected
        assert len(still.all("img")) == 1


def test_of_a_training_run_the_ends_are_the_steps_that_were_probed(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.RNN(2, 3, batch_first=True)
    with rnnctl.watch(model, every=2, to=tmp_path / "run.jsonl"):
        for length in (5, 5, 9, 9, 7):
            model(torch.randn(1, length, 2))[0][:, -1].square().sum().backward()
    (still,) = tree(page(rnnctl.gradnorm_history(tmp_path / "run.jsonl"), MADE)).all("div", class_="still")
    assert axes(still) == [["step 4", "training step", "step 0"], ["t 0", "time step t", "t 8"]]


@pytest.mark.parametrize(
    ("value", "there", "said"),
    [
        (1.0, True, []),
        (0.0, True, ["grey: 0"]),
        (1.0, False, ["grey: no loss reaches a later step"]),
        (0.0, False, ["grey: 0 or no loss reaches a later step"]),
        (math.nan, True, ["pink: not finite"]),
        (math.inf, False, ["grey: no loss reaches a later step", "pink: not finite"]),
    ],
)
def test_the_legend_says_what_colours_mean_that_are_in_the_picture(value, there, said):
    found = matrix(flow(3))
    assert found is not None
    found.values[:] = 1.0
    found.there[:] = True
    found.values[0, 0], found.there[0, 1] = value, there
    legend = colours(found, picture(found))
    items = [each.text.strip() for part in legend for each in tree(part).all("span") if each.text.strip()]
    assert items == said
