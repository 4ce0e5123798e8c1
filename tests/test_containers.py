"""The kind of a file is told by its content."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from rnnctl.files.containers import kind_of

STATE = nn.Linear(3, 2).state_dict()


def saved(save, *arguments, **settings) -> bytes:
    stream = io.BytesIO()
    save(*arguments, stream, **settings) if save is torch.save else save(stream, *arguments, **settings)
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


def safetensors_with_a_header_of(length: int) -> bytes:
    """A file whose first bytes are a number of our choice."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    return struct.pack("<Q", length) + header + bytes(4)


KNOWN = {
    "npy": ("npy", saved(np.save, np.ones((2, 3)))),
    "npy of version 2": ("npy", b"\x93NUMPY\x02\x00"),
    "npz": ("npz", saved(np.savez, x=np.ones(2))),
    "compressed npz": ("npz", saved(np.savez_compressed, x=np.ones(2), y=np.ones(3))),
    "torch tensor": ("pt", saved(torch.save, torch.ones(2))),
    "torch checkpoint": ("pt", saved(torch.save, {"epoch": 3, "state_dict": STATE})),
    "torch before 1.6": ("pt", saved(torch.save, STATE, _use_new_zipfile_serialization=False)),
    "torch zip without a folder": ("pt", zipped("data.pkl", "version")),
    "pickle of protocol 5": ("pt", pickle.dumps([1], 5)),
    "safetensors": ("safetensors", safetensors.torch.save(STATE)),
    "safetensors like UTF-16": ("safetensors", safetensors_with_a_header_of(0xFEFF)),
    "safetensors like text": ("safetensors", safetensors_with_a_header_of(0x4142)),
    "csv": ("csv", b"a,b\n1,2\n"),
    "csv that starts like a zip": ("csv", b"PK,x\n1,2\n"),
    "csv that starts like a pickle's protocol 0": ("csv", b"(1;2)\n"),
    "brace at the ninth byte": ("csv", b'{"a": 1,{"b": 2}'),
    "UTF-8 with a byte-order mark": ("csv", "\ufeffa;b\r\n1;2\r\n".encode()),
    "UTF-16, little end first": ("csv", b"\xff\xfe" + "a\tb\r\n".encode("utf-16-le")),
    "UTF-16, big end first": ("csv", b"\xfe\xff" + "a\tb\r\n".encode("utf-16-be")),
    "a letter cut at the end of the head": ("csv", b"x" * 4095 + "é".encode()),
    "blank lines": ("csv", b" \r\n\t\n"),
}
UNKNOWN = {
    "nothing": b"",
    "control characters": b"abc\x00def",
    "a picture": b"\x89PNG\r\n\x1a\n",
    "latin-1": "höhe,1\n".encode("latin-1"),
    "zip of other things": zipped("readme.txt", "data.pkl.txt"),
    "torn zip": saved(np.savez, x=np.ones(2))[:100],
    "pickle's opcode alone": b"\x80",
    "an opcode without a known protocol": b"\x80\x60",
    "gzip": b"\x1f\x8b\x08\x00",
    "a header longer than the format allows": struct.pack("<Q", 100_000_001) + b"{",
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_kind_is_known_by_its_bytes(name: str) -> None:
    kind, data = KNOWN[name]
    assert kind_of(data) == kind


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_none_of_the_kinds_is_none(name: str) -> None:
    assert kind_of(UNKNOWN[name]) is None


@pytest.mark.parametrize("kind", ["npz", "torch tensor"])
def test_a_zip_that_is_broken_anywhere_never_crashes(kind: str) -> None:
    right, data = KNOWN[kind]
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        assert kind_of(bytes(broken)) in (right, None)
