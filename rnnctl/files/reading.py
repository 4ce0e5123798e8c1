"""Bytes from a path, and tensors from the containers that hold named ones."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rnnctl.errors import InputError


def read_bytes(path: Path) -> bytes:
    """The whole file; InputError, naming it, where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def load_pt(data: bytes, source: str) -> Any:
    """What torch.save wrote, tensors and plain containers only: no code of the file is run."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{source} holds more than tensors (a whole pickled model?), and loading that would run code "
            "from the file. Save a state dict or a tensor: torch.save(model.state_dict(), ...)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise InputError(f"{source} is not a readable .pt file: {_first_line(error)}") from None


def load_safetensors(data: bytes, source: str) -> Mapping[str, Tensor]:
    """The named tensors of a .safetensors file."""
    try:
        tensors: Mapping[str, Tensor] = safetensors.torch.load(data)
        return tensors
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{source} is not a readable .safetensors file: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
