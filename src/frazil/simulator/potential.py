"""From atoms to the phase that they give to the electron wave: projections and volumes, in rad and rad/Å.

Each atom is a Gaussian as wide as its B factor. Its strength is the integral of its electrostatic potential above that of the
ice it displaces, times the interaction constant (Peng 1996 for f(0); Kirkland, Advanced Computing in Electron Microscopy).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from frazil.simulator.atoms import Atoms

# A non-hydrogen atom of protein with its hydrogens: 47.878 V Å² x 2.9 Å (mean f(0)) in 18 Å³, of which vitreous ice (4.5 V)
# would have filled 81 V Å³: 58 V Å³ remain. Mean atomic number of those atoms: 6.7.
_EXCESS_POTENTIAL_V_ANGSTROM3 = 58.0
_MEAN_ATOMIC_NUMBER = 6.7
_OVERSAMPLING = 2


def interaction_constant(voltage_kv: float) -> float:
    """Return sigma = 2 pi m e lambda / h² in rad/(V Å): 6.526e-4 at 300 kV."""
    energy = voltage_kv * 1e3
    wavelength = electron_wavelength(voltage_kv)
    return float(2.0 * np.pi / (wavelength * energy) * (510_998.95 + energy) / (2.0 * 510_998.95 + energy))


def electron_wavelength(voltage_kv: float) -> float:
    """Return the relativistic wavelength in Å (docs/conventions.md)."""
    volts = voltage_kv * 1e3
    return float(12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts)))


def project(
    atoms: Atoms, orientation: npt.NDArray[Any], centre_px: tuple[float, float], box_px: int, pixel_size_angstrom: float
) -> npt.NDArray[np.float32]:
    """Return the projection `(y, x)` of a particle, in V Å (times the interaction constant it is a phase in rad).

    Parameters
    ----------
    atoms : the particle.
    orientation : A = Rz(psi) Ry(tilt) Rz(rot), (3, 3): an atom at r appears at the first two components of A r.
    centre_px : where the particle's centre comes to lie in the box, (x, y) in px.
    box_px : side of the box, even.
    pixel_size_angstrom : of the box.
    """
    fine = box_px * _OVERSAMPLING
    xy = atoms.xyz_angstrom @ np.asarray(orientation[:2], dtype=np.float32).T
    xy = xy * np.float32(_OVERSAMPLING / pixel_size_angstrom) + np.float32(_OVERSAMPLING) * np.array(centre_px, np.float32)
    grid = _splat(xy, _strengths(atoms), fine) * (_OVERSAMPLING / pixel_size_angstrom) ** 2
    spectrum = scipy.fft.rfft2(grid)
    half = box_px // 2
    rows = np.concatenate([spectrum[:half, : half + 1], spectrum[-half:, : half + 1]])
    ky, kx = scipy.fft.fftfreq(box_px)[:, None], scipy.fft.rfftfreq(box_px)[None, :]
    s2 = (ky**2 + kx**2) / pixel_size_angstrom**2
    # Linear splatting on the fine grid has multiplied by sinc² along each axis.
    blur = np.exp(-0.25 * atoms.b_factor_angstrom2 * s2) / (np.sinc(ky / _OVERSAMPLING) * np.sinc(kx / _OVERSAMPLING)) ** 2
    rows = rows * blur
    rows[half, :] = 0.0
    rows[:, half] = 0.0
    small = scipy.fft.irfft2(rows, s=(box_px, box_px)) / _OVERSAMPLING**2
    return small.astype(np.float32)


def potential_volume(atoms: Atoms, box_px: int, pixel_size_angstrom: float) -> npt.NDArray[np.float32]:
    """Return the potential above ice `(z, y, x)` in V, the particle's centre at voxel box/2 (box even)."""
    position = atoms.xyz_angstrom / np.float32(pixel_size_angstrom) + np.float32(box_px // 2)
    corner = np.floor(position).astype(np.int64)
    part = position - corner
    total = np.zeros(box_px**3)
    for offset in np.ndindex(2, 2, 2):
        weight = _strengths(atoms) * np.prod(np.where(offset, part, 1.0 - part), axis=1)
        x, y, z = (corner + np.array(offset)).T
        inside = ((corner + offset >= 0) & (corner + offset < box_px)).all(axis=1)
        index = (z * box_px + y) * box_px + x
        total += np.bincount(index[inside], weights=weight[inside], minlength=box_px**3)
    spectrum = scipy.fft.rfftn(total.reshape((box_px,) * 3).astype(np.float32) / np.float32(pixel_size_angstrom**3))
    full, short = scipy.fft.fftfreq(box_px), scipy.fft.rfftfreq(box_px)
    blur = [np.exp(-0.25 * atoms.b_factor_angstrom2 * (k / pixel_size_angstrom) ** 2) / np.sinc(k) ** 2 for k in (full, short)]
    spectrum *= (blur[0][:, None, None] * blur[0][:, None] * blur[1]).astype(np.float32)
    return scipy.fft.irfftn(spectrum, s=(box_px,) * 3).astype(np.float32)


def orientation_matrix(rot_degrees: float, tilt_degrees: float, psi_degrees: float) -> npt.NDArray[np.float64]:
    """Return A = Rz(psi) Ry(tilt) Rz(rot) in RELION's sense (docs/conventions.md)."""

    def about_z(angle: float) -> npt.NDArray[np.float64]:
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])

    c, s = np.cos(np.deg2rad(tilt_degrees)), np.sin(np.deg2rad(tilt_degrees))
    about_y = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    return np.asarray(about_z(psi_degrees) @ about_y @ about_z(rot_degrees))


def _strengths(atoms: Atoms) -> npt.NDArray[np.float32]:
    """Return each atom's integrated potential above ice in V Å³."""
    scale = np.float32(_EXCESS_POTENTIAL_V_ANGSTROM3 / _MEAN_ATOMIC_NUMBER)
    return atoms.atomic_number.astype(np.float32) * scale


def _splat(xy: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float64]:
    """Share each weight among the four pixels around its position; what falls outside is lost."""
    corner = np.floor(xy).astype(np.int32)
    inside = ((corner >= 0) & (corner < side - 1)).all(axis=1)
    corner, part, weights = corner[inside], (xy - corner)[inside], weights[inside]
    index = corner[:, 1] * side + corner[:, 0]
    right, below = part[:, 0], part[:, 1]
    total = np.zeros(side * side)
    total += np.bincount(index, weights * (1 - right) * (1 - below), side * side)
    total += np.bincount(index + 1, weights * right * (1 - below), side * side)
    total += np.bincount(index + side, weights * (1 - right) * below, side * side)
    total += np.bincount(index + side + 1, weights * right * below, side * side)
    return total.reshape(side, side)
