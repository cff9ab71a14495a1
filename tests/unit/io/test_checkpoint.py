"""Checkpoints come back bit by bit, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frazil.io.checkpoint import CheckpointError, load_newest, read_checkpoint, write_checkpoint
from frazil.model.errors import DiskFullError

ARRAYS: dict[str, Any] = {
    "sums": (np.arange(60) * (1 + 0.5j)).astype(np.complex64).reshape(3, 4, 5),
    "counts": np.array([1, 2, 3], np.int64),
    "empty": np.zeros((0, 7), np.float32),
    "scalar": np.array(3.25),
    "strided": np.arange(20, dtype=np.float32).reshape(4, 5).T[::2],
    "flags": np.array([True, False]),
    "big endian": np.arange(3, dtype=">f4"),
}


def test_everything_comes_back(tmp_path: Path) -> None:
    header = {"cursor_sequence": 12, "seed": 2**40, "names": ["a", "ü"], "part": {"x": 1.5}}
    digest = write_checkpoint(tmp_path / "deep" / "1.ck", header, ARRAYS)
    assert hashlib.sha256((tmp_path / "deep" / "1.ck").read_bytes()).hexdigest() == digest
    checkpoint = read_checkpoint(tmp_path / "deep" / "1.ck", digest)
    assert checkpoint.header == header
    assert list(checkpoint.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert checkpoint.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(checkpoint.arrays[name], array)
        assert checkpoint.arrays[name].flags.writeable
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["1.ck"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hnp.arrays(st.sampled_from(["<f4", "<i8", "<c8", "|u1"]), hnp.array_shapes(min_dims=0, min_side=0, max_side=9)))
def test_any_array_comes_back_bitwise(tmp_path: Path, array: Any) -> None:
    write_checkpoint(tmp_path / "x.ck", {}, {"a": array, "b": array})
    read = read_checkpoint(tmp_path / "x.ck").arrays
    assert read["a"].tobytes() == read["b"].tobytes() == array.tobytes()
    assert read["a"].shape == array.shape


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "1.ck"
    write_checkpoint(path, {"cursor_sequence": 1}, {"a": np.arange(10.0)})
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
        path.write_bytes(whole[:position])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"FRAZIL-CHECKPOINT-1\n" + b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.ck").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "1.ck")


def test_newest_whole_one_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    rows = []
    for number in (3, 2, 1):
        path = f"checkpoints/{number}.ck"
        rows.append((path, write_checkpoint(tmp_path / path, {"number": number}, {"a": np.full(100, number)})))
    checkpoint, corrupt = load_newest(tmp_path, rows)
    assert checkpoint is not None
    assert (checkpoint.header["number"], corrupt) == (3, ())
    (tmp_path / "checkpoints" / "3.ck").unlink()
    (tmp_path / "checkpoints" / "2.ck").write_bytes(b"\0" * 100)
    checkpoint, corrupt = load_newest(tmp_path, rows)
    assert checkpoint is not None
    assert checkpoint.header["number"] == 1
    assert ["3.ck" in corrupt[0], "2.ck" in corrupt[1]] == [True, True]
    (tmp_path / "checkpoints" / "1.ck").unlink()
    checkpoint, corrupt = load_newest(tmp_path, rows)
    assert (checkpoint, len(corrupt)) == (None, 3)
    assert load_newest(tmp_path, []) == (None, ())


def test_whole_file_that_is_not_the_committed_one_is_refused(tmp_path: Path) -> None:
    digest = write_checkpoint(tmp_path / "1.ck", {"cursor_sequence": 1}, {})
    write_checkpoint(tmp_path / "1.ck", {"cursor_sequence": 2}, {})
    with pytest.raises(CheckpointError, match="not the file that was committed"):
        read_checkpoint(tmp_path / "1.ck", digest)


def test_failed_write_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.ck"
    digest = write_checkpoint(path, {"n": 1}, {})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError):
        write_checkpoint(path, {"n": 2}, {})
    assert read_checkpoint(path, digest).header == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["1.ck"]


def test_objects_and_nan_in_the_header_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'a'"):
        write_checkpoint(tmp_path / "1.ck", {}, {"a": np.array([object()])})
    with pytest.raises(ValueError, match="JSON"):
        write_checkpoint(tmp_path / "1.ck", {"x": float("nan")}, {})
