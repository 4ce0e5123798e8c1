"""From arrays as they were found to the numbers that a network is fed."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnctl.errors import InputError, ShapeError
from rnnctl.files.arrays import Sequences


def standardized(found: Sequences) -> tuple[Sequences, tuple[str, ...]]:
    """Every feature minus its mean, over its standard deviation (both over batch and time).

    Returns:
        The sequences in float64, and the names of constant features, which become 0.
    """
    values = found.values.astype(np.float64)
    if found.lengths is not None:
        return _standardized_where_real(found, values, found.lengths)
    constant = values.min(axis=(0, 1)) == values.max(axis=(0, 1))
    # A power of two, exact: squares of 1e300 and of 1e-300 stay numbers.
    _, exponent = np.frexp(np.abs(values).max(axis=(0, 1)))
    values = np.ldexp(values, -exponent)
    mean, std = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    scaled = np.where(constant, 0.0, (values - mean) / np.where(constant, 1.0, std))
    names = tuple(name for name, flat in zip(found.features, constant, strict=True) if flat)
    return replace(found, values=scaled), names


def _standardized_where_real(
    found: Sequences, values: NDArray[Any], lengths: NDArray[np.int64]
) -> tuple[Sequences, tuple[str, ...]]:
    """The same over the real steps alone; padding stays 0."""
    real = np.arange(values.shape[1]) < lengths[:, None]
    steps, constant = standardized(replace(found, values=values[real][None], lengths=None))
    scaled = np.zeros_like(values)
    scaled[real] = steps.values[0]
    return replace(found, values=scaled), constant


def split_next(found: Sequences) -> tuple[Sequences, NDArray[Any]]:
    """Inputs x_0 .. x_{T-2} and targets x_1 .. x_{T-1}: predict the next step."""
    seq_len = found.values.shape[1]
    if seq_len < 2:
        raise ShapeError(f"predicting the next step needs at least 2 steps; {found.source} has {found.left}")
    lengths = found.lengths
    if lengths is not None and lengths.min() < 2:
        raise ShapeError(f"predicting the next step needs at least 2 steps; a sequence of {found.source} has 1")
    shorter = None if lengths is None else lengths - 1
    return replace(found, values=found.values[:, :-1], lengths=shorter), found.values[:, 1:]


def fitted_target(array: NDArray[Any], batch: int, seq_len: int, *, classes: bool, source: str) -> NDArray[Any]:
    """A target with its batch axis, and as integers where classes are wanted.

    Args:
        array: as read, with or without a batch axis of 1.
        batch, seq_len: of the inputs.
        classes: whether these are class numbers (batch, time) rather than values
            (batch, time, output).
        source: for messages.
    """
    if classes:
        array = _class_numbers(array, source)
        if array.shape == (seq_len, 1) and batch == 1:
            array = array[:, 0]
    elif array.ndim == 1 and batch == 1:
        array = array[:, None]
    axes = 2 if classes else 3
    if batch == 1 and array.ndim == axes - 1 and array.shape[0] == seq_len:
        array = array[None]
    return array


def _class_numbers(array: NDArray[Any], source: str) -> NDArray[np.int64]:
    numbers = array.astype(np.float64)
    if (numbers != np.trunc(numbers)).any():
        raise InputError(f"cross-entropy takes integer targets (class numbers); {source} has fractions")
    if np.abs(numbers).max() >= 2**62:
        raise InputError(f"cross-entropy takes class numbers; {source} has one of {np.abs(numbers).max():g}")
    return array.astype(np.int64)
