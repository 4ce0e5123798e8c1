"""What cannot fit into memory is refused before it is computed; what alone cannot be verified is said not to be."""

import pytest
import torch
from shell import document, runner
from torch import nn

import rnnctl

PLENTY = 10**7


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    return runner(capsys, monkeypatch, tmp_path)


def having(monkeypatch, available):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: available)


def never(*arguments, **more):
    raise AssertionError("something was computed")


# 1000 steps: the sweep takes 1.6 MB, autograd's tape 7 MB.
@pytest.mark.parametrize("command", ["gradnorm", "flow --hidden-size 4", "truncation"])
def test_where_the_tape_alone_does_not_fit_the_comparison_is_null_with_both_numbers(run, monkeypatch, command):
    steps = 100 if command.startswith("flow") else 1000
    monkeypatch.setattr("rnnctl.gradients.autograd.require_torchs_tape", _too_large)
    ran = run(f"{command} --seq-len {steps} --json --only scalars")
    assert ran.code == 0
    told = document(ran)
    assert told["scalars"]["autograd_relative_error"] is None
    assert "a tape would take 2 KiB of memory; 1 KiB is available" in told["why"]["autograd_relative_error"]
    assert told["scalars"]["autograd_tolerance"] == 1e-5
    assert run(f"{command} --seq-len {steps} --json --only scalars --no-verify").code == 0


def _too_large(*sizes):
    raise rnnctl.TooLargeError("a tape would take 2 KiB of memory; 1 KiB is available")


def test_what_the_sweep_found_is_there_without_the_comparison(run, monkeypatch):
    whole = document(run("gradnorm --seq-len 1000 --json"))
    having(monkeypatch, 6_000_000)
    ran = run("gradnorm --seq-len 1000 --json")
    assert ran.code == 0
    assert document(ran)["rows"] == whole["rows"]
    assert "autograd's tape of 1000 steps would take" in document(ran)["why"]["autograd_relative_error"]


def test_a_condition_on_a_comparison_that_does_not_fit_is_exit_1(run, monkeypatch):
    having(monkeypatch, 6_000_000)
    ran = run("gradnorm --seq-len 1000 --json --only scalars", "--fail-on", "autograd_relative_error>1e-3")
    assert ran.code == 1
    assert "autograd_relative_error has no value here: not compared with autograd: autograd's tape" in ran.err


def test_a_chaotic_network_whose_own_loop_does_not_fit_is_not_called_wrong(monkeypatch):
    torch.manual_seed(0)
    model = rnnctl.FullRNN(2, 20, 1)
    monkeypatch.setattr("rnnctl.gradients.autograd.TOLERANCES", {torch.float32: -1.0})
    monkeypatch.setattr("rnnctl.gradients.autograd.require_tape", _too_large)
    found = rnnctl.gradnorm(model, torch.randn(2, 30, 2), verify=True)
    assert found.agreement.holds is None and found.agreement.why.startswith("not compared with autograd: a tape")


def test_a_sweep_that_does_not_fit_is_refused_before_a_state_is_made(run, monkeypatch):
    having(monkeypatch, 1_200_000)
    monkeypatch.setattr("rnnctl.models.hand_written.hidden_states", never)
    ran = run("gradnorm --seq-len 1000 --json --only scalars")
    assert (ran.code, ran.out) == (2, "")
    # Its states in float32, and the copy of states and inputs in float64 that a small network is swept along.
    assert "for the sweep would take 1.357 MiB of memory; 1.144 MiB is available" in ran.err


@pytest.mark.parametrize("form", ["--json", "--format csv", "--all"])
@pytest.mark.parametrize("command", ["gradnorm", "gradnorm --cell gru", "flow", "spectrum", "unroll"])
def test_rows_that_do_not_fit_are_refused_before_the_input_is_drawn(run, monkeypatch, command, form):
    having(monkeypatch, PLENTY)
    monkeypatch.setattr("rnnctl.cli.setup.experiment.batch", never)
    ran = run(f"{command} --seq-len 40000 {form} --input-size 1 --hidden-size 2 --batch-size 1")
    assert (ran.code, ran.out) == (2, "")
    assert "the rows of 40,000 steps as" in ran.err and "9.537 MiB is available. Try --only scalars" in ran.err


def test_rows_that_nobody_asked_for_take_nothing(run, monkeypatch):
    having(monkeypatch, 10**6)
    assert run("gradnorm --seq-len 600 --json --batch-size 1 --hidden-size 2 --input-size 1 --no-verify").code == 2
    assert run("gradnorm --seq-len 600 --json --batch-size 1 --hidden-size 2 --input-size 1 --only scalars").code == 0


QUESTIONS = ["gradnorm", "flow", "truncation", "spectrum", "lyapunov", "forward", "unroll"]


@pytest.mark.parametrize("command", QUESTIONS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "coupled-lstm"])
def test_a_layer_that_does_not_fit_is_refused_before_it_runs(run, monkeypatch, command, cell):
    having(monkeypatch, 200_000)
    monkeypatch.setattr("rnnctl.models.torch_layers.nn.Linear.forward", never)
    ran = run(f"{command} --cell {cell} --seq-len 20 --hidden-size 100 --batch-size 20 --only scalars --json")
    assert (ran.code, ran.out) == (2, "")
    assert " over 20 steps" in ran.err and "195.3 KiB is available" in ran.err


def test_a_layer_within_somebodys_model_is_asked_for_its_own_steps_and_the_rest_is_not_guessed():
    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)
            self.rnn = nn.LSTM(4, 50, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x):
            h, states = None, []
            for x_t in x.unbind(1):
                states.append(h := self.cell(x_t, h))
            return self.rnn(torch.stack(states, 1)[:, ::2])[0]

    torch.manual_seed(0)
    model, x = Halved(), torch.randn(2, 60, 3)

    def loss(output, target):
        return output.square().mean()

    with pytest.MonkeyPatch.context() as patch:
        having(patch, 1_000_000)
        with pytest.raises(rnnctl.TooLargeError, match="LSTM over 30 steps, with .* would take 984.4 KiB"):
            rnnctl.gradnorm(model, x, loss_fn=loss)
        having(patch, PLENTY)
        assert rnnctl.gradnorm(model, x, loss_fn=loss).weights


def test_the_exponents_are_there_where_the_sweep_beside_them_does_not_fit(run, monkeypatch):
    having(monkeypatch, 650_000)
    ran = run("lyapunov --seq-len 500 --count 1 --batch-size 4 --json")
    assert ran.code == 0
    told = document(ran)
    assert told["scalars"]["largest"] is not None and told["scalars"]["factor_per_step"] is None
    assert "for the sweep would take" in told["why"]["factor_per_step"]


def test_check_asks_for_its_clones_and_their_tape_before_the_first_case(run, monkeypatch):
    having(monkeypatch, 10**6)
    monkeypatch.setattr("rnnctl.checks.own_gradnorm", never)
    # The clones alone would fit.
    ran = run("check --seq-len 200 --hidden-size 4")
    assert ran.code == 2 and "200 clones of W_hh and their gradients would take" in ran.err


@pytest.mark.parametrize(
    ("ask", "needed"),
    [
        # Of 20,000 steps records of 512 bytes.
        (lambda: rnnctl.spectrum(rnnctl.FullRNN(1, 1, 1), torch.zeros(1, 20_000, 1)), 20_000 * 512),
        # Of 1,000 x 1,000 pairs 12 numbers.
        (lambda: rnnctl.flow(rnnctl.FullRNN(1, 1, 1), torch.zeros(1, 1_000, 1)), 1_000**2 * 12 * 8),
        # Of 20,000 steps, less a tenth of warm-up, four numbers an exponent.
        (lambda: rnnctl.lyapunov(rnnctl.FullRNN(1, 1, 1), torch.zeros(1, 20_000, 1)), 18_000 * 4 * 8),
    ],
    ids=["spectrum", "flow", "lyapunov"],
)
def test_what_every_step_or_pair_takes_is_counted(ask, needed, monkeypatch):
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: needed - 1)
    with pytest.raises(rnnctl.TooLargeError):
        ask()
