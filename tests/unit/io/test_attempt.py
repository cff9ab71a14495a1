"""Attempt folders appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from frazil.io.attempt import AttemptFolder, verify_attempt
from frazil.model.errors import DiskFullError, FrazilError


def write(folder: Path, name: str = "1.7.1") -> AttemptFolder:
    with AttemptFolder(folder, "e1", name) as attempt:
        (attempt.path / "micrograph.mrc").write_bytes(b"m" * 1000)
        (attempt.path / "sub").mkdir()
        (attempt.path / "sub" / "particles.mrcs").write_bytes(b"p" * 10)
    return attempt


def test_folder_is_in_place_with_its_manifest(tmp_path: Path) -> None:
    attempt = write(tmp_path)
    assert attempt.relative_path == "results/e1/1.7.1"
    assert sorted(p.name for p in (tmp_path / "results" / "e1").iterdir()) == ["1.7.1"]
    text = (tmp_path / attempt.relative_path / "manifest.json").read_bytes()
    assert hashlib.sha256(text).hexdigest() == attempt.manifest_sha256
    assert json.loads(text)["files"] == {
        "micrograph.mrc": {"size_bytes": 1000, "sha256": hashlib.sha256(b"m" * 1000).hexdigest()},
        "sub/particles.mrcs": {"size_bytes": 10, "sha256": hashlib.sha256(b"p" * 10).hexdigest()},
    }
    verify_attempt(attempt.final_path, attempt.manifest_sha256)


@pytest.mark.parametrize("name", ["micrograph.mrc", "manifest.json", "sub/particles.mrcs"])
@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_damage_is_found(tmp_path: Path, name: str, damage: str) -> None:
    attempt = write(tmp_path)
    path = attempt.final_path / name
    path.unlink() if damage == "delete" else path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(FrazilError, match=path.name):
        verify_attempt(attempt.final_path, attempt.manifest_sha256)


def test_failed_attempt_leaves_nothing(tmp_path: Path) -> None:
    def attempt() -> None:
        with AttemptFolder(tmp_path, "e1", "1.7.1") as folder:
            (folder.path / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attempt()
    assert list((tmp_path / "results" / "e1").iterdir()) == []


def test_what_a_killed_worker_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / "results" / "e1" / "1.7.1.tmp"
    left.mkdir(parents=True)
    (left / "old").touch()
    attempt = write(tmp_path)
    assert not (attempt.final_path / "old").exists()


def test_finished_attempt_is_never_overwritten(tmp_path: Path) -> None:
    first = write(tmp_path)
    with pytest.raises(FrazilError, match="never written twice"):
        write(tmp_path)
    verify_attempt(first.final_path, first.manifest_sha256)
    write(tmp_path, "1.8.1").discard()
    assert [p.name for p in first.final_path.parent.iterdir()] == ["1.7.1"]


@pytest.mark.parametrize("names", [("..", "a"), ("e", "../a"), ("", "a"), ("e", "a/b")])
def test_names_stay_within_the_session(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(FrazilError, match="name of a folder"):
        AttemptFolder(tmp_path, *names)


@pytest.mark.parametrize("where", ["block", "fsync"])
def test_full_disk_has_its_own_error(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")  # NFS says it as late as this

    def attempt() -> None:
        with AttemptFolder(tmp_path, "e1", "1.7.1") as folder:
            (folder.path / "a").write_bytes(b"a")
            if where == "block":
                raise OSError(errno.ENOSPC, "No space left on device")
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(DiskFullError, match="free some disk space"):
        attempt()
    assert list((tmp_path / "results" / "e1").iterdir()) == []
