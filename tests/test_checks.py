"""The claims about an installation, and that a broken one is found out."""

import pytest
import torch

import rnnctl
from rnnctl import DtypeError, FullRNN, VerificationError, check


def test_every_claim_holds_for_tanh_and_relu_at_last_and_all():
    torch.manual_seed(0)
    report = check(FullRNN(3, 8, 2, dtype=torch.float64), torch.randn(4, 12, 3, dtype=torch.float64))
    cases = {(row["nonlinearity"], row["loss_at"]) for row in report.rows}
    assert cases == {(f, at) for f in ("tanh", "relu") for at in ("last", "all")}
    assert report.scalars["claims"] == 16
    assert report.scalars["failed"] == 0
    assert 0 < report.scalars["largest_relative_error"] < 1e-12
    report.require_all()


def test_float32_is_checked_at_its_own_tolerance_even_where_clones_underflow():
    torch.manual_seed(0)
    report = check(FullRNN(3, 8, 2), torch.randn(2, 150, 3))
    assert {row["tolerance"] for row in report.rows} == {1e-4}
    report.require_all()


def test_given_h_init_target_loss_and_activation_are_used():
    torch.manual_seed(0)
    model = FullRNN(3, 8, 2, output_activation="sigmoid", bias=False, dtype=torch.float64)
    x, h_init = torch.randn(4, 6, 3, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)
    check(model, x, target=torch.rand(4, 6, 2, dtype=torch.float64), h_init=h_init).require_all()


@pytest.mark.parametrize(
    ("place", "claim"),
    [
        ("rnnctl.models.hand_written.hidden_states", "T clones"),
        ("rnnctl.cells.ManualRNNCell.forward", "nn.RNN's"),
    ],
)
def test_a_mistake_fails_its_claim(monkeypatch, place, claim):
    from rnnctl.cells import ManualRNNCell
    from rnnctl.recurrence.elman import hidden_states

    forward = ManualRNNCell.forward
    broken = {
        "rnnctl.models.hand_written.hidden_states": lambda *inputs: hidden_states(*inputs) * (1 + 1e-6),
        "rnnctl.cells.ManualRNNCell.forward": lambda self, x, h: forward(self, x, h) * (1 + 1e-6),
    }
    monkeypatch.setattr(place, broken[place])
    report = check(FullRNN(3, 8, 2, dtype=torch.float64), torch.randn(4, 12, 3, dtype=torch.float64))
    assert any(claim in row["claim"] for row in report.rows if not row["holds"])
    with pytest.raises(VerificationError, match=rf"claims do not hold: .*{claim}"):
        report.require_all()


def test_nonlinearities_can_be_narrowed_and_progress_is_told():
    seen = []
    x = torch.randn(1, 2, 3, dtype=torch.float64)
    report = check(FullRNN(3, 2, 1, dtype=torch.float64), x, nonlinearities=("relu",), progress=seen.append)
    assert {row["nonlinearity"] for row in report.rows} == {"relu"}
    assert seen == [0.5, 1.0]


def test_half_precision_is_refused():
    with pytest.raises(DtypeError, match="needs float64 or float32; got torch.bfloat16"):
        check(FullRNN(3, 2, 1, dtype=torch.bfloat16), torch.zeros(1, 2, 3, dtype=torch.bfloat16))


def test_the_random_state_is_left_alone():
    model, x = FullRNN(3, 2, 1, dtype=torch.float64), torch.randn(1, 2, 3, dtype=torch.float64)
    before = torch.get_rng_state()
    check(model, x)
    assert torch.equal(before, torch.get_rng_state())


def test_too_many_clones_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 1000)
    with pytest.raises(rnnctl.TooLargeError, match="5 clones of W_hh .* 1000 B is available"):
        check(FullRNN(3, 8, 1, dtype=torch.float64), torch.zeros(1, 5, 3, dtype=torch.float64))
