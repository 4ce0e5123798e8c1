"""PNG files of at most 256 colours, written plainly: the same bytes for the same picture, and simple to read again."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of the filters of PNG those that this page's script undoes: as it is, less the cell before, less the cell above.
NONE, SUB, UP = 0, 1, 2


def palette_png(codes: NDArray[np.uint8], palette: Sequence[tuple[int, int, int, int]]) -> bytes:
    """A picture whose cells are numbers of colours.

    Args:
        codes: shape (rows, columns).
        palette: red, green, blue and opacity of every number.
    Source: Portable Network Graphics (PNG) Specification, second edition, W3C 2003, sections 9 to 11.
    """
    rows, columns = codes.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    colors = b"".join(bytes(each[:3]) for each in palette)
    opacity = bytes(each[3] for each in palette)
    # One filter for all rows: which is best depends on how smooth the matrix is.
    data = min((zlib.compress(_filtered(codes, kind), 9) for kind in (NONE, SUB, UP)), key=len)
    parts = ((b"IHDR", header), (b"PLTE", colors), (b"tRNS", opacity), (b"IDAT", data), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(*part) for part in parts)


def _filtered(codes: NDArray[np.uint8], kind: int) -> bytes:
    """Every row with the number of its filter before it."""
    less: NDArray[Any] = np.zeros_like(codes)
    if kind == SUB:
        less[:, 1:] = codes[:, :-1]
    if kind == UP:
        less[1:] = codes[:-1]
    rows = np.empty((codes.shape[0], codes.shape[1] + 1), np.uint8)
    rows[:, 0], rows[:, 1:] = kind, codes - less
    return rows.tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
