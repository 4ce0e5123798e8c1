"""Shapes in the signatures of the inner rooms are checked at run time, in the tests only."""

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["rnnctl.recurrence", "rnnctl.dynamics", "rnnctl.gradients.decay"], "beartype.beartype")


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Two workers share two cores."""
    torch.set_num_threads(1)
