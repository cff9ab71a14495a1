"""The contrast transfer function as a function of spatial frequency. Signs and units: docs/conventions.md.

Everything is written in Cartesian frequencies, `s² cos 2a = sx² - sy²` and `s² sin 2a = 2 sx sy`, so that no angle of a
frequency is ever computed and zero frequency is not special.
"""

from __future__ import annotations

import math
from typing import Any

from frazil.array import Array, namespace
from frazil.model.ctf import Ctf
from frazil.model.optics import Optics
from frazil.primitives.fourier import frequencies

_ANGSTROM_PER_MM = 1e7


def wavelength_angstrom(voltage_kv: float) -> float:
    """Return the relativistic wavelength of the electrons: 0.0196876 Å at 300 kV."""
    volts = voltage_kv * 1e3
    return 12.2643247 / math.sqrt(volts * (1.0 + 0.978466e-6 * volts))


def aberration_at(
    frequency_x: Array,
    frequency_y: Array,
    *,
    defocus_u_angstrom: Array | float,
    defocus_v_angstrom: Array | float,
    defocus_angle_degrees: Array | float,
    phase_shift_degrees: Array | float = 0.0,
    optics: Optics,
) -> Array:
    """Return chi, the phase of the CTF (RELION's convention; Rohou & Grigorieff 2015, eq. 3, with underfocus positive).

    Parameters
    ----------
    frequency_x, frequency_y: 1/Å; they broadcast together and decide the dtype.
    defocus_u_angstrom, defocus_v_angstrom, defocus_angle_degrees, phase_shift_degrees: numbers, or arrays that broadcast
        with the frequencies, e.g. `(particle, 1)` against `(coefficient,)`.
    optics: voltage, spherical aberration and amplitude contrast are used; the pixel size is not.

    Returns
    -------
    chi in rad, of the broadcast shape.
    """
    xp = namespace(frequency_x, frequency_y)

    def parameter(value: Array | float) -> Array:
        return xp.asarray(value, dtype=frequency_x.dtype)

    u, v = parameter(defocus_u_angstrom), parameter(defocus_v_angstrom)
    doubled = parameter(defocus_angle_degrees) * (math.pi / 90.0)
    wavelength = wavelength_angstrom(optics.voltage_kv)
    spherical = 0.5 * wavelength**2 * optics.spherical_aberration_mm * _ANGSTROM_PER_MM
    x2, y2 = frequency_x * frequency_x, frequency_y * frequency_y
    s2 = x2 + y2
    half_astigmatism = 0.5 * (u - v)
    path = s2 * (0.5 * (u + v) - spherical * s2)
    path = path + half_astigmatism * xp.cos(doubled) * (x2 - y2)
    path = path + half_astigmatism * xp.sin(doubled) * (2.0 * frequency_x * frequency_y)
    offset = parameter(phase_shift_degrees) * (math.pi / 180.0) + math.asin(optics.amplitude_contrast)
    return path * (math.pi * wavelength) + offset


def ctf_at(
    frequency_x: Array,
    frequency_y: Array,
    *,
    defocus_u_angstrom: Array | float,
    defocus_v_angstrom: Array | float,
    defocus_angle_degrees: Array | float,
    phase_shift_degrees: Array | float = 0.0,
    optics: Optics,
) -> Array:
    """Return the CTF for white particles, `+sin chi`; a raw, dark micrograph is minus the CTF times the projection.

    Parameters are those of `aberration_at`; the result has the broadcast shape and the frequencies' dtype.
    """
    chi = aberration_at(
        frequency_x,
        frequency_y,
        defocus_u_angstrom=defocus_u_angstrom,
        defocus_v_angstrom=defocus_v_angstrom,
        defocus_angle_degrees=defocus_angle_degrees,
        phase_shift_degrees=phase_shift_degrees,
        optics=optics,
    )
    return namespace(chi).sin(chi)


def ctf_2d(shape: tuple[int, int], ctf: Ctf, optics: Optics, xp: Any, *, half: bool = True, dtype: Any = None) -> Array:
    """Return the CTF at every coefficient of an image's transform, in FFT order.

    Parameters
    ----------
    shape: `(y, x)` of the real image.
    ctf: the fit.
    optics: with the pixel size of the image at hand, which after a Fourier crop is not the micrograph's.
    xp: the array module.
    half: the layout of `rfft2`, else the full transform.
    dtype: float32 unless told.

    Returns
    -------
    `(y, x // 2 + 1)` or `(y, x)`.
    """
    ky, kx = frequencies(shape, xp, half=half, dtype=dtype)
    return ctf_at(
        kx / optics.pixel_size_angstrom,
        ky / optics.pixel_size_angstrom,
        defocus_u_angstrom=ctf.defocus_u_angstrom,
        defocus_v_angstrom=ctf.defocus_v_angstrom,
        defocus_angle_degrees=ctf.defocus_angle_degrees,
        phase_shift_degrees=ctf.phase_shift_degrees,
        optics=optics,
    )


def normalised(defocus_u_angstrom: float, defocus_v_angstrom: float, angle_degrees: float) -> tuple[float, float, float]:
    """Return the same astigmatism with U >= V and the angle in [0, 180) degrees."""
    if defocus_u_angstrom < defocus_v_angstrom:
        defocus_u_angstrom, defocus_v_angstrom, angle_degrees = defocus_v_angstrom, defocus_u_angstrom, angle_degrees + 90.0
    angle_degrees %= 180.0
    return defocus_u_angstrom, defocus_v_angstrom, angle_degrees if angle_degrees < 180.0 else 0.0


def thon_lag_angstrom(s: Array, mean_defocus_angstrom: Array | float, optics: Optics) -> Array:
    """Return the local frequency of the Thon rings in `CTF²`, rings per 1/Å: the shift, in Å, between a detail's two images.

    A spectrum taken from tiles much shorter than this cannot show the rings.
    """
    wavelength = wavelength_angstrom(optics.voltage_kv)
    spherical = wavelength**2 * optics.spherical_aberration_mm * _ANGSTROM_PER_MM
    return namespace(s).abs(2.0 * wavelength * s * (mean_defocus_angstrom - spherical * s * s))
