"""What kind of file bytes are; arrays and tensors from the binary ones. No code of a file is run."""

import codecs
import io
import math
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnctl.errors import DtypeError, InputError, did_you_mean, plain
from rnnctl.files.reading import parsing
from rnnctl.files.storage import oversized_in_pt, oversized_in_safetensors
from rnnctl.memory import require_memory

ZIP, NUMPY, PICKLE = b"PK", b"\x93NUMPY", b"\x80"
# The format's own limit; eight letters of a text, read as a number, are far above it.
LONGEST_SAFETENSORS_HEADER = 100_000_000
# What a file may be that is none of these, by its first bytes.
OTHER_STARTS = {
    b"\x1f\x8b": "it is compressed by gzip; gunzip unpacks it",
    b"\x89HDF": "it is an HDF5 file, as Keras writes",
    ZIP: "it is a zip archive of other things; unzip unpacks it (a spreadsheet: save it as CSV)",
    b"BZh": "it is compressed by bzip2; bunzip2 unpacks it",
    b"\xfd7zXZ": "it is compressed by xz; unxz unpacks it",
}
# Enough to see a control character in what is no text.
HEAD = 4096


def kind_of(data: bytes) -> str | None:
    """The kind of a file by its content, whatever it is called.

    Args:
        data: all of it; the table of a zip archive stands at its end.
    Returns:
        "npy", "npz", "pt" (torch's zip archive, or a pickle as older versions wrote), "safetensors", "csv" for any
        text (UTF-8, or UTF-16 with its byte-order mark); None where it is none of these, or a broken archive.
    """
    if data.startswith(NUMPY):
        return "npy"
    if data.startswith(ZIP + b"\x03\x04"):
        return _kind_of_zip(data)
    # After its opcode comes the number of the protocol.
    if data.startswith(PICKLE) and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pt"
    # Before text: a header of 65,279 bytes begins like the byte-order mark of UTF-16.
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= LONGEST_SAFETENSORS_HEADER:
        return "safetensors"
    return "csv" if _is_text(data[:HEAD]) else None


def other_kind(data: bytes) -> str:
    """What a file is of which ``kind_of`` knows nothing, in words."""
    known = next((words for start, words in OTHER_STARTS.items() if data.startswith(start)), None)
    if known is None and data and all(byte >= 32 or byte in b"\t\n\r\f" for byte in data[:HEAD]):
        known = "it is text in another encoding than UTF-8 (Windows-1252?); save it as UTF-8"
    return known or f"it begins with {data[:8]!r}"


def is_broken_zip(data: bytes) -> bool:
    """Whether it begins like a zip archive and has no table of one."""
    return data.startswith(ZIP) and _names_in_zip(data) is None


def _names_in_zip(data: bytes) -> list[str] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.namelist()
    # zipfile raises whatever its broken bytes lead to.
    except Exception:
        return None


def _kind_of_zip(data: bytes) -> str | None:
    names = _names_in_zip(data) or ()
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "pt"
    return "npz" if any(name.endswith(".npy") for name in names) else None


def _is_text(head: bytes) -> bool:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    try:
        # Not to the last byte: a letter may go on after it.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(head) and all(letter >= " " or letter.isspace() for letter in text)


def load_pt(data: bytes, source: str) -> Any:
    """What torch.save wrote, tensors and plain containers only."""
    _require_start(data, (ZIP, PICKLE), source, "pt")
    with parsing(source, "pt"):
        if data.startswith(ZIP):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                require_memory(sum(info.file_size for info in archive.infolist()), f"{source}, unpacked,")
                _require_names_once(archive)
                _require_undamaged(archive)
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # What it says of an opcode that protocol 2 does not have.
            if "Unsupported operand" in str(error):
                raise InputError(
                    f"{source} was pickled by a protocol that is not read without running code. "
                    "Save it by torch.save's own: without pickle_protocol=..."
                ) from None
            found = re.search(r"GLOBAL (\S+)", str(error))
            what = f" ({found[1]})" if found else " (a whole pickled model?)"
            raise InputError(
                f"{source} holds more than tensors{what}, and loading that could run code from the file. "
                "Save a state dict or a tensor, torch.save(model.state_dict(), ...); what goes with it into a "
                "checkpoint must be plain numbers, texts, lists and dicts, as vars(args) is"
            ) from None
        except RuntimeError as error:
            if "TorchScript" in str(error):
                # torch's own words go on to advise a loading that runs the program.
                raise InputError(
                    f"{source} holds a TorchScript program, not tensors alone. Save its state dict: "
                    "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
                ) from None
            raise ValueError(oversized_in_pt(data, str(error)) or error) from None


def load_safetensors(data: bytes, source: str) -> Mapping[str, Tensor]:
    """The named tensors of a .safetensors file."""
    # After eight bytes of length comes a JSON object.
    _require_start(data, (data[:8] + b"{",), source, "safetensors")
    with parsing(source, "safetensors"):
        try:
            tensors: Mapping[str, Tensor] = safetensors.torch.load(data)
        except safetensors.SafetensorError as error:
            raise ValueError(oversized_in_safetensors(data) or error) from None
        # They come in another order every time.
        return dict(sorted(tensors.items()))


def load_numpy(data: bytes, source: str, kind: str, key: str | None, advice: str) -> NDArray[Any]:
    """The array of a .npy file, or the one named ``key`` of a .npz file, which of the two the bytes tell."""
    _require_start(data, (ZIP, NUMPY), source, kind)
    if data.startswith(NUMPY):
        require_no_key(key, source)
        with parsing(source, "npy"):
            return _npy(data, source)
    with parsing(source, "npz"), zipfile.ZipFile(io.BytesIO(data)) as archive:
        _require_names_once(archive)
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
        member = members[picked(members, key, source, advice)]
        # Asked before it is unpacked: a small file can hold a huge array.
        require_memory(member.file_size, f"{member.filename} in {source}")
        return _npy(archive.read(member), f"{member.filename} in {source}")


def _require_names_once(archive: zipfile.ZipFile) -> None:
    """Raise ValueError where which of two parts a reader takes is by chance."""
    # To numpy x and x.npy are one.
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    counts = Counter(names)
    twice = next((whole for whole, name in zip(archive.namelist(), names, strict=True) if counts[name] > 1), None)
    if twice is not None:
        raise ValueError(f"it holds {twice} twice, and which of them is meant is not known")


def _require_undamaged(archive: zipfile.ZipFile) -> None:
    """Raise ValueError where a part is not what its checksum says; torch.load does not look at any."""
    # All are 0 after torch.serialization.set_crc32_options(False).
    if any(info.CRC for info in archive.infolist()) and (damaged := archive.testzip()) is not None:
        raise ValueError(f"{damaged} in it is damaged: its checksum is another one. Copy or save the file again")


def picked(names: Collection[str], key: str | None, source: str, advice: str) -> str:
    """``key``, or the only name there is.

    Args:
        advice: what to do where there are several names and no key.
    """
    if not names:
        raise InputError(f"{source} holds no array")
    known = ", ".join(names)
    if key is None and len(names) > 1:
        raise InputError(f"{source} holds {len(names)} arrays ({known}); {advice}")
    if key is not None and key not in names:
        raise InputError(f"{source} has no array {key!r}; it holds {known}.{did_you_mean(key, names)}")
    return next(iter(names)) if key is None else key


def require_no_key(key: str | None, source: str) -> None:
    """Raise InputError for a key to a file with a single array."""
    if key is not None:
        raise InputError(f"--input-key {key!r} picks one of several named arrays; {source} holds one without a name")


def require_plain(tensor: Tensor, name: str) -> None:
    """Raise unless every element of a tensor, of any shape, has a number of its own, in memory that there is."""
    require_dense(tensor, name)
    # A stride of 0 makes a huge tensor of a small file.
    require_memory(tensor.numel() * tensor.element_size(), f"{name}, shape {tuple(tensor.shape)},")


def require_dense(tensor: Tensor, name: str) -> None:
    """Raise DtypeError for a tensor, of any shape, whose elements do not lie in a plain block of memory."""
    kinds = {"quantized": tensor.is_quantized, "nested": tensor.is_nested, "meta (without values)": tensor.is_meta}
    layout = plain(tensor.layout)
    special = next((kind for kind, holds in kinds.items() if holds), None if layout == "strided" else layout)
    if special is not None:
        raise DtypeError(f"{name} must be a plain dense tensor; got a {special} one. Save tensor.to_dense() or a copy")


def _npy(data: bytes, source: str) -> NDArray[Any]:
    """An array out of .npy bytes, its size compared with the bytes before anything is allocated."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(f"format version {version[0]}.{version[1]}; readable are 1.0 and 2.0")
    shape, columns_first, dtype = headers[version](stream)
    if dtype.kind not in "fiub":
        raise DtypeError(f"{source} must hold real numbers; got dtype {dtype}")
    size, there = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if size > there or min(shape, default=0) < 0:
        raise ValueError(f"its header says shape {shape} of {dtype}, {size} bytes; {there} bytes follow")
    flat = np.frombuffer(data[stream.tell() :], dtype, math.prod(shape))
    return flat.reshape(shape, order="F" if columns_first else "C")


def _require_start(data: bytes, starts: tuple[bytes, ...], source: str, kind: str) -> None:
    if not data:
        raise InputError(f"{source} is empty; expected a .{kind} file")
    if not data.startswith(starts):
        raise InputError(f"{source} is not a readable .{kind} file: it starts with {data[:8]!r}")
