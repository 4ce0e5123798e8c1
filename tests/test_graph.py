"""The unrolled graph, and what autograd's own graph says of the sharing."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shell import Run, document, forget_modules_of, runner
from styles import STYLES, Written, weight
from torch import nn

from rnnctl import FullRNN, InputError, UnrolledModel, unroll
from rnnctl.graph import as_dot, as_mermaid, as_text
from rnnctl.shapes.unroll import drawn


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


# ---- any model ----------------------------------------------------------------------------------


class Raw(nn.Module):
    """The guide's network, with its own names."""

    def __init__(self):
        super().__init__()
        self.W_xh, self.W_hh, self.W_hy = weight(4, 3), weight(4, 4), weight(2, 4)

    def forward(self, x):
        h, ys = x.new_zeros(len(x), 4), []
        for x_t in x.unbind(1):
            h = torch.tanh(x_t @ self.W_xh.T + h @ self.W_hh.T)
            ys.append(h @ self.W_hy.T)
        return torch.stack(ys, 1)


class Linears(nn.Module):
    """The same of torch's linear maps, with biases."""

    def __init__(self):
        super().__init__()
        self.wx, self.wh, self.wy = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h, ys = x.new_zeros(len(x), 4), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.wx(x_t) + self.wh(h))
            ys.append(self.wy(h))
        return torch.stack(ys, 1)


OWN = {"W_xh": "rnn_cell.input_to_hidden", "W_hh": "rnn_cell.hidden_to_hidden", "W_hy": "hidden_to_output"}
# A model, and the guide's names for what it calls W_xh, W_hh, W_hy; with biases, which the guide's drawing leaves out.
TWINS = {
    "raw": (Raw, {name: name for name in OWN}),
    "linears": (Linears, {"W_xh": "wx.weight", "W_hh": "wh.weight", "W_hy": "wy.weight"}),
    "own": (lambda: FullRNN(3, 4, 2), {name: f"{path}.weight" for name, path in OWN.items()}),
}
ARROWS = {
    "mermaid": re.compile(r'^ +(\w+) -->(?:\|"?([^"|]*)"?\|)? (\w+)$', re.MULTILINE),
    "dot": re.compile(r'^ +(\w+) -> (\w+)(?: \[label="([^"]*)"\])?;$', re.MULTILINE),
}


def edges_of(text, form):
    """Source, target and label of every edge, in their order."""
    found = ARROWS[form].findall(text)
    assert len(found) == text.count("-->" if form == "mermaid" else " -> ")
    return [(a, b, label) for a, label, b in found] if form == "mermaid" else found


@pytest.mark.parametrize("form", ["mermaid", "dot"])
@pytest.mark.parametrize(
    ("T", "every"), [(1, False), (2, False), (7, False), (8, False), (9, False), (40, False), (40, True)]
)
@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_of_the_guides_network_is_drawn_as_that_is(twin, T, every, form):
    build, names = TWINS[twin]
    model, x = build(), torch.randn(2, T, 3)
    own = unroll(FullRNN(3, 4, 2), x)
    if T == 1:
        with pytest.raises(InputError, match="no weight recurs in the pass"):
            unroll(model, x, only="*")
        return
    found = unroll(model, x, only="*")
    assert isinstance(found, UnrolledModel)
    symbols = {name: symbol for symbol, name in names.items()}
    # A label has the biases as well.
    drawn_edges = [
        ("W_hh" if a == "W" else a, b, symbols.get(label.split(", ")[0], label))
        for a, b, label in edges_of(drawn(found, form, every=every), form)
    ]
    assert drawn_edges == edges_of(drawn(own, form, every=every), form)
    for symbol, name in names.items():
        record = found.parameter(name)
        assert (record["leaves"], record["uses"]) == (own.scalars[f"unique_{symbol}"], own.scalars[f"{symbol}_uses"])


def test_the_text_of_a_twin_has_a_branch_per_step_and_says_who_is_who():
    text = drawn(unroll(Linears(), torch.randn(2, 3, 3)), "text")
    assert text.splitlines() == [
        "wh.weight (4, 4): the same tensor at every step",
        "├─▶ h_0 = f(h_init, x_0)   y_0 = g(h_0)",
        "├─▶ h_1 = f(h_0, x_1)      y_1 = g(h_1)",
        "└─▶ h_2 = f(h_1, x_2)      y_2 = g(h_2)",
        "f uses wh.weight, wh.bias",
        "x_t comes by wx.weight, wx.bias",
        "g uses wy.weight, wy.bias",
        "",
        *(f"{name}.{part}: 1 leaf in autograd's graph, used 3 times, {role}" for name, part, role in ROLES),
    ]
    assert drawn(unroll(Linears(), torch.randn(2, 30, 3)), "text", ascii_only=True).isascii()


ROLES = [
    (name, part, "recurrent" if (name, part) == ("wh", "weight") else "shared")
    for name in ("wx", "wh", "wy")
    for part in ("weight", "bias")
]


def steps_of(model, x, only=None):
    """Of every drawn weight its chains: of every step what it follows, and what enters."""
    graph = unroll(model, x, only=only)
    return {
        loop.weight: [
            [(step.follows, dict(step.state), dict(step.given), dict(step.read)) for step in chain.steps]
            for chain in loop.chains
        ]
        for loop in graph.loops
    }


@pytest.mark.parametrize("T", [4, 7])
@pytest.mark.parametrize("name", STYLES)
def test_every_style_has_the_chains_and_steps_that_it_was_written_with(name, T):
    case = STYLES[name].posed(T=T)
    found = unroll(case.fresh(), case.x)
    of_style = next(loop for loop in found.loops if case.style.weight in (loop.weight, *loop.others))
    assert tuple(len(chain.steps) for chain in of_style.chains) == case.steps
    counts, total = Counter(), Counter()
    for loop in found.loops:
        for chain in loop.chains:
            assert [step.follows for step in chain.steps] == [(), *((t,) for t in range(len(chain.steps) - 1))]
            # Alike at every step, the first and the last one included.
            assert len({(tuple(step.state), tuple(step.given), tuple(step.read)) for step in chain.steps}) == 1
            for entering in (chain.start, *(part for s in chain.steps for part in (s.state, s.given, s.read))):
                counts.update(entering)
    for each in found.parameters:
        total[each["name"]] = each["uses"] if each["uses"] > 1 else 0
    # What leads from one layer to the next is told of both.
    between = Counter({"cells.1.U": T}) if name == "TwoLayers" else Counter()
    assert {n: c for n, c in counts.items() if "columns" not in n} == dict(+(total + between))


GATES = {f"h{gate}.{part}": 1 for gate in "ifgo" for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("name", "state", "given", "read"),
    [
        ("RawMatmul", {"W": 1}, {"U": 1, "b": 1}, {}),
        # U enters by what the product is added to.
        ("Addmm", {"W": 1}, {"U": 1, "b": 1}, {}),
        ("FunctionalLinear", {"W": 1, "b": 1}, {"U": 1}, {}),
        ("TwoLinears", {"wh.weight": 1}, {"wx.weight": 1, "wx.bias": 1}, {"wy.weight": 1, "wy.bias": 1}),
        ("ConcatLSTM", {"linear.weight": 1, "linear.bias": 1}, {"linear.weight (other columns)": 1}, {}),
        ("ChunkedGRU", {"W": 3}, {"U": 1, "b": 1}, {}),
        ("ResetFirstGRU", {"W_rz": 1, "W_n": 1}, {"U": 1}, {}),
        ("FourLinearsLSTM", GATES, {"x.weight": 1, "x.bias": 1}, {}),
        ("LayerNormed", {"W": 1, "norm.weight": 1, "norm.bias": 1}, {"U": 1, "b": 1}, {}),
        ("PeepholeLSTM", {"W": 1, "p_i": 1, "p_f": 1, "p_o": 1}, {"U": 1}, {}),
        ("Continuous", {"cell.W": 3, "cell.b": 3}, {"cell.U": 3}, {}),
        ("Feedback", {"W_hh": 1, "W_xh": 1, "W_hy": 1}, {}, {}),
        ("Attention", {"W": 1}, {"U": 1, "b": 1}, {}),
    ],
)
@pytest.mark.parametrize("T", [2, 5])
def test_what_enters_at_every_step_is_told_apart(name, state, given, read, T):
    case = STYLES[name].posed(T=T)
    ((chain,),) = steps_of(case.fresh(), case.x).values()
    assert [step[1:] for step in chain] == [(state, given, read)] * T


def test_layers_with_a_loop_each_have_a_row_each_and_what_links_them_is_named_in_both():
    case = STYLES["TwoLayers"].posed(T=3)
    found = steps_of(case.fresh(), case.x)
    assert list(found) == ["cells.0.W", "cells.1.W"]
    for i, read in ((0, {"cells.1.U": 1}), (1, {})):
        state, given = {f"cells.{i}.W": 1, f"cells.{i}.b": 1}, {f"cells.{i}.U": 1}
        assert [step[1:] for step in found[f"cells.{i}.W"][0]] == [(state, given, read)] * 3
    assert list(steps_of(case.fresh(), case.x, only="cells.1")) == ["cells.1.W"]
    assert list(steps_of(case.fresh(), case.x, only="cells.1.W")) == ["cells.1.W"]


def test_windows_start_anew_each_and_share_one_weight():
    case = STYLES["TwoWindows"].posed(T=5)
    graph = unroll(case.fresh(), case.x)
    edges = edges_of(drawn(graph, "dot"), "dot")
    assert len([a for a, _, _ in edges if a == "W"]) == 5
    assert sum(a.endswith("h_init") for a, _, _ in edges) == 2
    assert not any(a.startswith("r0_0") and b.startswith("r0_1") for a, b, _ in edges)
    text = drawn(graph, "text")
    assert "W (4, 4): the same tensor at every step of 2 chains, which no state links" in text
    assert text.count("h_0 = f(h_init, x_0)") == 2
    assert "│ chain 1, 3 steps" in text


def test_what_comes_before_the_first_use_is_the_start():
    case = STYLES["NoStart"].posed(T=4)
    ((chain,),) = (loop.chains for loop in unroll(case.fresh(), case.x).loops)
    assert (len(chain.steps), dict(chain.start)) == (3, {"U": 1, "b": 1})
    graph = unroll(case.fresh(), case.x)
    assert ("x_init", "h_init", "U, b") in edges_of(drawn(graph, "dot"), "dot")
    assert "h_init comes by U, b" in drawn(graph, "text")


class Tree(nn.Module):
    """Leaves are joined two by two by one weight."""

    def __init__(self):
        super().__init__()
        self.leaf, self.W = nn.Linear(3, 4), nn.Linear(8, 4)

    def forward(self, x):
        level = [self.leaf(x_t) for x_t in x.unbind(1)]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [torch.tanh(self.W(torch.cat(pair, 1))) for pair in pairs]
        return level[0]


def test_a_step_of_a_tree_follows_its_children():
    found = steps_of(Tree(), torch.randn(2, 8, 3))
    assert [step[0] for step in found["W.weight"][0]] == [(), (), (), (), (0, 1), (2, 3), (4, 5)]
    edges = edges_of(drawn(unroll(Tree(), torch.randn(2, 8, 3)), "dot"), "dot")
    assert {(a, b) for a, b, _ in edges} >= {("h_4", "h_6"), ("h_5", "h_6"), ("h_2", "h_5"), ("h_init_3", "h_3")}
    assert ("h_0", "h_1") not in {(a, b) for a, b, _ in edges}
    assert "h_6 = f(h_4, h_5)" in drawn(unroll(Tree(), torch.randn(2, 8, 3)), "text")


class Joining(nn.Module):
    """A tree whose steps take an input each, two by two."""

    def __init__(self):
        super().__init__()
        self.U, self.W = nn.Linear(3, 4), nn.Linear(8, 4)

    def forward(self, x):
        inputs, level = iter(x.unbind(1)), [x.new_zeros(len(x), 4) for _ in range(4)]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [torch.tanh(self.U(next(inputs)) + self.W(torch.cat(pair, 1))) for pair in pairs]
        return level[0]


def test_what_a_step_of_a_tree_is_given_is_told_of_that_step():
    found = steps_of(Joining(), torch.randn(2, 3, 3))
    entering = ({"W.weight": 1, "W.bias": 1}, {"U.weight": 1, "U.bias": 1}, {})
    assert found["W.weight"][0] == [((), *entering), ((), *entering), ((0, 1), *entering)]


class Gained(nn.Module):
    """A gain that is used twice a step, and so in more steps than the matrix."""

    def __init__(self):
        super().__init__()
        self.gain, self.W, self.U = nn.Parameter(torch.ones(4)), weight(4, 4), weight(3, 4)

    def forward(self, x):
        h = x.new_zeros(len(x), 4)
        for x_t in x.unbind(1):
            h = self.gain * torch.tanh((self.gain * h) @ self.W + x_t @ self.U)
        return h


@pytest.mark.parametrize("T", [3, 6])
def test_a_matrix_stands_for_its_loop_rather_than_a_gain(T):
    found = steps_of(Gained(), torch.randn(2, T, 3))
    assert list(found) == ["W"]
    assert [step[2:] for step in found["W"][0]] == [({"U": 1}, {})] * T
    assert sum(step[1]["gain"] for step in found["W"][0]) == 2 * T
    assert list(steps_of(Gained(), torch.randn(2, T, 3), only="gain")) == ["gain"]


class Modulated(nn.Module):
    """What comes of x multiplies the state before the weight does."""

    def __init__(self):
        super().__init__()
        self.U, self.W = weight(3, 4), weight(4, 4)

    def forward(self, x):
        h, outs = torch.ones(len(x), 4), []
        for x_t in x.unbind(1):
            h = 0.5 * h + torch.tanh(((x_t @ self.U) * h) @ self.W)
            outs.append(h)
        return outs


def test_an_input_that_multiplies_the_state_belongs_to_the_step_that_begins():
    chain = unroll(Modulated(), torch.randn(2, 5, 3)).loops[0].chains[0]
    assert chain.start == {}
    assert [(step.state, step.given, step.read) for step in chain.steps] == [({"W": 1}, {"U": 1}, {})] * 5


class Recalling(nn.Module):
    """Every step looks at all states before it, so that no state of a fixed size is handed on."""

    def __init__(self):
        super().__init__()
        self.gate, self.W, self.U, self.head = weight(4, 4), weight(4, 4), weight(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        past, ys = [x.new_zeros(len(x), 4)], []
        for x_t in x.unbind(1):
            h = torch.stack(past).mean(0)
            h = torch.sigmoid(h @ self.gate) * h + torch.tanh(h @ self.W + x_t @ self.U)
            past.append(h)
            ys.append(self.head(h))
        return torch.stack(ys, 1)


@pytest.mark.parametrize("T", [5, 40])
def test_the_last_step_is_as_the_others_where_its_state_is_not_known(T):
    ((chain,),) = steps_of(Recalling(), torch.randn(2, T, 3)).values()
    entering = ({"gate": 1, "W": 1}, {"U": 1}, {"head.weight": 1, "head.bias": 1})
    assert [step[1:] for step in chain] == [entering] * T


def test_what_follows_from_a_layer_is_not_told_of_the_loop_before_it():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer, self.second = nn.GRUCell(3, 4), nn.LSTM(4, 4, batch_first=True), nn.GRUCell(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            h, states, ys = None, [], []
            for x_t in x.unbind(1):
                h = self.first(x_t, h)
                states.append(h)
            h = None
            for x_t in self.layer(torch.stack(states, 1))[0].unbind(1):
                h = self.second(x_t, h)
                ys.append(self.head(h))
            return torch.stack(ys, 1)

    found = steps_of(Both(), torch.randn(2, 4, 3))
    assert list(found) == ["first.weight_hh", "layer.weight_hh_l0", "second.weight_hh"]
    for name, read in (("first", {}), ("second", {"head.weight": 1, "head.bias": 1})):
        state, given = ({f"{name}.{part}_{way}": 1 for part in ("weight", "bias")} for way in ("hh", "ih"))
        assert [step[1:] for step in found[f"{name}.weight_hh"][0]] == [(state, given, read)] * 4


def test_a_tied_embedding_does_not_stand_for_the_loop():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.W, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            h, ys = self.W.weight.new_zeros(len(tokens), 4), []
            for token in tokens.unbind(1):
                h = torch.tanh(torch.sigmoid(self.embedding(token)) + self.W(h))
                ys.append(self.head(h))
            return torch.stack(ys, 1)

    ((chain,),) = steps_of(Language(), torch.randint(0, 7, (2, 5)), only="W").values()
    entering = ({"W.weight": 1, "W.bias": 1}, {"embedding.weight": 1}, {"embedding.weight": 1, "head.bias": 1})
    assert [step[1:] for step in chain] == [entering] * 5


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_torchs_layers_have_a_row_for_every_layer_and_direction(kind):
    layer, x = kind(3, 4, 2, batch_first=True, bidirectional=True), torch.randn(2, 5, 3)
    found = steps_of(layer, x)
    places = ["l0", "l0_reverse", "l1", "l1_reverse"]
    assert list(found) == [f"weight_hh_{place}" for place in places]
    for place in places:
        (chain,) = found[f"weight_hh_{place}"]
        state, given = ({f"{part}_{way}_{place}": 1 for part in ("weight", "bias")} for way in ("hh", "ih"))
        assert chain == [(((t - 1,) if t else ()), state, given, {}) for t in range(5)]
    text = drawn(unroll(layer, x), "text")
    assert text.count("from the last input to the first") == 2


def test_a_layer_called_step_by_step_is_one_chain_where_its_state_is_handed_on():
    class Stepwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            state, outs = None, []
            for t in range(x.shape[1]):
                if t == 3:
                    state = tuple(part.detach() for part in state)
                y, state = self.rnn(x[:, t : t + 1], state)
                outs.append(y)
            return torch.cat(outs, 1)

    ((first, second),) = steps_of(Stepwise(), torch.randn(2, 7, 3)).values()
    assert [step[0] for step in first] == [(), (0,), (1,)]
    assert [step[0] for step in second] == [(), (0,), (1,), (2,)]


def test_a_layer_that_is_fed_its_own_output_is_one_chain():
    class Fed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 3, batch_first=True)

        def forward(self, x):
            outs = [x[:, :1]]
            for _ in range(4):
                outs.append(self.rnn(outs[-1])[0])
            return torch.cat(outs, 1)

    found = steps_of(Fed(), torch.randn(2, 1, 3))
    # Every call starts from zeros: what recurs is the weight of the input.
    assert [step[0] for step in found["rnn.weight_ih_l0"][0]] == [(), (0,), (1,), (2,)]


def test_layers_that_share_their_weight_are_chains_of_one():
    layer, x = nn.RNN(4, 4, 2, batch_first=True), torch.randn(2, 3, 4)
    layer.weight_hh_l1 = layer.weight_hh_l0
    found = steps_of(layer, x)
    assert [len(chain) for chain in found["weight_hh_l0"]] == [3, 3]
    assert unroll(layer, x).parameter("weight_hh_l0")["uses"] == 6
    assert drawn(unroll(layer, x), "dot").count("shape=box") == 1


def test_names_of_any_kind_are_quoted():
    class Odd(Written):
        def __init__(self):
            super().__init__()
            self.maps = nn.ModuleDict({'a "b" \\ |c|': nn.Linear(4, 4), "x y": nn.Linear(3, 4)})

        def forward(self, x):
            h = x.new_zeros(len(x), 4)
            for x_t in x.unbind(1):
                h = torch.tanh(self.maps["x y"](x_t) + self.maps['a "b" \\ |c|'](h))
            return h

    graph = unroll(Odd(), torch.randn(2, 3, 3))
    assert r'W [shape=box, label="maps.a \"b\" \\ |c|.weight with maps.a \"b\" \\ |c|.bias, shared"];' in drawn(
        graph, "dot"
    )
    mermaid = drawn(graph, "mermaid")
    assert 'W(["maps.a #quot;b#quot; \\ |c|.weight with maps.a #quot;b#quot; \\ |c|.bias, shared"])' in mermaid
    assert 'x_1 -->|"maps.x y.weight, maps.x y.bias"| h_1' in mermaid


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_text_fits_the_window(width):
    text = drawn(unroll(nn.LSTM(3, 4, 2, batch_first=True), torch.randn(2, 20, 3)), "text", width=width)
    assert max(map(len, text.splitlines())) <= width


def test_many_windows_are_elided_as_steps_are():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = nn.Linear(3, 3)

        def forward(self, x):
            h, outs = x[:, 0], []
            for t, x_t in enumerate(x.unbind(1)):
                h = torch.tanh(self.W(h.detach() if t % 2 == 0 else h) + x_t)
                outs.append(h)
            return outs

    graph = unroll(Windows(), torch.randn(2, 40, 3))
    assert graph.scalars["chains"] == 20
    text = drawn(graph, "text")
    assert "... chains 3 to 16 (--all draws them)" in text
    assert "chain 10," not in text
    assert all(f"chain {i}, 2 steps" in drawn(graph, "text", every=True) for i in range(20))


def test_rows_scalars_and_parameters_say_what_is_drawn():
    graph = unroll(Linears(), torch.randn(2, 3, 3))
    row = {"weight": "wh.weight", "chain": 0, "t": 1, "follows": [0], "uses": 1, "state": "wh.weight, wh.bias"}
    assert graph.rows[1] == {**row, "given": "wx.weight, wx.bias", "read": "wy.weight, wy.bias"}
    assert graph.rows[0]["follows"] == []
    roles = {"parameters": 6, "recurrent_parameters": 1, "shared_parameters": 5, "once_parameters": 0}
    others = {"unused_parameters": 0, "uncounted_parameters": 0, "unique_wh.weight": 1, "wh.weight_uses": 3}
    assert graph.scalars == {"loops": 1, "chains": 1, "steps": 3, **roles, **others}
    record = {"shape": [4, 4], "elements": 16, "leaves": 1, "uses": 3, "role": "recurrent"}
    assert graph.more["parameters"][2] == {"name": "wh.weight", **record, "counted": "counted in autograd's graph"}


@pytest.mark.parametrize(
    ("model", "only", "said"),
    [
        (
            nn.Sequential(nn.Linear(3, 3)),
            None,
            "no recurrent module of a known kind .* 0.weight is used once, 0.bias is used",
        ),
        (nn.Sequential(nn.Linear(3, 3)), None, "a parallel scan, a product over all steps, or one step alone"),
        (Linears(), "wy", r"'wy' does not recur: wy.weight is used 5 times, .* Recurrent here: wh.weight"),
        (Linears(), "wyy", "matches no recurrent weight; .* Did you mean wy"),
        (Linears().requires_grad_(False), None, r"not counted: wx.weight, for it takes no gradient .*, and 5 more"),
    ],
)
def test_where_nothing_recurs_it_is_said_what_was_counted(model, only, said):
    with pytest.raises(InputError, match=said):
        unroll(model, torch.randn(2, 5, 3), only=only)


def test_an_initial_state_is_for_the_guides_network():
    with pytest.raises(InputError, match="h_init is for a FullRNN"):
        unroll(Linears(), torch.randn(2, 5, 3), torch.zeros(2, 4))


def test_the_model_has_no_gradient_and_no_hook_afterwards():
    model, x = nn.Sequential(nn.LSTM(3, 4, batch_first=True)), torch.randn(2, 5, 3)
    torch.manual_seed(3)
    model(x)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    unroll(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad and not p._backward_hooks for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# ---- the shell ----------------------------------------------------------------------------------

CODE = """
import torch
from torch import nn


class Linears(nn.Module):
    def __init__(self):
        super().__init__()
        self.wx, self.wh, self.wy = nn.Linear(10, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x, more=0):
        h, ys = x.new_zeros(len(x), 4), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.wx(x_t + more) + self.wh(h))
            ys.append(self.wy(h))
        return torch.stack(ys, 1)


def batch():
    return {"x": torch.randn(2, 3, 10), "more": torch.ones(1)}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in a folder with a model in it."""
    (tmp_path / "mine.py").write_text(CODE)
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


@pytest.mark.parametrize(
    "network", ["--model mine:Linears", "--cell lstm", "--cell gru --num-layers 2 --bidirectional"]
)
def test_the_shell_draws_a_model_in_every_form_and_lists_its_steps(network: str, run: Run) -> None:
    for form, start in (
        ("text", "rnn.weight_hh_l0 (|wh.weight ("),
        ("mermaid", "flowchart LR"),
        ("dot", "digraph unrolled {"),
    ):
        ran = run(f"unroll {network} --as {form}")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(tuple(start.split("|")))
    found = document(run(f"unroll {network} --json"))
    assert (found["schema"], found["scalars"]["steps"]) == ("rnnctl.unroll-modules", 7 * found["scalars"]["chains"])
    assert len(found["rows"]) == found["scalars"]["steps"]
    assert len(found["parameters"]) == found["scalars"]["parameters"]
    assert run(f"unroll {network} --format csv").out.startswith("weight,chain,t,follows,uses,state,given,read\n")
    assert len(run(f"unroll {network} --format jsonl").out.splitlines()) == len(found["rows"])


def test_module_batch_all_and_conditions_go_with_it(run: Run) -> None:
    assert document(run("unroll --model mine:Linears --batch mine:batch --json"))["scalars"]["wh.weight_uses"] == 3
    assert run("unroll --model mine:Linears --module wh --fail-on steps==7").code == 3
    ran = run("unroll --model mine:Linears --module wy")
    assert (ran.code, ran.out) == (2, "")
    assert "wy.weight is used 7 times" in ran.err
    assert "h_5" not in run("unroll --model mine:Linears --seq-len 20").out
    assert "h_5" in run("unroll --model mine:Linears --seq-len 20 --all").out
    assert run("unroll --cell rnn --num-layers 2 --module rnn.weight_hh_l1").out.startswith("rnn.weight_hh_l1 (20, 20)")
