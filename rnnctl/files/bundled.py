"""The sequences that come with rnnctl, as tensors."""

import torch
from torch import Tensor

from rnnctl.data import TIME_COLUMNS, bundled_csv
from rnnctl.errors import InputError, did_you_mean
from rnnctl.files.arrays import Sequences
from rnnctl.files.preparing import standardized
from rnnctl.files.table import parse_csv


def bundled_sequence(name: str, *, standardize: bool = False) -> Tensor:
    """A real sequence to try things on: "sunspots" or "macrodata".

    Args:
        name: a key of ``rnnctl.data.TIME_COLUMNS``, where their sources are named.
        standardize: every feature with mean 0 and standard deviation 1.
    Returns:
        shape (1, time, feature), torch's default dtype; the columns that tell the time are left out.
    Raises:
        InputError: no such sequence.
    """
    if name not in TIME_COLUMNS:
        known = " and ".join(TIME_COLUMNS)
        raise InputError(f"the bundled sequences are {known}; got {name!r}.{did_you_mean(str(name), TIME_COLUMNS)}")
    table = parse_csv(bundled_csv(name), name, (), TIME_COLUMNS[name])
    found = Sequences(table.values[None], table.names, name)
    if standardize:
        found, _ = standardized(found)
    return torch.tensor(found.values, dtype=torch.get_default_dtype())
