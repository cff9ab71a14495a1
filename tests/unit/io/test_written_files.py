"""MRC, PNG, shards and .cs files that we write: whole or absent, readable by the libraries of the field."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from PIL import Image

from frazil.io.atomic import atomic_path, write_bytes, write_text
from frazil.io.cs import MicrographFrame, rotation_vectors, write_particles_cs
from frazil.io.mrc import read_mrc, write_mrc
from frazil.io.particles import PARTICLE_DTYPE, read_particles, write_particles
from frazil.io.png import write_png
from frazil.io.relion import ParticleSource, Poses
from frazil.model.errors import DiskFullError, ErrorKind, InputError
from frazil.model.optics import Optics


def no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail_half_way() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(DiskFullError) as full:
        write_bytes(tmp_path / "a.bin", b"x")
    assert (full.value.reason, full.value.kind) == ("DISK_FULL", ErrorKind.EXHAUSTED)
    assert "a.bin" in full.value.sentence
    with pytest.raises(DiskFullError):
        write_mrc(tmp_path / "a.mrc", np.ones((4, 4), np.float32), 1.0)
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_disk_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "absent" / "a.bin", b"x")


@pytest.mark.parametrize("shape", [(6, 8), (3, 6, 8), (1, 6, 8)])
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("stack", [False, True])
def test_mrc_round_trip(tmp_path: Path, shape: tuple[int, ...], dtype: str, stack: bool) -> None:
    array = np.random.default_rng(0).normal(0, 20, shape).astype(dtype)
    write_mrc(tmp_path / "a.mrc", array, 1.06, image_stack=stack)
    assert mrcfile.validate(tmp_path / "a.mrc")
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert float(file.voxel_size.x) == pytest.approx(1.06)
        assert int(file.header.ispg) == int(len(shape) == 3 and not stack)
    read, pixel_size = read_mrc(tmp_path / "a.mrc")
    assert pixel_size == pytest.approx(1.06)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.reshape(shape), array)


def test_mrc_bytes_are_repeatable_and_halved_by_float16(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(0, 1, (4, 16, 16)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", array, 1.0)
    write_mrc(tmp_path / "b.mrc", array, 1.0)
    write_mrc(tmp_path / "c.mrc", array, 1.0, float16=True)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    assert (tmp_path / "c.mrc").stat().st_size == 1024 + array.size * 2
    np.testing.assert_allclose(read_mrc(tmp_path / "c.mrc")[0], array, rtol=1e-3, atol=1e-3)


def test_mrc_of_counts_and_of_impossible_types(tmp_path: Path) -> None:
    counts = np.array([[0, 255], [3, 4]], np.uint8)
    write_mrc(tmp_path / "a.mrc", counts, 1.0)
    np.testing.assert_array_equal(read_mrc(tmp_path / "a.mrc")[0], counts)
    for impossible in (np.zeros((2, 2), np.complex64), np.zeros(3, np.float32), np.zeros((0, 2, 2), np.float32)):
        with pytest.raises(ValueError, match="MRC"):
            write_mrc(tmp_path / "b.mrc", impossible, 1.0)
    (tmp_path / "a.mrc").write_bytes((tmp_path / "a.mrc").read_bytes()[:-1])
    with pytest.raises(InputError, match="bytes"):
        read_mrc(tmp_path / "a.mrc")


def test_png_keeps_row_0_on_top(tmp_path: Path) -> None:
    grey = np.zeros((5, 7), np.uint8)
    grey[0, 6] = 200
    write_png(tmp_path / "a.png", grey)
    colour = np.dstack([grey, grey + 1, grey + 2])
    write_png(tmp_path / "b.png", colour)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), grey)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), colour)
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "c.png", grey.astype(np.float32))


def particle_table(count: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    table = np.zeros(count, dtype=PARTICLE_DTYPE)
    for name in PARTICLE_DTYPE.names or ():
        table[name] = rng.uniform(1, 100, count)
    table["uid"] = rng.integers(0, 2**63, count)
    table["half_set"] = 1 + np.arange(count) % 2
    table["pixel_size_angstrom"] = 4.4
    return table


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("float16", [False, True])
def test_shards_come_back(tmp_path: Path, count: int, float16: bool) -> None:
    stack = np.random.default_rng(0).normal(size=(count, 16, 16)).astype(np.float32)
    write_particles(tmp_path / "shard", stack, particle_table(count), float16=float16)
    read, table = read_particles(tmp_path / "shard")
    np.testing.assert_allclose(read.reshape(stack.shape), stack, atol=4e-3 if float16 else 0.0)
    np.testing.assert_array_equal(table, particle_table(count))
    if count:
        assert mrcfile.validate(tmp_path / "shard" / "particles.mrcs")


def test_torn_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard"):
        write_particles(tmp_path, np.zeros((2, 16, 16), np.float32), particle_table(3))
    with pytest.raises(InputError, match="holds no particles"):
        read_particles(tmp_path)
    write_particles(tmp_path, np.zeros((2, 16, 16), np.float32), particle_table(2))
    (tmp_path / "particles.mrcs").unlink()
    with pytest.raises(InputError, match=r"no particles\.mrcs"):
        read_particles(tmp_path)
    (tmp_path / "particles.npy").write_bytes(b"not an array")
    with pytest.raises(InputError, match="not a particle table"):
        read_particles(tmp_path)


def test_cs_fields_are_cryosparcs(tmp_path: Path) -> None:
    table = particle_table(3)
    names = ParticleSource(image_names=[f"{i + 1:06d}@p/a.mrcs" for i in range(3)], micrograph_names=["m/a.mrc"] * 3)
    frame = MicrographFrame(height_px=200, width_px=400, pixel_size_angstrom=1.1)
    optics = Optics(pixel_size_angstrom=1.1)
    poses = Poses(**{field: np.full(3, 10.0) for field in Poses.__dataclass_fields__})
    write_particles_cs(tmp_path / "p.cs", table, names, optics=optics, micrograph=frame, box_size_px=64, poses=poses)
    with (tmp_path / "p.cs").open("rb") as file:
        rows = np.load(file, allow_pickle=False)
    assert rows["uid"].tolist() == table["uid"].tolist()
    assert rows["blob/idx"].tolist() == [0, 1, 2]
    assert rows["blob/path"].tolist() == [b"p/a.mrcs"] * 3
    assert rows["blob/shape"].tolist() == [[64, 64]] * 3
    np.testing.assert_allclose(rows["location/center_x_frac"] * 400, table["coordinate_x_px"], rtol=1e-6)
    np.testing.assert_allclose(rows["location/center_y_frac"] * 200, table["coordinate_y_px"], rtol=1e-6)
    np.testing.assert_allclose(np.rad2deg(rows["ctf/df_angle_rad"]), table["defocus_angle_degrees"], rtol=1e-5)
    np.testing.assert_allclose(rows["alignments3D/shift"] * 4.4, 10.0, rtol=1e-5)
    assert rows["alignments3D/split"].tolist() == [0, 1, 0]


def test_cs_pose_is_the_rotation_that_cryosparc_builds() -> None:
    """CryoSPARC builds R = I + sin t K + (1 - cos t) K² with its own K; that must be our A."""
    rng = np.random.default_rng(5)
    rot, tilt, psi = (rng.uniform(-170, 170, 20) for _ in range(3))
    zero = np.zeros(20)
    poses = Poses(rot_degrees=rot, tilt_degrees=tilt, psi_degrees=psi, origin_x_angstrom=zero, origin_y_angstrom=zero)
    for vector, angles in zip(rotation_vectors(poses), zip(rot, tilt, psi, strict=True), strict=True):
        t = np.linalg.norm(vector)
        w = vector / t
        k = np.array([[0, w[2], -w[1]], [-w[2], 0, w[0]], [w[1], -w[0], 0]])
        (cr, ct, cp), (sr, st, sp) = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
        about_rot = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        about_tilt = np.array([[ct, 0, -st], [0, 1, 0], [st, 0, ct]])
        about_psi = np.array([[cp, sp, 0], [-sp, cp, 0], [0, 0, 1]])
        np.testing.assert_allclose(
            np.eye(3) + np.sin(t) * k + (1 - np.cos(t)) * k @ k, about_psi @ about_tilt @ about_rot, atol=1e-12
        )
