"""What float32 and float64 say of one network: the same, to what float32 holds."""

import copy

import pytest
import torch

import rnnctl
from rnnctl import FullRNN
from rnnctl.gradients.decay import first_at_one_percent

# ---- where 1 % is reached -----------------------------------------------------------------------


def chain(factor, dtype, nonlinearity):
    """One unit whose gradient changes by one factor at every step back."""
    model = FullRNN(1, 1, 1, nonlinearity=nonlinearity, dtype=dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1)
        model.rnn_cell.hidden_to_hidden.weight.fill_(factor)
    return model


def both_lags(model, x):
    """At the last step alone, and the median over all loss steps."""
    return (
        rnnctl.gradnorm(model, x).scalars["steps_to_one_percent"],
        rnnctl.flow(model, x).scalars["lag_to_one_percent"],
    )


@pytest.mark.parametrize("nonlinearity", ["relu", "linear"])
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 6, 7, 9, 10])
def test_a_factor_whose_power_is_one_percent_reaches_it_at_that_lag(lag, nonlinearity):
    x = torch.ones(2, 14, 1, dtype=torch.float64)
    assert both_lags(chain(0.01 ** (1 / lag), torch.float64, nonlinearity), x) == (lag, lag)


@pytest.mark.parametrize("factor", [0.1, 10**-0.5, 10 ** (-2 / 3), 0.01 ** (1 / 7), 0.3, 0.9])
@pytest.mark.parametrize("nonlinearity", ["relu", "linear"])
def test_in_float32_it_is_the_lag_of_the_factor_that_float32_has(factor, nonlinearity):
    own = float(torch.tensor(factor, dtype=torch.float32))
    lag = next(lag for lag in range(60) if own**lag <= 0.01 + 1e-9)
    model, x = chain(factor, torch.float32, nonlinearity), torch.ones(2, 60, 1)
    assert both_lags(model, x) == (lag, lag)
    assert both_lags(copy.deepcopy(model).double(), x.double()) == (lag, lag)
    # What float32 has for 0.1 is more than that, by less than can be meant.
    assert factor != 0.1 or lag == 2


def test_what_is_above_one_percent_by_more_than_rounding_is_above_it():
    ratios = torch.tensor([1.0, 0.010000002, torch.nan, 0.0100000005, 0.0], dtype=torch.float64)
    assert first_at_one_percent(ratios) == 3
    assert first_at_one_percent(ratios[:3]) is None
    assert first_at_one_percent(ratios[4:]) == 0
