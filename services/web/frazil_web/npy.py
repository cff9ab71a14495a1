"""Reads the table of a picker's candidates (.npy) without numpy, which this service does without."""

from __future__ import annotations

import ast
import struct
from collections.abc import Mapping
from typing import Any

from frazil.model.errors import ErrorKind, FrazilError

_MAGIC = b"\x93NUMPY"
_FORMATS = {"<u8": "Q", "<f8": "d", "<f4": "f", "<i4": "i"}


def read_candidates(content: bytes) -> Mapping[str, list[float]]:
    """Return the columns of a one-dimensional structured array by name. Raises FrazilError FILE_NOT_FOUND for anything else."""
    try:
        header, start = _header(content)
        names = [name for name, _ in header["descr"]]
        row = struct.Struct("<" + "".join(_FORMATS[kind] for _, kind in header["descr"]))
        (count,) = header["shape"]
        rows = list(row.iter_unpack(content[start : start + count * row.size]))
        if len(rows) != count:
            raise ValueError("rows are missing")
    except (KeyError, TypeError, ValueError, SyntaxError, struct.error) as error:
        raise FrazilError("FILE_NOT_FOUND", "The table of candidates cannot be read.", kind=ErrorKind.NOT_FOUND) from error
    return {name: [float(one[place]) for one in rows] for place, name in enumerate(names)}


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    if not content.startswith(_MAGIC):
        raise ValueError("not an array")
    wide = content[6] > 1
    start = 12 if wide else 10
    (length,) = struct.unpack_from("<I" if wide else "<H", content, 8)
    return ast.literal_eval(content[start : start + length].decode("latin-1")), start + length
