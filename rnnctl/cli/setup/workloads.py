"""From options to what ``bench`` measures, and on what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rnnctl.benchmark import flow_report, probe_report, report
from rnnctl.benchmark.methods import Workload
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.question import TimingOptions
from rnnctl.cli.setup.experiment import Experiment
from rnnctl.cli.setup.prepared import prepared
from rnnctl.cli.setup.request import Request, request_of
from rnnctl.cli.setup.sizes import DEFAULT_SIZES
from rnnctl.errors import InputError


@dataclass(frozen=True)
class Measurement:
    """What is measured.

    Attributes:
        reference: the sizes that have a target, each with it.
        report: takes workloads with their targets, and ``progress``.
        config: what it adds to the recorded configuration.
    """

    reference: Sequence[tuple[Mapping[str, int], Any]]
    report: Callable[..., Any]
    config: Mapping[str, Any]


def measurement(timing: TimingOptions) -> Measurement:
    """What --flow and --probe choose; else gradnorm."""
    repeats = timing.repeats
    if timing.flow:
        return Measurement(flow_report.FLOW_SIZES, partial(flow_report.bench_flow, repeats=repeats), {})
    if timing.probe:
        probed = partial(probe_report.bench_probe, repeats=repeats)
        return Measurement(probe_report.PROBE_SIZES, probed, {"network": "torch's layers"})
    return Measurement(report.REFERENCE_SIZES, partial(report.bench, repeats=repeats, memory=timing.memory), {})


def workloads(measured: Measurement, given: CommandOptions) -> tuple[list[tuple[Workload, Any]], Experiment]:
    """The user's sizes, or the reference sizes with their targets; and the experiment that they are told of."""
    request = request_of(given)
    if _has_sizes(request):
        made = prepared(given)
        return [(_workload(made), None)], replace(made, config={**made.config, **measured.config})
    if request.model.save_weights is not None:
        count = len(measured.reference)
        raise InputError(f"--save-weights takes one network; the reference sizes are {count}. Give sizes of yours")
    experiments = [prepared(_sized(given, request, sizes)) for sizes, _ in measured.reference]
    targets = [target for _, target in measured.reference]
    found = [(_workload(made), target) for made, target in zip(experiments, targets, strict=True)]
    told = {**experiments[-1].config, **dict.fromkeys(DEFAULT_SIZES), **measured.config}
    return found, replace(experiments[-1], config=told)


def _workload(made: Experiment) -> Workload:
    network, h_init = made.hand_written
    return Workload(network, made.x, h_init, made.config["loss_at"])


def _sized(given: CommandOptions, request: Request, sizes: Mapping[str, int]) -> CommandOptions:
    model = replace(request.model, input_size=sizes["input_size"], hidden_size=sizes["hidden_size"])
    data = replace(request.data, seq_len=sizes["seq_len"], batch_size=sizes["batch_size"])
    return given.having(model, data)


def _has_sizes(request: Request) -> bool:
    model, data = request.model, request.data
    flags = [getattr(model, name, None) or getattr(data, name, None) for name in DEFAULT_SIZES]
    return any(flags) or data.input is not None or model.weights is not None
