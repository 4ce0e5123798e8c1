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
    mean, std = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    # A constant leaves a deviation of rounding size, not always of exactly 0.
    constant = std <= 1e-12 * np.abs(values).max(axis=(0, 1))
    scaled = np.where(constant, 0.0, (values - mean) / np.where(constant, 1.0, std))
    names = tuple(name for name, flat in zip(found.features, constant, strict=True) if flat)
    return replace(found, values=scaled), names


def split_next(found: Sequences) -> tuple[Sequences, NDArray[Any]]:
    """Inputs x_0 .. x_{T-2} and targets x_1 .. x_{T-1}: predict the next step."""
    seq_len = found.values.shape[1]
    if seq_len < 2:
        raise ShapeError(f"predicting the next step needs at least 2 steps; {found.source} has {seq_len}")
    return replace(found, values=found.values[:, :-1]), found.values[:, 1:]


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
        if not np.equal(np.mod(array, 1), 0).all():
            raise InputError(f"cross-entropy takes integer targets (class numbers); {source} has fractions")
        array = array.astype(np.int64)
        if array.shape == (seq_len, 1) and batch == 1:
            array = array[:, 0]
    elif array.ndim == 1 and batch == 1:
        array = array[:, None]
    axes = 2 if classes else 3
    if batch == 1 and array.ndim == axes - 1 and array.shape[0] == seq_len:
        array = array[None]
    return array
