"""A state that is shaped between two calls, or handed on as it is: the same direct gradient and decay, or nan."""

import pytest
import torch
from torch import nn

import rnnctl

T, B, F, H = 7, 2, 3, 4
HANDED = {
    "as it is": lambda h: h,
    "cloned": lambda h: h.clone(),
    "masked": lambda h: h * torch.ones(B, 1, dtype=h.dtype),
    "reshaped": lambda h: h.reshape(-1).reshape(B, -1),
    "chosen by where": lambda h: torch.where(torch.ones(B, 1, dtype=torch.bool), h, torch.zeros((), dtype=h.dtype)),
    "cut and put together": lambda h: torch.cat([h[:1], h[1:]]),
    "normalised": lambda h: h / h.norm(dim=1, keepdim=True),
}
READ = {
    "h at last": lambda h, c: h[-1].square().sum(),
    "h at all": lambda h, c: sum(each.square().sum() for each in h),
    "h early and at last": lambda h, c: h[2].square().sum() + h[-1].sum(),
    "c at last": lambda h, c: c[-1].square().sum(),
    "c at all": lambda h, c: sum(each.square().sum() for each in c),
    "c early, h at last": lambda h, c: c[2].square().sum() + h[-1].sum(),
    "h at all, c at last": lambda h, c: sum(each.square().sum() for each in h) + c[-1].sum(),
}
KINDS = {"RNN": (nn.RNN, nn.RNNCell), "GRU": (nn.GRU, nn.GRUCell), "LSTM": (nn.LSTM, nn.LSTMCell)}


def shaped(state, hand):
    return tuple(map(hand, state)) if isinstance(state, tuple) else hand(state)


class Stepped(nn.Module):
    """A cell, one call a step."""

    def __init__(self, kind, hand):
        super().__init__()
        self.cell, self.hand = KINDS[kind][1](F, H), hand

    def forward(self, x):
        state, h, c = None, [], []
        for x_t in x.unbind(1):
            state = self.cell(x_t, None if state is None else shaped(state, self.hand))
            h.append(state[0] if isinstance(state, tuple) else state)
            c.append(state[1] if isinstance(state, tuple) else None)
        return h, c


class Segmented(nn.Module):
    """A layer, one call for several steps; c is there at their ends."""

    def __init__(self, kind, hand, steps):
        super().__init__()
        self.rnn, self.steps = KINDS[kind][0](F, H, batch_first=True), steps
        self.hand = lambda part: hand(part[0]).unsqueeze(0)

    def forward(self, x):
        state, h, c = None, [], [None] * T
        for start in range(0, T, self.steps):
            part = x[:, start : start + self.steps]
            output, state = self.rnn(part, None if state is None else shaped(state, self.hand))
            h += output.unbind(1)
            if isinstance(state, tuple):
                c[start + part.shape[1] - 1] = state[1][0]
        return h, c


def by_leaves(model, x, read):
    """dL/dh_t from outside, and how what enters at the last step alone changes on its way back: by autograd alone."""
    h, c = model(x)
    parts = [h] if c[-1] is None else [h, c]
    leaves = [[each.detach().clone().requires_grad_() for each in part] for part in parts]
    given = [leaf for part in leaves for leaf in part]
    direct = torch.autograd.grad(read(*leaves, *([None] * (2 - len(leaves)))), given, materialize_grads=True)
    entering = [direct[T * (i + 1) - 1] for i in range(len(parts))]
    states = [each for part in parts for each in part]
    arrived = torch.autograd.grad([part[-1] for part in parts], states, entering, materialize_grads=True)
    norms = torch.stack([torch.stack([each.norm() for each in arrived[i : i + T]]) for i in range(0, len(states), T)])
    whole = norms.square().sum(0).sqrt()
    return torch.stack([each.norm() for each in direct[:T]]), float(whole[0] / whole[-1])


def seeded(made, *arguments):
    torch.manual_seed(0)
    return made(*arguments).double(), torch.randn(B, T, F, dtype=torch.float64)


def probed(model, x, read):
    with rnnctl.probe(model, decay=True) as trace:
        read(*model(x)).backward()
    return trace[next(name for name in trace if "weight_hh" in name)]


def assert_right_or_unknown(found, direct, first_over_last):
    known = ~found.grad_norm_h_direct.isnan()
    torch.testing.assert_close(found.grad_norm_h_direct[known], direct[known], rtol=1e-9, atol=1e-12)
    # What autograd says is exactly 0 is said to be so.
    assert not found.grad_norm_h_direct[known][direct[known] == 0].any()
    if found.decay is not None:
        assert found.decay.first_over_last == pytest.approx(first_over_last, rel=1e-9)


CASES = [(kind, read) for kind in KINDS for read in READ if kind == "LSTM" or "c" not in read.split()]


@pytest.mark.parametrize("hand", HANDED)
@pytest.mark.parametrize(("kind", "read"), CASES)
def test_between_the_calls_of_a_cell(kind, read, hand):
    model, x = seeded(Stepped, kind, HANDED[hand])
    found = probed(model, x, READ[read])
    assert_right_or_unknown(found, *by_leaves(model, x, READ[read]))
    if hand == "as it is":
        assert found.decay is not None
        assert not found.grad_norm_h_direct.isnan().any()


# A layer returns c at its end alone.
SEGMENTS = [(*case, steps) for case in CASES for steps in (1, 3) if (case[1], steps) != ("c at all", 3)]


@pytest.mark.parametrize("hand", HANDED)
@pytest.mark.parametrize(("kind", "read", "steps"), SEGMENTS)
def test_between_the_segments_of_a_layer(kind, read, steps, hand):
    model, x = seeded(Segmented, kind, HANDED[hand], steps)
    cell, _ = seeded(Stepped, kind, HANDED[hand])
    named = {name.removesuffix("_l0"): weight for name, weight in model.rnn.state_dict().items()}
    cell.cell.load_state_dict(named)
    if steps > 1:
        # Between them it hands on as it is.
        shape, count = cell.hand, iter(range(10**6))
        parts = 2 if kind == "LSTM" else 1
        cell.hand = lambda part: shape(part) if (next(count) // parts + 1) % steps == 0 else part
    found = probed(model, x, READ[read])
    assert_right_or_unknown(found, *by_leaves(cell, x, READ[read]))


CHANGED = {
    "detached": torch.Tensor.detach,
    "scaled": lambda c: 0.1 * c,
    "masked": lambda c: c * torch.tensor([[1.0], [0.0]], dtype=c.dtype),
    "clamped": lambda c: c.clamp(-0.1, 0.1),
    "normalised": lambda c: nn.functional.layer_norm(c, (H,)),
    "in place": lambda c: c.clone().mul_(0.5),
}


class OnlyC(Stepped):
    """An LSTM cell whose h is handed on as it is, and c is not."""

    def forward(self, x):
        state, h, c = None, [], []
        for x_t in x.unbind(1):
            given = None if state is None else (state[0], self.hand(state[1]))
            state = self.cell(x_t, given)
            h.append(state[0])
            c.append(state[1])
        return h, c


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("read", READ)
def test_a_change_of_c_alone_is_no_plain_handing_on(read, change):
    model, x = seeded(OnlyC, "LSTM", CHANGED[change])
    found = probed(model, x, READ[read])
    assert_right_or_unknown(found, *by_leaves(model, x, READ[read]))
    if found.decay is None:
        assert found.why["decay"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_on_the_state_between_calls_is_not_overlooked(kind):
    model, x = seeded(Stepped, kind, lambda part: part)

    def hand(part):
        part.register_hook(lambda grad: 0.1 * grad)
        return part

    model.hand = hand
    found = probed(model, x, READ["h at last"])
    plain = probed(seeded(Stepped, kind, lambda part: part)[0], x, READ["h at last"])
    if found.decay is not None:
        # Six steps back, a tenth each.
        assert found.decay.first_over_last == pytest.approx(plain.decay.first_over_last * 1e-6, rel=1e-6)


@pytest.mark.parametrize("made", [lambda: Stepped("GRU", HANDED["as it is"]), lambda: nn.GRU(F, H, batch_first=True)])
def test_a_forward_pass_that_no_gradient_comes_to_is_no_step_on_the_way_back(made):
    decays = []
    for extra in (0, 1, 2):
        torch.manual_seed(0)
        model, x = made().double(), torch.randn(B, T, F, dtype=torch.float64)
        with rnnctl.probe(model, decay=True) as trace:
            if extra:
                model(x)
            (model(x)[0][-1] if isinstance(model, Stepped) else model(x)[0][:, -1]).square().sum().backward()
            if extra == 2:
                model(x)
        (weight,) = trace.values()
        decays.append(weight.decay.first_over_last)
    assert decays[1:] == pytest.approx(decays[:1] * 2, rel=1e-12)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("written", ["layer", "cell", "by hand"])
def test_of_sequences_that_no_gradient_links_that_which_changes_most_is_told(written, swapped):
    class Both(nn.Module):
        """One network on two sequences, of which one drives it into saturation."""

        def __init__(self):
            super().__init__()
            self.rnn, self.cell = nn.RNN(F, H, batch_first=True), nn.RNNCell(F, H)
            self.W, self.into = nn.Parameter(nn.init.orthogonal_(torch.empty(H, H))), nn.Linear(F, H)

        def over(self, x):
            if written == "layer":
                return self.rnn(x)[0][:, -1]
            h = x.new_zeros(len(x), H)
            for x_t in x.unbind(1):
                h = self.cell(x_t, h) if written == "cell" else torch.tanh(self.into(x_t) + h @ self.W)
            return h

        def forward(self, x):
            parts = (0.01 * x, 20 * x)
            return sum(self.over(part) for part in (reversed(parts) if swapped else parts))

    model, x = seeded(Both)
    with rnnctl.probe(model, decay=True) as trace:
        model(x).sum().backward()
    ratios = []
    for scale in (0.01, 20):
        with rnnctl.probe(model, decay=True) as alone:
            model.over(scale * x).sum().backward()
        (weight,) = alone.values()
        ratios.append(weight.decay.first_over_last)
    (both,) = trace.values()
    assert both.decay.first_over_last == pytest.approx(min(ratios), rel=1e-6)
    assert min(ratios) < 1e-3 * max(ratios)
    assert both.decay.chains == 2
    found = rnnctl.gradnorm(model, x, loss_fn=lambda y, _: y.sum())
    assert "of 2 sequences that no gradient links, that which changes most" in found.scalars["reason"]


def test_of_more_sequences_than_are_followed_it_is_said_that_one_of_them_is_meant():
    class Windows(nn.Module):
        """A state that is cut off from the one before it at every third step."""

        def __init__(self):
            super().__init__()
            self.W, self.into = nn.Parameter(nn.init.orthogonal_(torch.empty(H, H))), nn.Linear(F, H)

        def forward(self, x):
            h, found = x.new_zeros(len(x), H), []
            for t, x_t in enumerate(x.unbind(1)):
                h = torch.tanh(self.into(x_t) + (h if t % 3 else h.detach()) @ self.W)
                found.append(h)
            return torch.stack(found[2::3])

    torch.manual_seed(0)
    model = Windows().double()
    for count, said in ((17, "one of the longest"), (16, "that which changes most")):
        x = torch.randn(B, 3 * count, F, dtype=torch.float64)
        found = rnnctl.gradnorm(model, x, loss_fn=lambda y, _: y.square().sum())
        assert f"of {count} sequences that no gradient links, {said}" in found.scalars["reason"]
