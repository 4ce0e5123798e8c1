"""Sequences of different lengths in the shell: --lengths, padding with nan, and the padding audit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from probe_oracles import ByClones
from safetensors.torch import load_file
from shell import Run, document, forget_modules_of, runner
from torch import nn
from torch.func import functional_call

import rnnctl

LENGTHS = [7, 3, 5, 1]
NETWORKS = ("", "--cell rnn", "--cell gru", "--cell lstm", "--model ragged:Plain", "--model ragged:Packed")

RAGGED = """
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(10, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Packed(Plain):
    def forward(self, x, lengths=None):
        if lengths is None:
            return super().forward(x)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class MustHave(Packed):
    def forward(self, x, seq_lengths):
        return super().forward(x, seq_lengths)


class AtTheEnd(Packed):
    def forward(self, x, lengths):
        return super().forward(x, lengths)[torch.arange(len(x)), lengths - 1]
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run one command line in a folder with padded sequences, their lengths, and models."""
    x = np.random.default_rng(0).normal(2.0, 3.0, (4, 7, 10)).astype(np.float32)
    padding = np.arange(7) >= np.array(LENGTHS)[:, None]
    np.save(tmp_path / "nan.npy", np.where(padding[..., None], np.nan, x).astype(np.float32))
    np.save(tmp_path / "zeros.npy", np.where(padding[..., None], 0, x).astype(np.float32))
    np.save(tmp_path / "junk.npy", np.where(padding[..., None], 99, x).astype(np.float32))
    np.save(tmp_path / "y.npy", np.random.default_rng(1).normal(size=(4, 7, 5)))
    np.save(tmp_path / "lengths.npy", np.array(LENGTHS))
    torch.save(torch.tensor(LENGTHS), tmp_path / "lengths.pt")
    (tmp_path / "lengths.csv").write_text("steps\n7\n3\n5\n1\n")
    (tmp_path / "ragged.py").write_text(RAGGED)
    yield runner(capsys, monkeypatch, tmp_path)
    forget_modules_of(tmp_path)


def norms(ran, name="grad_norm_W_hh"):
    return [row[name] for row in document(ran)["rows"]]


# ---- what counts --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("network", NETWORKS)
def test_padding_contributes_nothing_however_it_is_told(network: str, at: str, run: Run) -> None:
    line = f"gradnorm {network} --loss-at {at} --json --input"
    found = [norms(run(f"{line} nan.npy"))]
    told = [("zeros", "npy"), ("junk", "pt"), ("zeros", "csv")]
    found += [norms(run(f"{line} {name}.npy --lengths lengths.{kind}")) for name, kind in told]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5, abs=1e-12)
    assert norms(run(f"{line} zeros.npy")) != pytest.approx(found[0], rel=1e-2)


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize(("cell", "kind"), [("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
@pytest.mark.parametrize("directions", [1, 2])
def test_rows_of_ragged_sequences_are_those_of_a_computation_by_hand(cell, kind, at, directions, run: Run) -> None:
    flag = "--bidirectional" if directions == 2 else ""
    found = document(run(f"gradnorm --cell {cell} {flag} --input nan.npy --target y.npy --loss-at {at} --json"))
    torch.manual_seed(0)
    module = kind(10, 20, batch_first=True, bidirectional=directions == 2)
    head = nn.Linear(20 * directions, 5).double()
    order = sorted(range(4), key=lambda b: -LENGTHS[b])
    lengths = [LENGTHS[b] for b in order]
    x, y = (torch.from_numpy(np.load(f"{name}.npy")).double()[order] for name in ("zeros", "y"))
    clones = ByClones(module)
    out, _, _ = clones(x.transpose(0, 1), lengths=lengths)
    steps = torch.arange(7)[:, None]
    chosen = steps == torch.tensor(lengths) - 1 if at == "last" else steps < torch.tensor(lengths)
    loss = (head(out)[chosen] - y.transpose(0, 1)[chosen]).square().mean()
    loss.backward()
    assert found["scalars"]["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, expected in clones.results().items():
        rows = [row for row in found["rows"] if row["weight"] == f"rnn.{name}"]
        assert [row["grad_norm_W_hh"] for row in rows] == pytest.approx(expected["W_hh"].tolist(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("loss", ["--target y.npy", "--loss sum", "--loss cross-entropy --target classes.npy"])
def test_one_output_a_sequence_is_held_to_the_target_of_its_last_real_step(loss: str, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "classes.npy", np.random.default_rng(2).integers(0, 5, (4, 7)))
    line = f"--input zeros.npy --lengths lengths.npy {loss} --json"
    at_the_end, of_all = (document(run(f"gradnorm --model ragged:{name} {line}")) for name in ("AtTheEnd", "Packed"))
    assert at_the_end["scalars"]["loss"] == pytest.approx(of_all["scalars"]["loss"], rel=1e-6)
    assert [row["grad_norm_h"] for row in at_the_end["rows"]] == pytest.approx(
        [row["grad_norm_h"] for row in of_all["rows"]], rel=1e-5
    )


def test_what_a_target_holds_for_padding_does_not_matter(run: Run, tmp_path: Path) -> None:
    classes = np.random.default_rng(2).integers(0, 5, (4, 7))
    np.save(tmp_path / "classes.npy", classes)
    np.save(tmp_path / "ignored.npy", np.where(np.arange(7) >= np.array(LENGTHS)[:, None], -100, classes))
    line = "gradnorm --cell gru --input nan.npy --loss cross-entropy --loss-at all --json --only rows --target"
    assert norms(run(f"{line} ignored.npy")) == norms(run(f"{line} classes.npy"))


@pytest.mark.parametrize("network", ["", "--cell lstm", "--model ragged:Packed"])
def test_every_feature_is_standardized_over_real_steps_alone(network: str, run: Run, tmp_path: Path) -> None:
    x = np.load(tmp_path / "nan.npy").astype(np.float64)
    scaled = (x - np.nanmean(x, axis=(0, 1))) / np.nanstd(x, axis=(0, 1))
    np.save(tmp_path / "scaled.npy", scaled)
    ours, by_hand = (
        norms(run(f"gradnorm {network} --json --input {data}")) for data in ("nan.npy --standardize", "scaled.npy")
    )
    assert ours == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("network", ["--output-size 10", "--output-size 10 --cell gru"])
def test_the_next_step_is_predicted_within_every_sequence(network: str, run: Run, tmp_path: Path) -> None:
    x = np.load(tmp_path / "zeros.npy")[:3]
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "now.npy", x[:, :-1])
    np.save(tmp_path / "next.npy", x[:, 1:])
    (tmp_path / "whole.csv").write_text("7\n3\n5\n")
    (tmp_path / "shorter.csv").write_text("6\n2\n4\n")
    found, spelled = (
        document(run(f"gradnorm {network} --loss-at all --json {data}"))
        for data in (
            "--input x.npy --lengths whole.csv --target next",
            "--input now.npy --lengths shorter.csv --target next.npy",
        )
    )
    assert found["rows"] == spelled["rows"]
    assert found["scalars"]["loss"] == spelled["scalars"]["loss"]


def test_lengths_go_with_random_input_and_token_numbers_too(run: Run, tmp_path: Path) -> None:
    assert document(run("gradnorm --cell gru --lengths lengths.csv --json"))["scalars"]["padded_share"] > 0
    (tmp_path / "tokens.py").write_text(
        "from torch import nn\nfrom ragged import Packed\nclass Tokens(Packed):\n    def __init__(self):\n"
        "        super().__init__()\n        self.embedding = nn.Embedding(9, 10)\n"
        "    def forward(self, x, lengths=None):\n        return super().forward(self.embedding(x), lengths)\n"
    )
    np.save(tmp_path / "tokens.npy", np.random.default_rng(0).integers(0, 9, (4, 7)))
    found = document(run("gradnorm --model tokens:Tokens --input tokens.npy --lengths lengths.csv --json"))
    assert found["scalars"]["padded_share"] > 0


def test_a_model_that_must_have_lengths_gets_all_steps_where_none_are_given(run: Run) -> None:
    plain, packed = (norms(run(f"gradnorm --model ragged:{name} --json")) for name in ("Plain", "MustHave"))
    assert packed == pytest.approx(plain, rel=1e-5)


# ---- the audit ----------------------------------------------------------------------------------


def share_by_hand(weights, x, at):
    """sum ||padding's part of G_t|| over that and the real part, of a loss that knows nothing of padding."""
    cell, x = "rnn_cell", x.double()
    named = {name: part.double() for name, part in weights.items()}
    W_xh, b_xh, W_hh, b_hh = (
        named[f"{cell}.{linear}.{part}"]
        for linear in ("input_to_hidden", "hidden_to_hidden")
        for part in ("weight", "bias")
    )
    h, outputs = torch.zeros(4, W_hh.shape[0], dtype=torch.float64), []
    clones = [[W_hh.clone().requires_grad_() for _ in range(2)] for _ in range(7)]
    for t, (real, padding) in enumerate(clones):
        is_padding = torch.tensor([[t >= length] for length in LENGTHS])
        product = torch.where(is_padding, h @ padding.T, h @ real.T)
        h = torch.tanh(x[:, t] @ W_xh.T + b_xh + product + b_hh)
        outputs.append(h @ named["hidden_to_output.weight"].T + named["hidden_to_output.bias"])
    y = torch.stack(outputs, 1)
    (y[:, -1:] if at == "last" else y).square().mean().backward()
    real, padding = (sum(float(pair[i].grad.norm()) for pair in clones) for i in range(2))
    return padding / (real + padding)


@pytest.mark.parametrize("at", ["last", "all"])
def test_the_share_on_padding_is_that_of_a_computation_by_hand(at: str, run: Run, tmp_path: Path) -> None:
    ran = run(f"gradnorm --input nan.npy --loss-at {at} --save-weights w.safetensors --json")
    expected = share_by_hand(load_file(tmp_path / "w.safetensors"), torch.from_numpy(np.load("zeros.npy")), at)
    assert document(ran)["scalars"]["padded_share"] == pytest.approx(expected, rel=1e-4)
    assert 0.1 < expected < 1


def stepped_share_by_hand(cell, x, lengths):
    """The same of a cell in a loop: every sequence by itself, with a clone of W_hh for every step."""
    padding, real = torch.zeros(2, len(x), *cell.weight_hh.shape, dtype=torch.float64).unbind(0)
    for b, length in enumerate(lengths):
        hx, clones, outs = None, [], []
        for x_t in x[:, b : b + 1]:
            clones.append(cell.weight_hh.detach().clone().requires_grad_())
            hx = functional_call(cell, {"weight_hh": clones[-1]}, (x_t, hx))
            outs.append(hx[0] if isinstance(hx, tuple) else hx)
        torch.cat(outs).square().sum().backward()
        for t, clone in enumerate(clones):
            (real if t < length else padding)[t] += clone.grad
    padded, kept = (float(part.flatten(1).norm(dim=1).sum()) for part in (padding, real))
    return padded / (padded + kept)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_padding_is_counted_over_any_number_of_calls_of_a_cell(kind: type[nn.Module]) -> None:
    """So many that the calls are taken in several lots; sequences end in each of these."""
    torch.manual_seed(0)
    cell, x, lengths = kind(3, 4, dtype=torch.float64), torch.randn(130, 4, 3, dtype=torch.float64), [130, 20, 70, 110]
    with rnnctl.probe(cell, lengths=torch.tensor(lengths)) as trace:
        hx, outs = None, []
        for x_t in x:
            hx = cell(x_t, hx)
            outs.append(hx[0] if isinstance(hx, tuple) else hx)
        torch.stack(outs).square().sum().backward()
    expected = stepped_share_by_hand(cell, x, lengths)
    assert trace["weight_hh"].padded_share == pytest.approx(expected, rel=1e-9)
    assert 0.1 < expected < 0.9


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_audited_and_the_table_says_what_the_share_is(network: str, run: Run) -> None:
    line = f"gradnorm {network} --input nan.npy"
    found = document(run(f"{line} --json"))
    share = found["scalars"]["padded_share"]
    assert 0 < share < 1
    assert share == max(weight["padded_share"] for weight in found["weights"])
    table = run(line).out
    assert "falls on padding if nothing is packed or masked" in table
    assert f"{100 * share:.1f} %" in table


def test_a_model_that_cannot_do_without_lengths_has_nothing_on_padding(run: Run) -> None:
    assert document(run("gradnorm --model ragged:MustHave --input nan.npy --json"))["scalars"]["padded_share"] == 0


def test_sequences_of_one_length_have_no_audit(run: Run) -> None:
    assert document(run("gradnorm --cell gru --json"))["scalars"]["padded_share"] is None
    assert "padding" not in run("gradnorm --cell gru").out


@pytest.mark.parametrize(("limit", "code"), [("0.1", 3), ("0.999", 0)])
def test_a_script_can_fail_on_the_share(limit: str, code: int, run: Run) -> None:
    assert run(f"gradnorm --cell lstm --input nan.npy --fail-on padded_share>{limit}").code == code


def test_forward_shows_the_packed_steps(run: Run) -> None:
    rows = document(run("forward --cell lstm --input nan.npy --json"))["rows"]
    (module,) = (row for row in rows if row["kind"] == "module")
    assert (module["steps"], module["padded_steps"]) == (sum(LENGTHS), 4 * 7)
    assert "16 (padded 28)" in run("forward --cell lstm --input nan.npy").out
    assert run("forward --input nan.npy").code == 0


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["", "--cell gru", "--model ragged:Packed"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7\n3\n5\n", "must hold one length for each of 4 sequences; got shape (3, 1)"),
        ("7\n3\n5\n0\n", "must hold whole numbers from 1 to the 7 steps of the input; got [7.0, 3.0, 5.0, 0.0]"),
        ("8\n3\n5\n1\n", "must hold whole numbers from 1 to the 7 steps"),
        ("7\n3.5\n5\n1\n", "must hold whole numbers from 1 to the 7 steps"),
        ("7\n3\n5\nnan\n", "finite"),
        ("7\n3\n5\nlong\n", "'long'"),
        ("7\n3\n5\n2\n", "--lengths bad.csv contradicts the nan padding of nan.npy"),
        (None, "there is no file 'bad.csv'"),
    ],
)
def test_lengths_that_do_not_fit_are_exit_2(
    network: str, text: str | None, said: str, run: Run, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "bad.csv").write_text(text)
    ran = run(f"gradnorm {network} --input nan.npy --lengths bad.csv")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_nan_is_padding_only_at_the_end_and_in_every_feature(run: Run, tmp_path: Path) -> None:
    x = np.load(tmp_path / "nan.npy")
    for name, place in (("middle", (0, 2)), ("feature", (1, 6, 3))):
        broken = x.copy()
        broken[place] = np.nan if name == "middle" else 1.0
        np.save(tmp_path / f"{name}.npy", broken)
        ran = run(f"gradnorm --input {name}.npy")
        assert (ran.code, ran.out) == (2, "")
        assert "not finite; the first is nan in sequence" in ran.err
    x[2] = np.nan
    np.save(tmp_path / "empty.npy", x)
    assert "sequence 2 is nan at every step; leave it out" in run("gradnorm --input empty.npy").err


@pytest.mark.parametrize("network", ["", "--cell gru", "--model ragged:Packed"])
@pytest.mark.parametrize("command", ["flow", "truncation", "spectrum", "lyapunov"])
def test_commands_that_take_no_lengths_refuse_padding_and_say_who_takes_it(command, network, run: Run) -> None:
    ran = run(f"{command} {network} --input nan.npy")
    assert (ran.code, ran.out) == (2, "")
    assert "nan in sequence 1, step 3" in ran.err
    assert "Sequences padded with nan are taken by gradnorm and forward" in ran.err
    assert "No such option: --lengths" in run(f"{command} {network} --lengths lengths.csv").err


@pytest.mark.parametrize("command", ["cell", "unroll", "check"])
def test_the_hand_written_networks_other_commands_refuse_padding_too(command: str, run: Run) -> None:
    ran = run(f"{command} --input nan.npy")
    assert (ran.code, ran.out) == (2, "")
    assert "padded with nan" in ran.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--h-init normal --input nan.npy", "--h-init is not for sequences of different lengths"),
        ("--lengths lengths.csv -o lengths.csv --force", "'lengths.csv' is read by this very command"),
        ("--cell gru --lengths lengths.csv -o lengths.csv --force", "'lengths.csv' is read by this very command"),
        ("--input nan.npy --target next", "a sequence of nan.npy has 1"),
    ],
)
def test_what_contradicts_lengths_is_exit_2(line: str, said: str, run: Run) -> None:
    ran = run(f"gradnorm {line}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
