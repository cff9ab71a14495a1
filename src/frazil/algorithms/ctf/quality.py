"""How far a CTF fit can be trusted: the equi-phase average, its running correlation with the model, resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frazil.algorithms.ctf.model import aberration_at, thon_lag_angstrom, wavelength_angstrom
from frazil.algorithms.ctf.rings import Samples, ring_visibility
from frazil.algorithms.ctf.spectrum import Spectrum
from frazil.algorithms.ctf.window import Floats
from frazil.model.ctf import Ctf
from frazil.model.optics import Optics

_WINDOW_RINGS = 1.5  # a window of the running correlation holds at least this many Thon rings ...
_WINDOW_BINS = 17  # ... and this many points
_THRESHOLD = 0.5
_FAILURES = 2


@dataclass(frozen=True, slots=True)
class Curves:
    """A fit along one axis, for plots; all (n,) float64.

    `s` in 1/Å along the azimuth of mean defocus; `profile` the measured Thon rings, scaled so that the model's range is 0 to 1
    where there are rings; `model` is CTF²; `correlation` of the two in a running window.
    """

    s: Floats
    profile: Floats
    model: Floats
    correlation: Floats


def equi_phase_frequency(sx: Floats, sy: Floats, ctf: Ctf, optics: Optics) -> Floats:
    """Return the frequency q at which a CTF without astigmatism has the phase of this one (Rohou & Grigorieff 2015, 2.6).

    With g the path in units of pi x wavelength, `mean q² - c q⁴ = g`, on the side of the maximum of the path where the
    sample is.

    Parameters
    ----------
    sx, sy: frequencies (n,), 1/Å.
    ctf: the fit; its phase shift does not matter.
    optics: of the micrograph.
    """
    wavelength = wavelength_angstrom(optics.voltage_kv)
    c = 0.5 * wavelength**2 * optics.spherical_aberration_mm * 1e7
    chi = aberration_at(
        sx,
        sy,
        defocus_u_angstrom=ctf.defocus_u_angstrom,
        defocus_v_angstrom=ctf.defocus_v_angstrom,
        defocus_angle_degrees=ctf.defocus_angle_degrees,
        phase_shift_degrees=0.0,
        optics=optics,
    )
    g = (chi - np.arcsin(optics.amplitude_contrast)) / (np.pi * wavelength)
    s2, mean = sx**2 + sy**2, ctf.mean_defocus_angstrom
    root = np.sqrt(np.maximum(mean**2 - 4.0 * c * g, 0.0))
    beyond = (g + c * s2**2) < 2.0 * c * s2**2  # past the maximum: defocus(azimuth) < 2 c s²
    q2 = np.where(beyond, (mean + root) / max(2.0 * c, 1e-30), 2.0 * g / np.maximum(mean + root, 1e-30))
    return np.asarray(np.sqrt(np.maximum(q2, 0.0)))


def equi_phase_average(samples: Samples, ctf: Ctf, optics: Optics, step_per_angstrom: float) -> tuple[Floats, Floats]:
    """Average samples of equal phase, so that astigmatism does not blur the rings.

    Returns
    -------
    q (n,) in 1/Å, bins one Fourier pixel wide that hold something, and the averages (n,).
    """
    bins = np.rint(equi_phase_frequency(samples.sx, samples.sy, ctf, optics) / step_per_angstrom).astype(np.int64)
    last = int(samples.s.max() / step_per_angstrom + 1e-6)
    count = np.bincount(np.minimum(bins, last + 1))[: last + 1]
    full = np.flatnonzero(count)
    average: Floats = np.bincount(np.minimum(bins, last + 1), samples.value)[full] / count[full]
    return np.asarray(full * step_per_angstrom, dtype=np.float64), average


def curves(samples: Samples, ctf: Ctf, optics: Optics, spectrum: Spectrum) -> Curves:
    """Return the curves of a fit.

    Parameters
    ----------
    samples: pixels, also beyond the range of the fit.
    ctf: the fit.
    optics, spectrum: that it was fitted to.
    """
    step = spectrum.step_per_angstrom
    s, average = equi_phase_average(samples, ctf, optics, step)
    mean = ctf.mean_defocus_angstrom
    chi = aberration_at(
        s,
        0.0 * s,
        defocus_u_angstrom=mean,
        defocus_v_angstrom=mean,
        defocus_angle_degrees=0.0,
        phase_shift_degrees=ctf.phase_shift_degrees,
        optics=optics,
    )
    visible = ring_visibility(s, mean, optics, spectrum.window)
    rings = -np.cos(2.0 * chi) * np.maximum(visible, 1e-3)
    lag = np.maximum(thon_lag_angstrom(s, mean, optics), 1e-6)
    half_widths = np.maximum(_WINDOW_RINGS / lag / 2.0, 0.5 * _WINDOW_BINS * step)
    rows = [_window(s, average, rings, float(at), float(half)) for at, half in zip(s, half_widths, strict=True)]
    correlation, trend, amplitude = (np.array(column) for column in zip(*rows, strict=True))
    floor = 0.05 * float(np.max(np.abs(amplitude), initial=0.0))
    scale = np.maximum(np.abs(amplitude), max(floor, 1e-12)) * np.maximum(visible, 1e-3)
    profile = 0.5 + 0.5 * (average - trend) / scale
    return Curves(s, np.clip(profile, -1.0, 2.0), np.sin(chi) ** 2, correlation)


def fit_resolution(found: Curves) -> float | None:
    """Return the resolution in Å up to which the model describes the rings; None when it never does.

    It is the last frequency at which the running correlation reaches 0.5 before two windows in a row fail to; the first
    window that reaches it must lie in the lower third of the range (criterion of Rohou & Grigorieff 2015).
    """
    good = found.correlation >= _THRESHOLD
    if not good.any():
        return None
    first = int(np.argmax(good))
    if first > max(2, found.s.size // 3):
        return None
    last, failures = first, 0
    for i in range(first, found.s.size):
        if good[i]:
            last, failures = i, 0
        else:
            failures += 1
            if failures >= _FAILURES:
                break
    return float(1.0 / found.s[last]) if found.s[last] > 0 else None


def _window(s: Floats, average: Floats, rings: Floats, at: float, half_width: float) -> tuple[float, float, float]:
    """Return correlation, smooth part at the window's centre and amplitude of the rings there; linear trends removed."""
    low, high = np.searchsorted(s, [at - half_width, at + half_width * (1.0 + 1e-9)])
    x, y, r = s[low:high] - at, average[low:high], rings[low:high]
    if x.size < 5:
        return 0.0, float(y.mean()), 0.0
    line = np.linalg.qr(np.stack([np.ones_like(x), x], axis=1))[0]
    y_left, r_left = y - line @ (line.T @ y), r - line @ (line.T @ r)
    norm = float(np.linalg.norm(r_left))
    amplitude = float(y_left @ r_left) / max(norm**2, 1e-12)
    correlation = float(y_left @ r_left) / max(norm * float(np.linalg.norm(y_left)), 1e-12)
    rest = y - amplitude * r
    level = float(np.polynomial.polynomial.polyfit(x, rest, 1)[0])
    return correlation, level, amplitude
