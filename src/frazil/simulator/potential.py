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
    xy = atoms.xyz_angstrom @ np.asarray(orientation[:2], dtype=np.float32).T
    xy = _OVERSAMPLING * (xy / np.float32(pixel_size_angstrom) + np.array(centre_px, np.float32))
    spectrum = _cropped_transform(_splat(xy, _strengths(atoms), box_px * _OVERSAMPLING), box_px)
    frequencies = (scipy.fft.fftfreq(box_px)[:, None], scipy.fft.rfftfreq(box_px))
    spectrum *= _blur(frequencies, atoms.b_factor_angstrom2 / pixel_size_angstrom**2)
    image = scipy.fft.irfft2(spectrum, s=(box_px, box_px)) / pixel_size_angstrom**2
    return np.asarray(image, dtype=np.float32)


def potential_volume(atoms: Atoms, box_px: int, pixel_size_angstrom: float) -> npt.NDArray[np.float32]:
    """Return the potential above ice `(z, y, x)` in V, the particle's centre at voxel box/2 (box even).

    Its projections are those of `project`: slice by slice atoms are laid on a grid twice as fine, and cropped in Fourier space.
    """
    fine = box_px * _OVERSAMPLING
    place = _OVERSAMPLING * (atoms.xyz_angstrom / np.float32(pixel_size_angstrom) + np.float32(box_px // 2))
    place = place[np.argsort(place[:, 2])]
    strengths = _strengths(atoms)[np.argsort(atoms.xyz_angstrom[:, 2])]
    slices = np.zeros((fine, box_px, box_px // 2 + 1), dtype=np.complex64)
    for z in range(fine):
        near = slice(*np.searchsorted(place[:, 2], [z - 1.0, z + 1.0]))
        weights = strengths[near] * (1.0 - np.abs(place[near, 2] - np.float32(z)))
        slices[z] = _cropped_transform(_splat(place[near, :2], weights, fine), box_px)
    half = box_px // 2
    along_z = scipy.fft.fft(slices, axis=0)
    spectrum = np.concatenate([along_z[:half], along_z[-half:]])
    spectrum[half] = 0.0
    full = scipy.fft.fftfreq(box_px)
    frequencies = (full[:, None, None], full[:, None], scipy.fft.rfftfreq(box_px))
    spectrum *= _blur(frequencies, atoms.b_factor_angstrom2 / pixel_size_angstrom**2)
    volume = scipy.fft.irfftn(spectrum, s=(box_px,) * 3) / pixel_size_angstrom**3
    return np.asarray(volume, dtype=np.float32)


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


def _cropped_transform(grid: npt.NDArray[Any], box_px: int) -> npt.NDArray[np.complex128]:
    """Return the transform of a finer grid, cropped to the box; the Nyquist lines, which cannot be moved, are zero."""
    spectrum = scipy.fft.rfft2(grid)
    half = box_px // 2
    cropped = np.concatenate([spectrum[:half, : half + 1], spectrum[-half:, : half + 1]])
    cropped[half, :] = 0.0
    cropped[:, half] = 0.0
    return cropped


def _blur(frequencies: tuple[npt.NDArray[Any], ...], b_factor_px2: float) -> npt.NDArray[np.float32]:
    """Return the atoms' Gaussian, divided by sinc² along each axis, which linear splatting on the fine grid has left."""
    total: Any = 1.0
    for k in frequencies:
        total = total * np.exp(-0.25 * b_factor_px2 * k**2) / np.sinc(k / _OVERSAMPLING) ** 2
    return np.asarray(total, dtype=np.float32)


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
