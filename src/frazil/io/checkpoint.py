"""Checkpoints of streaming jobs: cursor and accumulators in one file, so that no particle is counted twice or lost.

Layout: magic, length of the header (8 bytes, little-endian), SHA-256 of the header, header (JSON: the caller's values and
the index of the arrays), the arrays raw and aligned to 64 bytes, SHA-256 of all that. A file is written beside its final
name, flushed and renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from frazil.io.atomic import atomic_path
from frazil.model.errors import FrazilError

MAGIC = b"FRAZIL-CHECKPOINT-1\n"
_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 24
_HEADER_MAX_BYTES = 1 << 26
_DIGEST_BYTES = hashlib.sha256().digest_size
_PREFIX_BYTES = len(MAGIC) + 8 + _DIGEST_BYTES
_KINDS = "biufc"  # plain numbers: nothing that needs pickle


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The header's values and the arrays by name."""

    header: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


class CheckpointError(FrazilError):
    """The file is not a whole checkpoint."""


def write_checkpoint(path: Path | str, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Write a checkpoint atomically and return the SHA-256 of the file, in hex.

    `header` must survive JSON (put numbers, texts, lists and mappings in it, and always the cursor). Raises DiskFullError
    when there is no room, and TypeError for an array that does not hold plain numbers.
    """
    index = []
    offset = 0
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"array {name!r} of dtype {array.dtype} cannot be part of a checkpoint")
        index.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "offset": offset})
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    text = json.dumps({"values": dict(header), "arrays": index, "data_bytes": offset}, allow_nan=False).encode()
    text += b" " * (-(_PREFIX_BYTES + len(text)) % _ALIGNMENT)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        content = hashlib.sha256()
        for chunk in _chunks(text, arrays.values()):
            content.update(chunk)
            file.write(chunk)
        digest = content.digest()
        file.write(digest)
        content.update(digest)
    return content.hexdigest()


def read_checkpoint(path: Path | str, sha256: str | None = None) -> Checkpoint:
    """Read a checkpoint whole. Raises CheckpointError when the file is missing, cut, altered, or not the one of `sha256`."""
    source = Path(path)
    try:
        with source.open("rb") as file:
            checkpoint, digest = _read(file, source)
    except OSError as error:
        raise _corrupt(source, error.strerror or str(error)) from error
    if sha256 is not None and digest != sha256:
        raise _corrupt(source, "it is not the file that was committed")
    return checkpoint


def load_newest(
    session_folder: Path | str, checkpoints: Iterable[tuple[str, str]]
) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """Return the first checkpoint that is whole, and one sentence for each that was not.

    `checkpoints` are (path relative to the session's folder, SHA-256), newest first, as a worker gets them when it attaches.
    None means that the job begins again at the first particle block.
    """
    corrupt: list[str] = []
    for relative_path, sha256 in checkpoints:
        try:
            return read_checkpoint(Path(session_folder) / relative_path, sha256), tuple(corrupt)
        except CheckpointError as error:
            corrupt.append(error.sentence)
    return None, tuple(corrupt)


def _chunks(text: bytes, arrays: Iterable[npt.NDArray[Any]]) -> Iterable[bytes | memoryview]:
    """Yield the file's content up to the digest; no array is copied unless its memory is not contiguous."""
    yield MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest()
    yield text
    for array in arrays:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, raw.size, _CHUNK_BYTES):
            yield raw[start : start + _CHUNK_BYTES].data
        yield b"\0" * (-raw.size % _ALIGNMENT)


def _read(file: BinaryIO, path: Path) -> tuple[Checkpoint, str]:
    """Return the checkpoint and the digest of the whole file."""
    content = hashlib.sha256()

    def take(count: int) -> bytes:
        raw = file.read(count)
        if len(raw) < count:
            raise _corrupt(path, "it is cut short")
        content.update(raw)
        return raw

    start = take(_PREFIX_BYTES)
    length = int.from_bytes(start[len(MAGIC) : len(MAGIC) + 8], "little")
    if not start.startswith(MAGIC) or length > _HEADER_MAX_BYTES:
        raise _corrupt(path, "it does not begin like a checkpoint")
    text = take(length)
    if hashlib.sha256(text).digest() != start[-_DIGEST_BYTES:]:
        raise _corrupt(path, "its header is damaged")
    header = json.loads(text)  # as it was written: its checksum fits
    arrays = {entry["name"]: _read_array(file, entry, content, path) for entry in header["arrays"]}
    digest = content.digest()
    if file.read(_DIGEST_BYTES + 1) != digest:
        raise _corrupt(path, "its checksum does not fit")
    content.update(digest)
    return Checkpoint(header["values"], arrays), content.hexdigest()


def _read_array(file: BinaryIO, entry: dict[str, Any], content: Any, path: Path) -> npt.NDArray[Any]:
    """Fill one array chunk by chunk; a file cut short is noticed before any memory is asked for."""
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    size = math.prod(shape) * dtype.itemsize
    if file.tell() + size > path.stat().st_size:
        raise _corrupt(path, "it is cut short")
    array = np.empty(shape, dtype=dtype)
    raw = array.reshape(-1).view(np.uint8).data
    for start in range(0, size, _CHUNK_BYTES):
        part = raw[start : start + _CHUNK_BYTES]
        if file.readinto(part) < len(part):  # type: ignore[attr-defined]
            raise _corrupt(path, "it is cut short")
        content.update(part)
    content.update(file.read(-size % _ALIGNMENT))
    return array


def _corrupt(path: Path, why: str) -> CheckpointError:
    return CheckpointError("CHECKPOINT_CORRUPT", f"The checkpoint {path.name} cannot be used: {why}.")
