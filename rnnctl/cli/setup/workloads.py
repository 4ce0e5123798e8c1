"""From options to the networks that ``bench`` measures."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rnnctl.benchmark.methods import Workload
from rnnctl.benchmark.report import Cases
from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.setup.experiment import Experiment
from rnnctl.cli.setup.prepared import prepared
from rnnctl.cli.setup.request import DEFAULT_SIZES, Request, request_of
from rnnctl.errors import InputError


def workloads(cases: Cases, given: CommandOptions) -> tuple[list[tuple[Workload, Any]], Experiment]:
    """The user's sizes, or the reference sizes with their targets; and the experiment that they are told of."""
    request = request_of(given)
    if _has_sizes(request):
        made = prepared(given)
        return [(_workload(made), None)], replace(made, config={**made.config, **cases.config})
    if request.model.save_weights is not None:
        count = len(cases.sizes)
        raise InputError(f"--save-weights takes one network; the reference sizes are {count}. Give sizes of yours")
    experiments = [prepared(_sized(given, request, sizes)) for sizes, _ in cases.sizes]
    targets = [target for _, target in cases.sizes]
    found = [(_workload(made), target) for made, target in zip(experiments, targets, strict=True)]
    told = {**experiments[-1].config, **dict.fromkeys(DEFAULT_SIZES), **cases.config}
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
