"""From options to what ``bench`` runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rnnctl.benchmark.methods import Workload
from rnnctl.cli.options.data import DataOptions
from rnnctl.cli.options.loss import LossStepOptions
from rnnctl.cli.options.model import ModelOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.run import RunOptions
from rnnctl.cli.setup.experiment import build
from rnnctl.cli.setup.sizes import DEFAULT_SIZES
from rnnctl.errors import InputError

Target = TypeVar("Target")


def workloads(
    reference: Sequence[tuple[Mapping[str, int], Target]],
    model: ModelOptions,
    data: DataOptions,
    at: LossStepOptions,
    run: RunOptions,
    out: OutputOptions,
) -> tuple[list[tuple[Workload, Target | None]], Mapping[str, Any]]:
    """The user's sizes, or the reference sizes with their targets; and the configuration."""
    if _has_sizes(model, data):
        made = build(model, data, run, out, loss_at=at.loss_at)
        return [(Workload(made.model, made.x, made.h_init, at.loss_at), None)], made.config
    if model.save_weights is not None:
        raise InputError(
            f"--save-weights takes one network; the reference sizes are {len(reference)}. Give sizes of yours"
        )
    found: list[tuple[Workload, Target | None]] = []
    for sizes, target in reference:
        sized_model = replace(model, input_size=sizes["input_size"], hidden_size=sizes["hidden_size"])
        sized_data = replace(data, seq_len=sizes["seq_len"], batch_size=sizes["batch_size"])
        made = build(sized_model, sized_data, run, out, loss_at=at.loss_at)
        found.append((Workload(made.model, made.x, made.h_init, at.loss_at), target))
    return found, {**made.config, **dict.fromkeys(DEFAULT_SIZES)}


def _has_sizes(model: ModelOptions, data: DataOptions) -> bool:
    flags = [getattr(model, name, None) or getattr(data, name, None) for name in DEFAULT_SIZES]
    return any(flags) or data.input is not None or model.weights is not None
