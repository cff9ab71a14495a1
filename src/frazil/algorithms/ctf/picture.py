"""A picture of a CTF fit for people: the measured spectrum beside the model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from frazil.algorithms.ctf.fit import CtfDiagnostics
from frazil.algorithms.ctf.model import ctf_at
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.optics import Optics

_BLACK, _WHITE = 5.0, 99.0  # percentiles of the measured half


def spectrum_picture(ctf: Ctf, diagnostics: CtfDiagnostics, optics: Optics, size_px: int = 512) -> npt.NDArray[np.uint8]:
    """Draw a spectrum: the left half measured, the right half the model; both halves measured where there is no fit.

    Row index grows with the y frequency and column index with the x frequency; zero frequency is at pixel size/2 on both axes;
    the edge is the highest frequency of the spectrum.

    Parameters
    ----------
    ctf: the fit.
    diagnostics: of the same fit.
    optics: voltage, spherical aberration, amplitude contrast.
    size_px: of the square picture, even.

    Returns
    -------
    (size_px, size_px) uint8.
    """
    if size_px < 32 or size_px % 2:
        raise InputError("PICTURE_SIZE", f"Ask for a spectrum picture of an even size of at least 32 px, not {size_px}.")
    half = size_px // 2
    s_max = (diagnostics.spectrum.power.shape[1] - 1) * diagnostics.spectrum.step_per_angstrom
    axis = np.arange(-half, half) / half
    right = _measured(diagnostics, axis[:, None], axis[None, half:])
    left = _measured(diagnostics, -axis[:, None], -axis[None, :half])
    if ctf.fit_resolution_angstrom is not None:
        values = ctf_at(
            axis[None, half:] * s_max,
            axis[:, None] * s_max,
            defocus_u_angstrom=ctf.defocus_u_angstrom,
            defocus_v_angstrom=ctf.defocus_v_angstrom,
            defocus_angle_degrees=ctf.defocus_angle_degrees,
            phase_shift_degrees=ctf.phase_shift_degrees,
            optics=optics,
        )
        beyond = np.hypot(axis[:, None], axis[None, half:]) * s_max > 1.0 / ctf.fit_resolution_angstrom
        right = np.where(beyond, 0.5 * values**2, values**2)  # dimmer where the fit is not to be trusted
    return np.round(np.concatenate([left, right], axis=1) * 255.0).astype(np.uint8)


def _measured(diagnostics: CtfDiagnostics, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the spectrum, flattened and scaled to 0..1, at fractions of its highest frequency; x >= 0."""
    power = diagnostics.spectrum.power
    kept = power.shape[1] - 1
    value = np.log(np.maximum(power, 1e-30)) if power.any() else np.zeros(power.shape)
    ring = np.round(np.hypot(np.arange(-kept, kept + 1)[:, None], np.arange(kept + 1)[None, :])).astype(np.int64)
    level = np.bincount(ring.ravel(), value.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    spread = max(3.0, 0.06 * kept)
    flat = value - scipy.ndimage.gaussian_filter1d(level, spread, mode="nearest")[ring]
    rows, columns = np.broadcast_arrays(y * kept + kept, np.abs(x) * kept)
    values = scipy.ndimage.map_coordinates(scipy.ndimage.gaussian_filter(flat, 0.7), [rows, columns], order=1, mode="nearest")
    black, white = np.percentile(values, [_BLACK, _WHITE])
    return np.asarray(np.clip((values - black) / max(white - black, 1e-12), 0.0, 1.0), dtype=np.float64)
