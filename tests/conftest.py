"""Shapes in the signatures of the inner rooms are checked at run time, in the tests only."""

import os

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(["rnnctl.recurrence", "rnnctl.dynamics", "rnnctl.gradients.decay"], "beartype.beartype")


# The gate tries the same examples every time; elsewhere every run tries new ones.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Two workers share two cores."""
    torch.set_num_threads(1)
