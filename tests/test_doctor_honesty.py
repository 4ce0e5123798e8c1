"""What the doctor must not say: alarms on what trains, help that is none, health where nothing was seen."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import Run, document, forget_modules_of, runner
from test_doctor import Loop, Net, asked, moving, state_of
from torch import Tensor, nn
from torch.nn import functional as F

import rnnctl
from rnnctl.diagnosis import remedies
from rnnctl.diagnosis.case import Case, Settings, varied
from rnnctl.diagnosis.lag import estimated_lag, explained_within
from rnnctl.diagnosis.rule_ids import IDS
from rnnctl.diagnosis.setup_remedies import standardize
from rnnctl.errors import InputError
from rnnctl.initializers import chrono_, forget_bias_, identity_, orthogonal_
from rnnctl.view.html.verdict import verdict
from rnnctl.view.words import explained


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return runner(capsys, monkeypatch, tmp_path)


def delayed(x: Tensor, steps: int) -> Tensor:
    return F.pad(x, (0, 0, steps, 0))[:, : x.shape[1]]


def decaying(x: Tensor) -> Tensor:
    """0.9 of the sum before and 0.1 of the input, at every step."""
    held, sums = torch.zeros_like(x[:, 0]), []
    for x_t in x.unbind(1):
        held = 0.9 * held + 0.1 * x_t
        sums.append(held)
    return torch.stack(sums, 1)


def mean_so_far(x: Tensor) -> Tensor:
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


# ---- how far back a running target reaches --------------------------------------------------------


@pytest.mark.parametrize("running", [lambda x: x.cumsum(1), mean_so_far, decaying])
@pytest.mark.parametrize(("kind", "batch", "steps"), [("gru", 32, 40), ("lstm", 20, 60)])
def test_a_target_that_goes_on_from_step_to_step_does_not_vanish(
    running: Callable[[Tensor], Tensor], kind: str, batch: int, steps: int
) -> None:
    x = torch.randn(batch, steps, 1)
    found = asked(Net(kind, (1, 12, 1)), x, running(x), lag=None, only_finding=["vanishing"])
    assert found.rows == ()
    assert (state_of(found, "vanishing"), found.scalars["lag_from"]) == (False, "estimated")
    # Of what is learned at the last step alone those before it teach nothing.
    assert estimated_lag(x, running(x)).taught is None


@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("more", [0.0, 1.0])
def test_an_input_of_long_ago_vanishes_whether_or_not_others_help(kind: str, more: float) -> None:
    x = torch.randn(32, 40, 1)
    found = asked(Net(kind, (1, 12, 1)), x, delayed(x, 30) + more * x, lag=None, only_finding=["vanishing"])
    assert [(row["finding"], row["severity"]) for row in found.rows] == [("vanishing", "fault")]
    assert found.scalars["lag"] == 30


def test_events_that_are_counted_are_learned_from_step_to_step() -> None:
    events = (torch.rand(32, 40, 1) < 0.15).float()
    lag = estimated_lag(events, events.cumsum(1) / 5, at_every_step=True)
    assert (lag.taught, lag.steps) == (1, 39)


def test_a_sum_that_comes_late_is_taught_as_late_and_a_smooth_delay_is_no_sum() -> None:
    x = torch.randn(24, 40, 1)
    late = estimated_lag(x, delayed(x.cumsum(1), 20), at_every_step=True)
    assert (late.steps, late.taught) == (39, 20)
    for smooth in (decaying(x), decaying(torch.randn(8, 100, 1))):
        assert estimated_lag(smooth, delayed(smooth, 20), at_every_step=True).taught is None
    window = estimated_lag(x, x.cumsum(1) - delayed(x.cumsum(1), 15), at_every_step=True)
    assert (window.taught or window.steps) == 15


def test_an_estimated_lag_is_a_warning_where_inputs_in_reach_say_nearly_all() -> None:
    x = torch.randn(120, 30, 1)
    near = sum(0.7**k * delayed(x, k) for k in range(30))
    far = [near + share * delayed(x, 25) for share in (0.4, 2.0)]
    severities = []
    for target in far:
        found = rnnctl.doctor(Net("rnn", (1, 12, 1), last=True), x, target[:, -1], only_finding=["vanishing"])
        assert found.scalars["lag_from"] == "estimated"
        severities += [row["severity"] for row in found.rows]
    assert severities == ["warning", "fault"]
    assert explained_within(x, far[1], None, 24) < 0.7 < 0.9 < explained_within(x, far[1], None, 25)


def test_behind_a_cut_nothing_is_said_of_the_weights() -> None:
    x = torch.randn(16, 40, 3)
    cut = Loop(between=lambda t, h: h.detach() if t % 10 == 0 else h)
    found = asked(cut, x, delayed(x[..., :2], 30), lag=30)
    assert found.found == ("state-cut",)
    assert "see state-cut" in found.why["vanishing"]


# ---- where nothing was seen -----------------------------------------------------------------------


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.Sequential(nn.Flatten(), nn.Linear(60, 2))])
def test_of_a_model_in_which_nothing_recurs_it_is_not_known_whether_it_is_well(model: nn.Module) -> None:
    x = torch.randn(9, 20, 3)
    found = rnnctl.doctor(model, x, x[:, -1, :2])
    assert (found.verdict, found.rows) == ("not known", ())
    assert found.scalars["verdict"] == "not known"
    assert any("no weight" in note for note in found.notes)
    # Not even where all that was asked for is well.
    assert rnnctl.doctor(model, x, x[:, -1, :2], only_finding="input-scale").verdict == "not known"


def test_nothing_is_found_only_where_half_of_what_is_asked_for_was_looked_at() -> None:
    x = torch.randn(9, 20, 3)
    asks = {
        ("window",): "not known",
        ("window", "vanishing"): "nothing found",
        ("window", "echo", "padding"): "not known",
    }
    for ids, word in asks.items():
        assert asked(Net(), x, moving(x), only_finding=ids, skip_finding=()).verdict == word


def test_beside_nothing_found_stands_how_much_was_not_looked_at(run: Run) -> None:
    (line,) = (line for line in run("doctor --seq-len 20 --lag 1").out.splitlines() if line.startswith("verdict"))
    assert line.split(maxsplit=1)[1].split("  ") == ["nothing found", "of what could be looked at: 3 of 16 were not"]
    shown = run("doctor --seq-len 20 --lag 1 --only-finding window").out
    assert "not known" in shown


def test_a_report_does_not_call_the_unknown_good() -> None:
    x = torch.randn(9, 20, 3)
    tones = [verdict(asked(model, x, moving(x), lag=1)) for model in (Net(), nn.Linear(3, 2))]
    assert [(tone.word, tone.tone) for tone in tones if tone] == [("nothing found", "good"), ("not known", "warn")]


# ---- words and types ------------------------------------------------------------------------------


def test_one_finding_is_taken_by_its_name_alone() -> None:
    x = torch.randn(9, 20, 3)
    found = asked(Net(), x, only_finding="vanishing", skip_finding="echo")
    assert [name for name, holds in found.conditions.items() if holds is not None] == ["vanishing"]
    with pytest.raises(InputError, match="only_finding must be the name of a finding, or several; got 5"):
        asked(Net(), x, only_finding=5)


def test_the_short_training_has_a_cost_of_its_own() -> None:
    x = torch.randn(9, 20, 3)
    given = {"train_steps": 2, "seeds": 1, "timings": True, "only_finding": ["nonfinite", "echo"]}
    costs = asked(Net(), x, moving(x), **given).more["timings"]
    assert [each["finding"] for each in costs] == ["nonfinite", "echo", "short training"]
    assert all(each["seconds"] > 0 for each in costs)
    without = asked(Net(), x, moving(x), **{**given, "train_steps": 0}).more["timings"]
    assert [each["finding"] for each in without] == ["nonfinite", "echo"]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: chrono_(nn.LSTM(2, 3), "50"), "longest must be a finite number; got '50'"),
        (lambda: forget_bias_(nn.LSTM(2, 3), None), "value must be a finite number; got None"),
        (lambda: orthogonal_(nn.RNN(2, 3), torch.ones(2)), "gain must be a finite number"),
        (lambda: identity_("rnn"), "identity_ takes nn.RNN.*; got 'rnn'"),
    ],
)
def test_what_an_initialiser_does_not_take_is_an_input_error(act: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()


def test_the_lines_of_standardize_say_what_they_need() -> None:
    lines = standardize(Case(Net(), torch.randn(4, 5, 3))).lines
    assert any(line.startswith("# x: ") for line in lines)


# ---- a target that does not fit -------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("target", "given"),
    [
        (torch.zeros(3, 2), {}),
        (torch.zeros(9, 20, 5), {"loss_at": "all"}),
        (torch.full((9,), 5), {"loss": "cross-entropy"}),
        (torch.zeros(9, 2), {"loss": "cross-entropy"}),
        (torch.zeros(9, 2).double(), {}),
    ],
)
def test_a_target_that_does_not_fit_is_told_as_gradnorm_tells_it(target: Tensor, given: Any, frozen: bool) -> None:
    model, x = Net(), torch.randn(9, 20, 3)
    with pytest.raises(InputError) as of_gradnorm:
        rnnctl.gradnorm(model, x, target=target, **given)
    with pytest.raises(InputError) as of_doctor:
        rnnctl.doctor(model.requires_grad_(not frozen), x, target, **given)
    assert str(of_doctor.value) == str(of_gradnorm.value)


def test_a_target_beyond_the_output_fits_and_is_a_finding() -> None:
    x = torch.randn(9, 20, 3)
    found = rnnctl.doctor(Net(end=torch.tanh), x, 5 * moving(x), loss_at="all", only_finding="loss-output")
    assert found.found == ("loss-output",)


# ---- evidence -------------------------------------------------------------------------------------

MODELS = """
import torch
from torch import nn

class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.readout = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.readout(self.rnn(x)[0][:, -1])

class Bounded(Last):
    def forward(self, x):
        return super().forward(x).tanh()

class Still(Last):
    def forward(self, x):
        with torch.no_grad():
            h = self.rnn(x)[0]
        return self.readout(h[:, -1])

class Anew(Last):
    def forward(self, x):
        return self.readout(torch.stack([self.rnn(x_t[:, None])[0][:, 0] for x_t in x.unbind(1)], 1))
"""


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("--model nets:Last --input loud.npy", "input-scale"),
        ("--model nets:Last --input padded.npy --skip-finding chaotic", "padding"),
        ("--model nets:Bounded --input x.npy --target y.npy", "loss-output"),
        ("--model nets:Still --input x.npy --target y.npy --timings", "no-gradient"),
        ("--model nets:Anew --input x.npy --loss-at all --lag 9", "state-cut"),
        ("--model nets:Last --input x.npy --target y.npy --try --seeds 2 --train-steps 2 --only-finding echo", "echo"),
        ("--cell rnn --seq-len 50 --lag 40 --loss-at all", "vanishing"),
    ],
)
def test_the_evidence_shows_the_number_that_no_other_question_has(
    line: str, finding: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(MODELS)
    x = torch.randn(12, 20, 3, generator=torch.Generator().manual_seed(0)).numpy()
    ends = np.arange(20) < np.arange(9, 21)[:, None]
    for name, array in {"x": x, "loud": 900 * x + 500, "padded": x * ends[..., None], "y": 4 * x[:, 0, :2]}.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.float32))
    (of_all,) = (row for row in document(run(f"doctor {line} --json"))["rows"] if row["finding"] == finding)
    evidence = of_all["evidence"]
    assert evidence.endswith(f"--only-finding {finding}")
    assert not any(flag in evidence for flag in ("--try", "--timings", "--skip-finding"))
    again = document(run(f"{evidence.removeprefix('rnnctl ')} --json"))["rows"]
    assert [(row["finding"], row["number"]) for row in again] == [(finding, of_all["number"])]
    forget_modules_of(tmp_path)


def test_in_python_the_evidence_is_a_call_that_shows_the_number() -> None:
    model, x = Net(end=torch.tanh), torch.randn(9, 20, 3)
    target = 5 * moving(x)
    (row,) = asked(model, x, target, only_finding="loss-output").rows
    assert row["evidence"] == "rnnctl.doctor(model, x, target, only_finding='loss-output')"


def test_over_how_many_steps_gradnorm_looks_is_said_where_the_lag_is_shorter() -> None:
    x = torch.randn(6, 60, 3)
    said = [
        rnnctl.doctor(Net(last=True), x, torch.randn(6, 2), lag=lag, only_finding="vanishing").rows[0]
        for lag in (40, 59)
    ]
    assert ["gradnorm is over all 59" in row["sentence"] for row in said] == [True, False]
    assert all(row["evidence"].startswith("rnnctl.gradnorm(") for row in said)


# ---- help that is none ----------------------------------------------------------------------------


def tried(model: nn.Module, x: Tensor, target: Tensor, finding: str, **given: Any) -> dict[str, Any]:
    case = Case(model, x, target, Settings(learning_rate=1e-2), lag=1)
    found = remedies.tried(case, [finding], **{"steps": 40, "seeds": 2, "holds_out": True, **given})
    return {row["remedy"]: row for row in found}


def test_what_learns_noise_by_heart_is_no_help() -> None:
    x, noise = 30 * torch.randn(12, 8, 3) + 100, torch.randn(12, 2)
    few = tried(Net("gru", last=True), x[:7], noise[:7], "input-scale")["standardize"]
    many = tried(Net("gru", last=True), x, noise, "input-scale")["standardize"]
    assert (few["helps"], few["measured_on"]) == ("yes", "the trained sequences")
    assert (many["helps"], many["measured_on"]) == ("no measurable help", "sequences not trained on")


def test_what_teaches_the_task_helps_on_sequences_not_trained_on() -> None:
    x = torch.randn(32, 8, 3)
    row = tried(Net("gru", last=True), 30 * x + 100, x[:, -1, :2], "input-scale")["standardize"]
    assert (row["helps"], row["measured_on"]) == ("yes", "sequences not trained on")


def test_a_model_that_runs_on_so_many_sequences_alone_is_measured_on_them() -> None:
    x = torch.randn(9, 8, 3)
    fixed = Net("gru", last=True, end=lambda y: y.view(9, 2))
    assert (
        tried(fixed, 30 * x + 100, x[:, -1, :2], "input-scale")["standardize"]["measured_on"] == "the trained sequences"
    )


def test_the_doctor_judges_remedies_by_what_they_were_not_trained_on() -> None:
    x = torch.randn(8, 6, 3)
    given = {"try_remedies": True, "train_steps": 2, "seeds": 2, "only_finding": "input-scale", "loss_at": "last"}
    for count, measured_on in ((8, "sequences not trained on"), (7, "the trained sequences")):
        batch = 30 * x[:count] + 100
        rows = asked(Net("gru", last=True), batch, x[:count, -1, :2], **given).more["remedies"]
        assert {row["measured_on"] for row in rows if row["loss_after"] is not None} == {measured_on}


def test_the_loss_of_a_remedy_is_that_of_the_sequences_kept_from_it() -> None:
    x = torch.randn(8, 6, 3)
    model = Net("gru", last=True)
    row = tried(model, x, x[:, -1, :2], "step-size", steps=0)["clip"]
    kept = [3, 7]
    with torch.no_grad():
        losses = [F.mse_loss(varied(deepcopy(model), seed)(x[kept]), x[kept, -1, :2]) for seed in (0, 1)]
    assert row["unseen_before"] == row["unseen_after"] == pytest.approx(float(sum(losses)) / 2)


@pytest.mark.parametrize("name", ["padding", "window", "no-gradient", "no_gradient"])
def test_a_finding_that_shares_its_name_is_explained_as_one(name: str) -> None:
    assert "finding of the doctor" in " ".join(explained(name).text.split())


def test_the_doctor_and_all_its_findings_are_explained() -> None:
    assert explained("doctor").see.startswith("rnnctl doctor")
    for name in IDS:
        assert explained(name) is explained(name.replace("-", "_"))
