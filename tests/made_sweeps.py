"""Sweeps made by hand, without a run."""

from itertools import product

from rnnctl.sweeps.result import GridPoint, Sweep


def sweep(axes, value_at, *, value="largest", theory=lambda at: None, spread=(0.0,), points=None):
    """A sweep over these axes; value_at says the value at a point, "failed", or None for undefined."""
    made, failures = [], []
    for combination in product(*axes.values()) if points is None else points:
        at = dict(zip(axes, combination, strict=True))
        found = value_at(at)
        failed = len(spread) if found == "failed" else 0
        values = () if failed or found is None else tuple(found + each for each in spread)
        made.append(GridPoint(at, {value: values}, len(spread), failed, theory(at)))
        failures += [{**at, "seed": seed, "error": f"no {at} is\n  possible"} for seed in range(failed)]
    return Sweep("lyapunov", value, tuple(axes), tuple(made), tuple(failures))
