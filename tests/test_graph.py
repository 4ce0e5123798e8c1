"""The unrolled graph, and what autograd's own graph says of the sharing."""

import re

import pytest
import torch

from rnnctl import FullRNN, unroll
from rnnctl.graph import as_dot, as_mermaid, as_text, drawn


def graph_of(T=7, **settings):
    model = FullRNN(3, 4, 2, **settings)
    return unroll(model, torch.randn(2, T, 3))


@pytest.mark.parametrize("T", [1, 7, 20])
def test_twenty_steps_have_one_W_hh_with_an_edge_from_every_step(T):
    graph = graph_of(T)
    assert graph.scalars["unique_W_hh"] == graph.scalars["unique_W_xh"] == graph.scalars["unique_W_hy"] == 1
    assert graph.scalars["W_hh_uses"] == graph.scalars["W_xh_uses"] == graph.scalars["W_hy_uses"] == T


def test_the_count_is_autograds_and_not_assumed():
    """A model that multiplies with W_hh twice in every step has twice the edges."""

    class Twice(torch.nn.Tanh):
        def forward(self, a):
            return super().forward(model.rnn_cell.hidden_to_hidden(a))

    model = FullRNN(3, 4, 2)
    model.rnn_cell.activation = Twice()
    assert unroll(model, torch.randn(2, 5, 3)).scalars["W_hh_uses"] == 10


def test_equations_carry_their_indices():
    rows = graph_of(3).rows
    assert rows[0] == {"t": 0, "h": "h_0 = tanh(W_xh x_0 + b_xh + W_hh h_init + b_hh)", "y": "y_0 = W_hy h_0 + b_y"}
    assert rows[2]["h"] == "h_2 = tanh(W_xh x_2 + b_xh + W_hh h_1 + b_hh)"
    bare = graph_of(2, bias=False, nonlinearity="relu", output_activation="softmax").rows[1]
    assert bare == {"t": 1, "h": "h_1 = relu(W_xh x_1 + W_hh h_0)", "y": "y_1 = softmax(W_hy h_1)"}


def test_text_has_one_W_hh_and_a_branch_per_step():
    text = as_text(graph_of(3))
    assert text.startswith("W_hh (4, 4)")
    assert len(re.findall("─▶ h_", text)) == 3
    assert "W_hh: 1 leaf in autograd's graph, used 3 times" in text


def test_ascii_text_is_ascii():
    assert as_text(graph_of(3), ascii_only=True).isascii()
    assert drawn(graph_of(3), "text", ascii_only=True).isascii()


@pytest.mark.parametrize(("form", "arrow"), [("mermaid", r"W_hh --> h_\d+"), ("dot", r"W_hh -> h_\d+;")])
def test_graph_languages_have_one_W_hh_node_with_T_edges(form, arrow):
    text = drawn(graph_of(7), form)
    assert len(re.findall(arrow, text)) == 7
    assert len(re.findall(r"^\s+W_hh[\(\s]*\[", text, flags=re.MULTILINE)) == 1
    assert "h_init" in text


def test_dot_braces_and_quotes_are_balanced():
    text = as_dot(graph_of(40))
    assert text.startswith("digraph unrolled {")
    assert text.endswith("}")
    assert text.count('"') % 2 == 0


def test_mermaid_elides_the_middle_and_says_how_much():
    text = as_mermaid(graph_of(40))
    assert "W_hh -->|34 more| elided" in text
    assert "h_20" not in text
    assert "elided --> h_37" in text


@pytest.mark.parametrize("form", ["text", "mermaid", "dot"])
def test_all_draws_every_step(form):
    graph = graph_of(40)
    assert "h_20" not in drawn(graph, form)
    assert all(f"h_{t}" in drawn(graph, form, every=True) for t in range(40))
    assert "elided" not in drawn(graph, form, every=True)


def test_frozen_parameters_stay_frozen():
    model = FullRNN(3, 4, 2).requires_grad_(False)
    assert unroll(model, torch.randn(2, 5, 3)).scalars["W_hh_uses"] == 5
    assert not any(p.requires_grad for p in model.parameters())
