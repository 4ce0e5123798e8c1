"""What the benchmark measures; no test asserts a time."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rnnctl
from rnnctl import FullRNN, InputError, bench, bench_flow
from rnnctl.benchmark import flow, machine
from rnnctl.benchmark.flow import FLOW_SIZES, Targets, gradients_by_pass
from rnnctl.benchmark.gradnorm import LIMIT, REFERENCE_SIZES
from rnnctl.benchmark.methods import METHODS, REFERENCE, SWEEP, Workload, sweep_multiply_adds, torch_twin
from rnnctl.benchmark.peak import peak_bytes
from rnnctl.benchmark.timing import gemm_rate, medians
from rnnctl.models.torch_layers import LayeredRNN


def workload(T=6, loss_at="last"):
    torch.manual_seed(0)
    model, x = FullRNN(3, 4, 2), torch.randn(2, T, 3)
    return Workload(model, x, model.initial_state(x), loss_at)


@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_every_ordinary_step_computes_the_same_gradient(loss_at):
    """Otherwise their times could not be compared."""
    work, found = workload(loss_at=loss_at), {}
    for name in (REFERENCE, "guide's loop", "retain_grad"):
        run = METHODS[name](work)
        work.model.zero_grad()
        run()
        found[name] = work.model.hidden_to_output.weight.grad.clone()
    torch.testing.assert_close(found["guide's loop"], found["retain_grad"])
    if loss_at == "all":
        assert found[REFERENCE].abs().sum() > 0


def test_rows_have_every_method_with_its_ratio_and_the_limit():
    report = bench([(workload(), 0.5)], repeats=2, memory=False)
    assert [row["method"] for row in report.rows] == [*METHODS, LIMIT]
    reference = report.rows[0]
    assert reference["ratio"] == 1
    for row in report.rows:
        assert row["ratio"] == pytest.approx(row["milliseconds"] / reference["milliseconds"])
    assert [row["target"] for row in report.rows if row["method"] == SWEEP] == [0.5]
    sweep = next(row for row in report.rows if row["method"] == SWEEP)
    assert report.scalars["sweep_ratio"] == sweep["ratio"]
    assert report.scalars["targets_met"] == (sweep["ratio"] <= 0.5)
    assert report.scalars["threads"] == torch.get_num_threads()
    assert report.scalars["gemm_gigaflops"] > 0


def test_without_targets_none_is_met_or_missed():
    assert bench([(workload(), None)], repeats=1, memory=False).scalars["targets_met"] is None


def test_the_limit_counts_forward_reverse_and_sum():
    assert sweep_multiply_adds(workload(T=6)) == 6 * 2 * 4 * (3 + 4) + 2 * (6 * 2 * 4 * 4)


def test_runs_are_interleaved_after_one_warm_up():
    order = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    assert set(medians(runs, 2, torch.device("cpu"))) == {"a", "b"}
    assert order == ["a", "b"] * 3


def test_the_rate_is_positive_and_finite():
    assert 0 < gemm_rate(torch.zeros(1)) < 1e15


@pytest.mark.slow
def test_peak_memory_grows_with_what_the_method_keeps():
    model = FullRNN(3, 128, 2)
    x = torch.randn(8, 400, 3)
    work = Workload(model, x, model.initial_state(x))
    peaks = {name: peak_bytes(name, work) for name in (SWEEP, "T clones")}
    assert peaks["T clones"] > 400 * 128 * 128 * 4
    assert 0 < peaks[SWEEP] < peaks["T clones"]


def test_the_reference_sizes_are_the_projects_targets():
    assert [target for _, target in REFERENCE_SIZES] == [0.65, 0.32, 0.97, 0.33]


def test_nothing_to_measure_is_refused():
    with pytest.raises(InputError, match="needs a workload and at least 1 repeat; got 1 and 0"):
        bench([(workload(), None)], repeats=0)


def test_flow_is_measured_against_passes_that_give_the_same_norms():
    from rnnctl.benchmark.flow import FLOW, PASSES, bench_flow

    report = bench_flow([(workload(), None), (workload(), (1e9, None)), (workload(), (None, 0.0))], repeats=1)
    assert [row["method"] for row in report.rows] == [PASSES, FLOW, PASSES, FLOW, FLOW]
    times = [row["milliseconds"] for row in report.rows]
    assert report.rows[1]["speedup"] == pytest.approx(times[0] / times[1])
    assert report.rows[4]["speedup"] is None
    assert report.rows[4]["gemm_share"] > 0
    assert report.scalars["targets_met"] is False


def test_probed_steps_are_measured_against_plain_ones():
    from rnnctl.benchmark.probe import PLAIN, PROBED, bench_probe
    from rnnctl.models.torch_layers import LAYERS

    seen = []
    found = bench_probe([(workload(), None), (workload(), {"gru": 1e9})], repeats=2, progress=seen.append)
    assert seen == [0.5, 1.0]
    cells = [cell for cell in (*LAYERS, "gru") for _ in range(2)]
    assert [row["cell"] for row in found.rows] == cells
    assert [row["method"] for row in found.rows] == [PLAIN, PROBED] * (len(cells) // 2)
    assert {row["case"] for row in found.rows} == {"T 6, B 2, H 4, I 3"}
    for plain, probed in zip(found.rows[::2], found.rows[1::2], strict=True):
        assert (plain["ratio"], plain["target"]) == (1, None)
        assert probed["ratio"] == pytest.approx(probed["milliseconds"] / plain["milliseconds"])
    assert found.scalars["probe_ratio"] == max(row["ratio"] for row in found.rows[1::2])
    assert found.scalars["targets_met"] is True
    assert found.scalars["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(("targets", "met"), [(None, None), ({"rnn": 1e9}, True), ({"rnn": 1e9, "lstm": 0.0}, False)])
def test_a_probed_step_meets_its_targets_or_not(targets, met):
    from rnnctl.benchmark.probe import bench_probe

    assert bench_probe([(workload(loss_at="all"), targets)], repeats=1).scalars["targets_met"] is met


def test_no_probed_step_to_measure_is_refused():
    from rnnctl.benchmark.probe import bench_probe

    with pytest.raises(InputError, match="needs a workload and at least 1 repeat; got 0 and 1"):
        bench_probe([], repeats=1)


def test_the_sizes_of_the_probe_are_the_projects_targets():
    from rnnctl.benchmark.probe import PROBE_SIZES

    assert [targets for _, targets in PROBE_SIZES] == [
        {"rnn": 1.20, "gru": 1.30, "lstm": 1.95},
        {"rnn": 1.25},
        {"rnn": 1.35, "lstm": 2.5},
        {"raw": 1.4},
        {"raw": 1.8},
        {"concat-lstm": 1.3},
    ]


@pytest.mark.parametrize("cell", ["raw", "concat-lstm"])
def test_a_probed_step_of_a_hand_written_cell_is_measured_too(cell):
    from rnnctl.benchmark.probe import bench_probe

    found = bench_probe([(workload(), {cell: 1e9})], repeats=1)
    assert [row["cell"] for row in found.rows] == [cell, cell]
    assert found.scalars["targets_met"] is True


def test_no_flow_to_measure_is_refused():
    from rnnctl.benchmark.flow import bench_flow

    with pytest.raises(InputError, match="needs a workload and at least 1 repeat; got 0 and 1"):
        bench_flow([], repeats=1)


def test_the_three_sets_of_cases_share_one_report_and_keep_their_scalars():
    reports = [
        bench([(workload(), None)], repeats=1, memory=False),
        rnnctl.bench_flow([(workload(), None)], repeats=1),
        rnnctl.bench_probe([(workload(), None)], repeats=1),
    ]
    assert {type(each) for each in reports} == {rnnctl.BenchReport}
    assert rnnctl.FlowBenchReport is rnnctl.ProbeBenchReport is rnnctl.BenchReport
    rate = ["threads", "repeats", "gemm_gigaflops"]
    assert {each.schema: list(each.scalars) for each in reports} == {
        "bench": [*rate, "sweep_ratio", "targets_met"],
        "bench-flow": [*rate, "targets_met"],
        "bench-probe": ["threads", "repeats", "probe_ratio", "targets_met"],
    }
    target = ["ratio", "target"]
    figures = {each.schema: list(each.rows[0]) for each in reports}
    assert figures == {
        "bench": ["case", "method", "milliseconds", *target, "peak_mebibytes"],
        "bench-flow": [
            "case",
            "method",
            "milliseconds",
            "speedup",
            "speedup_target",
            "gemm_share",
            "gemm_share_target",
        ],
        "bench-probe": ["case", "cell", "method", "milliseconds", *target],
    }


def exact_workload(nonlinearity: str = "tanh", bias: bool = True) -> Workload:
    torch.manual_seed(0)
    model = FullRNN(3, 4, 2, nonlinearity=nonlinearity, bias=bias)
    return Workload(model.double(), torch.randn(2, 6, 3).double(), torch.randn(2, 4).double(), "all")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_twin_in_torch_has_the_same_states(nonlinearity: str, bias: bool) -> None:
    work = exact_workload(nonlinearity, bias)
    h, _ = torch_twin(work)(work.x, work.h_init[None])
    torch.testing.assert_close(work.model.readout(h), work.model(work.x, work.h_init))


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_both_sides_of_flow_measure_the_same_gradient(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work, given, found = exact_workload(), [], []
    monkeypatch.setattr(flow, "gradients_by_pass", lambda *of: given.append(of) or iter(()))
    ours = flow.flow
    monkeypatch.setattr(flow, "flow", lambda *of, **how: found.append(ours(*of, **how)))
    bench_flow([(work, Targets(1.0, None, cell))], repeats=1)
    by_pass = list(gradients_by_pass(*given[0]))
    assert len(by_pass) == 6
    total = found[0].grad_W_hh
    torch.testing.assert_close(sum(by_pass), total, rtol=1e-10, atol=1e-14)
    assert total.shape == by_pass[0].shape


@pytest.mark.parametrize(("cell", "layer"), [("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_a_pass_gives_the_gradient_of_its_own_step_alone(cell: str, layer: Any) -> None:
    """Against a sequence that ends there: what comes later is nothing to it."""
    torch.manual_seed(1)
    model = LayeredRNN(cell, 3, 4, 2).double()
    x = torch.randn(2, 5, 3).double()
    assert type(model.rnn) is layer
    for k, found in enumerate(gradients_by_pass(model.rnn.weight_hh_l0, model(x))):
        model.zero_grad()
        # The mean over batch, time and outputs of all five steps.
        (model(x[:, : k + 1])[:, -1] ** 2).sum().div(2 * 5 * 2).backward()
        torch.testing.assert_close(found, model.rnn.weight_hh_l0.grad)


def test_the_sizes_of_flow_are_the_projects_targets() -> None:
    sizes = [
        tuple(each[name] for name in ("seq_len", "batch_size", "hidden_size", "input_size")) for each, _ in FLOW_SIZES
    ]
    assert sizes == [(256, 4, 128, 10), (512, 8, 256, 10), (200, 4, 64, 10), (200, 4, 64, 10)]
    aims = [tuple(targets) for _, targets in FLOW_SIZES]
    assert aims == [(70.0, None, "rnn"), (None, 0.40, "rnn"), (2.5, None, "lstm"), (15.0, None, "gru")]


def test_the_processor_has_the_name_that_linux_gives_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel\t\t: 7\nmodel name\t: Abacus: 3\nflags : x\nmodel name\t: B\n"
    )
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.processor_name() == "Abacus: 3"


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [("processor : 0\n", ("Beads", "b64"), "Beads"), (None, ("", "b64"), "b64"), (None, ("", ""), None)],
)
def test_elsewhere_it_is_python_that_names_the_processor(
    text: str | None, names: tuple[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    for function, name in zip(("processor", "machine"), names, strict=True):
        monkeypatch.setattr(f"platform.{function}", lambda name=name: name)
    assert machine.processor_name() == expected


def test_the_load_is_the_first_average_and_unknown_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.25, 7.0, 8.0))
    assert machine.system_load() == 0.25
    monkeypatch.setattr(os, "getloadavg", lambda: (_ for _ in ()).throw(OSError("hidden")))
    assert machine.system_load() is None
    monkeypatch.delattr(os, "getloadavg")
    assert machine.system_load() is None
