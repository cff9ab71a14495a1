"""CryoSPARC particle files (`.cs`): a structured array saved as `.npy`, with CryoSPARC's field names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.io.particles import write_array
from frazil.io.relion import ParticleSource, Poses
from frazil.model.optics import Optics

_FIELDS = [
    ("uid", "<u8"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"),
    ("blob/import_sig", "<u8"),
    ("ctf/type", "S9"),
    ("ctf/exp_group_id", "<u4"),
    ("ctf/accel_kv", "<f4"),
    ("ctf/cs_mm", "<f4"),
    ("ctf/amp_contrast", "<f4"),
    ("ctf/df1_A", "<f4"),
    ("ctf/df2_A", "<f4"),
    ("ctf/df_angle_rad", "<f4"),
    ("ctf/phase_shift_rad", "<f4"),
    ("ctf/scale", "<f4"),
    ("location/micrograph_psize_A", "<f4"),
    ("location/micrograph_shape", "<u4", (2,)),
    ("location/center_x_frac", "<f4"),
    ("location/center_y_frac", "<f4"),
    ("pick_stats/ncc_score", "<f4"),
    ("pick_stats/power", "<f4"),
    ("alignments3D/split", "<u4"),
]
_POSE_FIELDS = [
    ("alignments3D/pose", "<f4", (3,)),
    ("alignments3D/shift", "<f4", (2,)),
    ("alignments3D/psize_A", "<f4"),
    ("alignments3D/class", "<u4"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrographFrame:
    """Shape and pixel size of the micrographs that the coordinates refer to."""

    height_px: int
    width_px: int
    pixel_size_angstrom: float


def write_particles_cs(
    path: Path | str,
    table: npt.NDArray[Any],
    source: ParticleSource,
    *,
    optics: Optics,
    micrograph: MicrographFrame,
    box_size_px: int,
    poses: Poses | None = None,
) -> None:
    """Write particles of `PARTICLE_DTYPE` as a `.cs` file atomically.

    Image names are RELION's ("000001@stack.mrcs", from 1); CryoSPARC's index counts from 0. Poses become rotation vectors.
    Raises ValueError when names and table differ in length.
    """
    if not len(table) == len(source.image_names) == len(source.micrograph_names):
        raise ValueError(f"{len(table)} particles have {len(source.image_names)} images")
    stacks, indices = _split_names(source.image_names)
    paths = [
        ("blob/path", _bytes_type(stacks)),
        ("location/micrograph_path", _bytes_type(source.micrograph_names)),
    ]
    dtype = np.dtype(_FIELDS + paths + (_POSE_FIELDS if poses is not None else []))
    rows = np.zeros(len(table), dtype=dtype)
    rows["blob/path"], rows["blob/idx"] = [name.encode() for name in stacks], indices
    rows["location/micrograph_path"] = [name.encode() for name in source.micrograph_names]
    _fill_image(rows, table, box_size_px)
    _fill_ctf(rows, table, optics)
    rows["ctf/exp_group_id"] = source.optics_groups if source.optics_groups is not None else 1
    rows["location/micrograph_psize_A"] = micrograph.pixel_size_angstrom
    rows["location/micrograph_shape"] = (micrograph.height_px, micrograph.width_px)
    rows["location/center_x_frac"] = table["coordinate_x_px"] / micrograph.width_px
    rows["location/center_y_frac"] = table["coordinate_y_px"] / micrograph.height_px
    if poses is not None:
        rows["alignments3D/pose"] = rotation_vectors(poses)
        origins = np.stack([poses.origin_x_angstrom, poses.origin_y_angstrom], axis=1)
        rows["alignments3D/shift"] = origins / table["pixel_size_angstrom"][:, None]
        rows["alignments3D/psize_A"] = table["pixel_size_angstrom"]
    write_array(path, rows)


def rotation_vectors(poses: Poses) -> npt.NDArray[np.float64]:
    """Return axis-angle vectors `(particle, 3)`, in rad, in CryoSPARC's sense.

    CryoSPARC's matrix is R = I + sin t K + (1 - cos t) K² with K = [[0, w3, -w2], [-w3, 0, w1], [w2, -w1, 0]]: the transpose
    of the usual one. So its vector is minus the usual rotation vector of RELION's A = Rz(psi) Ry(tilt) Rz(rot), whose
    factors are themselves transposes of the usual ones: the usual vector of A transposed.
    """
    from scipy.spatial.transform import Rotation

    angles = np.stack([poses.rot_degrees, poses.tilt_degrees, poses.psi_degrees], axis=1)
    return np.asarray(Rotation.from_euler("ZYZ", angles, degrees=True).as_rotvec(), dtype=np.float64)


def _fill_image(rows: npt.NDArray[Any], table: npt.NDArray[Any], box_size_px: int) -> None:
    rows["uid"] = table["uid"]
    rows["blob/shape"] = box_size_px
    rows["blob/psize_A"] = table["pixel_size_angstrom"]
    rows["blob/sign"] = 1.0  # protein is white already
    rows["pick_stats/ncc_score"], rows["pick_stats/power"] = table["score"], table["power"]
    rows["alignments3D/split"] = table["half_set"].astype(np.uint32) - 1


def _fill_ctf(rows: npt.NDArray[Any], table: npt.NDArray[Any], optics: Optics) -> None:
    rows["ctf/type"] = b"imported"
    rows["ctf/accel_kv"] = optics.voltage_kv
    rows["ctf/cs_mm"] = optics.spherical_aberration_mm
    rows["ctf/amp_contrast"] = optics.amplitude_contrast
    rows["ctf/df1_A"], rows["ctf/df2_A"] = table["defocus_u_angstrom"], table["defocus_v_angstrom"]
    rows["ctf/df_angle_rad"] = np.deg2rad(table["defocus_angle_degrees"])
    rows["ctf/phase_shift_rad"] = np.deg2rad(table["phase_shift_degrees"])
    rows["ctf/scale"] = 1.0


def _split_names(image_names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Split "000001@stack.mrcs" into stack paths and indices from 0."""
    split = [name.partition("@") for name in image_names]
    return [stack for _, _, stack in split], [int(number) - 1 for number, _, _ in split]


def _bytes_type(texts: Sequence[str]) -> str:
    return f"S{max((len(text.encode()) for text in texts), default=1)}"
