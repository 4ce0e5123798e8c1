"""Which loss, and at which steps."""

import pytest
import torch
from oracles import loss_by_hand

from rnnctl.errors import DeviceError
from rnnctl.losses import attached_target, loss_steps, sequence_loss


@pytest.mark.parametrize("loss", ["mse", "cross-entropy", "sum"])
@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_losses_are_torchs_over_the_steps_that_carry_one(loss, loss_at):
    y = torch.randn(3, 5, 4)
    target = {"mse": torch.randn(3, 5, 4), "cross-entropy": torch.randint(0, 4, (3, 5)), "sum": None}[loss]
    attached = y[:, 5 - loss_steps(5, loss_at) :]
    found = sequence_loss(attached, attached_target(target, attached, loss, 5), loss)
    torch.testing.assert_close(found, loss_by_hand(y, target, loss, loss_at))


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_no_target_means_zeros(loss):
    y = torch.randn(3, 5, 4)
    found = sequence_loss(y, attached_target(None, y, loss, 5), loss)
    torch.testing.assert_close(found, loss_by_hand(y, None, loss, "all"))


def test_a_target_elsewhere_is_refused():
    with pytest.raises(DeviceError, match="target must be on the model's device cpu; got meta"):
        attached_target(torch.zeros(3, 5, 4, device="meta"), torch.zeros(3, 1, 4), "mse", 5)
