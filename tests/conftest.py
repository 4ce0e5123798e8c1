"""Shapes in the signatures of the inner rooms are checked at run time, in the tests only."""

import gc
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from shell import commands

install_import_hook(["rnnctl.recurrence", "rnnctl.dynamics", "rnnctl.gradients.decay"], "beartype.beartype")


# The gate tries the same examples every time; elsewhere every run tries new ones.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")


def pytest_collection_finish() -> None:
    """The modules and thousands of tests that are there from now on are no garbage: each look at them takes long."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _made_once() -> Iterator[None]:
    """What every command line would make anew, and what takes longer than most of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        # Typer builds all commands for each line.
        patch.setattr("rnnctl.cli.app.app", commands())
        # What a large product takes is measured beside every benchmark.
        patch.setattr("rnnctl.benchmark.timing.GEMM_SIZE", 64)
        # For each kind of accelerator that is not there yet torch keeps the seed, with a formatted stack.
        if not torch.accelerator.is_available():
            patch.setattr(torch, "manual_seed", torch.default_generator.manual_seed)
        yield


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Two workers share two cores."""
    torch.set_num_threads(1)
