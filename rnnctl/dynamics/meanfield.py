"""Mean-field theory of wide random networks: what the variance of W_hh predicts."""

import math
from dataclasses import dataclass

from rnnctl.recurrence.critical_gain import BISECTIONS, mean_slope, normal_mean
from rnnctl.recurrence.nonlinearities import NONLINEARITIES

# Standard deviation of an entry of W_hh times sqrt(hidden), at gain 1.
IID_SCALES = {"default": 1 / math.sqrt(3), "gaussian": 1.0}


@dataclass(frozen=True)
class MeanField:
    """The prediction.

    Attributes:
        q: variance of a_t in the steady state; None where it grows for ever.
        chi: mean squared factor of a perturbation per step.
        note: what it rests on, or why there is none.
    """

    q: float | None
    chi: float | None
    note: str

    @property
    def exponent(self) -> float | None:
        """0.5 ln chi, nats per step; None where there is no prediction."""
        if self.chi is None:
            return None
        return 0.5 * math.log(self.chi) if self.chi > 0 else -math.inf

    @property
    def factor_per_step(self) -> float | None:
        """sqrt(chi)."""
        return None if self.chi is None else math.sqrt(self.chi)


def iid_sigma_w(init: str | None, gain: float) -> float | None:
    """sqrt(hidden) times the standard deviation of W_hh's entries; None where they are not iid.

    Args:
        init: as for ``initialize_W_hh``; None for weights that were loaded or trained.
        gain: factor on W_hh as drawn.
    """
    return None if init not in IID_SCALES else abs(gain) * IID_SCALES[init]


def prediction(init: str | None, gain: float, source_variance: float, nonlinearity: str) -> MeanField:
    """Theory for this way of drawing W_hh, or the reason why there is none.

    Args:
        init, gain: as for ``iid_sigma_w``.
        source_variance: mean square of W_xh x_t + b_xh + b_hh.
        nonlinearity: name of f_h.
    """
    sigma = iid_sigma_w(init, gain)
    if sigma is None:
        return not_independent(init)
    return mean_field(sigma, source_variance, nonlinearity)


def not_independent(init: str | None) -> MeanField:
    """Why there is no theory of a W_hh from this way to draw it, which has no ``iid_sigma_w``."""
    what = "loaded or trained weights are" if init is None else f"an {init} W_hh is"
    return MeanField(None, None, f"{what} not independent random numbers")


def mean_field(sigma_w: float, source_variance: float = 0.0, nonlinearity: str = "tanh") -> MeanField:
    """Steady state of a wide network whose W_hh has independent entries of variance sigma_w^2 / hidden.

    q* = sigma_w^2 E[f(sqrt(q*) z)^2] + source_variance;  chi = sigma_w^2 E[f'(sqrt(q*) z)^2].

    Args:
        sigma_w: sqrt(hidden) times the standard deviation of W_hh's entries.
        source_variance: mean square of W_xh x_t + b_xh + b_hh, what does not come from h_{t-1}.
        nonlinearity: name of f_h.
    Returns:
        A frozen ``MeanField``.
    Source: Sompolinsky, Crisanti & Sommers 1988; Poole et al. 2016, arXiv:1606.05340; Schoenholz et
        al. 2017, arXiv:1611.01232; Chen, Pennington & Schoenholz 2018, arXiv:1806.05394.
    """
    variance = sigma_w * sigma_w
    if not math.isfinite(variance + source_variance):
        return MeanField(None, None, "the variances leave float64")
    note = f"independent entries of standard deviation {sigma_w:.4g} / sqrt(hidden)"
    f = NONLINEARITIES[nonlinearity]
    if f.homogeneous_share is not None:
        # Of relu E[f^2] = q/2 and E[f'^2] = 1/2, whatever q is.
        chi = variance * f.homogeneous_share
        return MeanField(source_variance / (1 - chi) if chi < 1 else None, chi, note)
    q = _fixed_point(variance, source_variance)
    return MeanField(q, variance * mean_slope(q), note)


def _fixed_point(variance: float, source: float) -> float:
    """The stable q >= 0 of q = variance E[tanh^2(sqrt(q) z)] + source."""

    def excess(q: float) -> float:
        return variance * (1 - normal_mean(lambda u: math.cosh(u) ** -2, q)) + source - q

    if source == 0 and variance <= 1:
        return 0.0
    # tanh^2(u) >= u^2 - 2/3 u^4, so that the excess is positive at this q where source is 0.
    low, high = max(source, (variance - 1) / (8 * variance) if variance > 1 else 0.0), variance + source
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2
