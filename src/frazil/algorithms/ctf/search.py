"""Where to start a CTF fit: a search over defocus (and phase shift) in rings, then over astigmatism in sectors.

Scores are normalised correlations of the logarithm of the spectrum with the Thon rings, both less their smooth part, so that
defoci are compared fairly whether their rings are many or few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.model import aberration_at
from frazil.algorithms.ctf.rings import Background, Samples, inner, ring_visibility
from frazil.algorithms.ctf.window import Floats, Window
from frazil.model.optics import Optics

_DEFOCUS_STEP = 75.0
_ENVELOPES = (0.0, 80.0, 250.0)  # B of the power's decay that are tried, Å²
_CHOOSING_ENVELOPES = (80.0, 250.0)
_PEAKS = 6
_PEAKS_APART = 400.0
_COARSE_S_MAX = 1.0 / 7.0
_MEAN_STEPS = np.arange(-600.0, 601.0, 200.0)
_ASTIGMATISM_STEP = 300.0
_ASTIGMATISM_REACH = 1500.0  # of half of U - V


@dataclass(frozen=True, slots=True)
class Start:
    """A place to start from: defocus `mean + cosine cos 2a + sine sin 2a`, Å; phase shift in degrees."""

    mean: float
    cosine: float = 0.0
    sine: float = 0.0
    phase_shift: float = 0.0
    score: float = 0.0


def thon_rings(samples: Samples, start: Start, optics: Optics) -> tuple[Floats, Floats]:
    """Return `-cos 2 chi` and chi at samples (n,)."""
    astigmatism = np.hypot(start.cosine, start.sine)
    chi: Floats = aberration_at(
        samples.sx,
        samples.sy,
        defocus_u_angstrom=start.mean + astigmatism,
        defocus_v_angstrom=start.mean - astigmatism,
        defocus_angle_degrees=np.rad2deg(0.5 * np.arctan2(start.sine, start.cosine)),
        phase_shift_degrees=start.phase_shift,
        optics=optics,
    )
    return -np.cos(2.0 * chi), chi


def defocus_peaks(
    profile: Samples, bounds: tuple[float, float], phase_shifts: npt.NDArray[np.float64], optics: Optics, window: Window
) -> list[Start]:
    """Return the best defoci without astigmatism, best first.

    Parameters
    ----------
    profile: averages over rings.
    bounds: least and greatest defocus, Å.
    phase_shifts: to try, degrees.
    optics, window: of the spectrum.
    """
    background = Background(profile)
    data = background.removed(profile.value)
    data = data / max(float(np.linalg.norm(data)), 1e-30)
    count = max(2, round((bounds[1] - bounds[0]) / _DEFOCUS_STEP) + 1)
    grid = np.linspace(bounds[0], bounds[1], count)
    visibility = ring_visibility(profile.s[None, :], grid[:, None], optics, window)
    peaks = []
    for phase_shift in phase_shifts:
        chi = aberration_at(
            profile.sx[None, :],
            profile.sy[None, :],
            defocus_u_angstrom=grid[:, None],
            defocus_v_angstrom=grid[:, None],
            defocus_angle_degrees=0.0,
            phase_shift_degrees=float(phase_shift),
            optics=optics,
        )
        rings = -np.cos(2.0 * chi) * visibility
        scores = np.max([_scores(rings * np.exp(-0.5 * b * profile.s**2), data, background) for b in _ENVELOPES], axis=0)
        peaks += [Start(float(grid[i]), phase_shift=float(phase_shift), score=float(scores[i])) for i in _maxima(scores)]
    return _apart(peaks)


def astigmatic_starts(averages: Samples, peaks: list[Start], optics: Optics, window: Window) -> list[Start]:
    """Return, for each peak, the best astigmatism on a coarse grid at low resolution, best first.

    Parameters
    ----------
    averages: averages over sectors.
    peaks: of `defocus_peaks`.
    optics, window: of the spectrum.
    """
    samples = averages.within(0.0, max(_COARSE_S_MAX, float(np.quantile(averages.s, 0.3))))
    background = Background(samples)
    data = background.removed(samples.value)
    data = data / max(float(np.linalg.norm(data)), 1e-30)
    axis = np.arange(-_ASTIGMATISM_REACH, _ASTIGMATISM_REACH + 1.0, _ASTIGMATISM_STEP)
    cosine, sine = (a.ravel() for a in np.meshgrid(axis, axis))
    disc = np.hypot(cosine, sine) <= _ASTIGMATISM_REACH
    cosine, sine = cosine[disc], sine[disc]
    starts = []
    for peak in peaks:
        envelope = np.exp(-0.5 * _ENVELOPES[1] * samples.s**2) * ring_visibility(samples.s, peak.mean, optics, window)
        best = Start(peak.mean, phase_shift=peak.phase_shift, score=-1.0)
        for step in _MEAN_STEPS:
            astigmatism = np.hypot(cosine, sine)[:, None]
            chi = aberration_at(
                samples.sx[None, :],
                samples.sy[None, :],
                defocus_u_angstrom=peak.mean + step + astigmatism,
                defocus_v_angstrom=peak.mean + step - astigmatism,
                defocus_angle_degrees=np.rad2deg(0.5 * np.arctan2(sine, cosine))[:, None],
                phase_shift_degrees=peak.phase_shift,
                optics=optics,
            )
            scores = _scores(-np.cos(2.0 * chi) * envelope, data, background)
            i = int(np.argmax(scores))
            if scores[i] > best.score:
                best = Start(peak.mean + float(step), float(cosine[i]), float(sine[i]), peak.phase_shift, float(scores[i]))
        starts.append(best)
    return sorted(starts, key=lambda start: -start.score)


def damped_agreement(averages: Samples, fits: list[Start], optics: Optics, window: Window) -> Floats:
    """Return how well each fit agrees with the data, for choosing among fits: mean correlation under decaying envelopes.

    The likelihood at the finest resolution must not choose: beyond the last visible ring it rewards a low defocus, whose few
    broad rings can take up what the background model leaves, over the right one with its many narrow rings.

    Parameters
    ----------
    averages: averages over sectors.
    fits: to compare.
    optics, window: of the spectrum.
    """
    background = Background(averages)
    data = background.removed(averages.value)
    data = data / max(float(np.linalg.norm(data)), 1e-30)
    rings = np.stack(
        [thon_rings(averages, fit, optics)[0] * ring_visibility(averages.s, fit.mean, optics, window) for fit in fits]
    )
    found: Floats = np.mean(
        [_scores(rings * np.exp(-0.5 * b * averages.s**2), data, background) for b in _CHOOSING_ENVELOPES], axis=0
    )
    return found


def _scores(templates: Floats, data: Floats, background: Background) -> Floats:
    """Return the correlation of templates (m, n) with data that is root-weighted, smooth part removed, of norm 1."""
    weighted = templates * background.root
    rough = np.einsum("mn,mn->m", weighted, weighted) - (background.smooth_parts(weighted) ** 2).sum(axis=1)
    return np.asarray(inner(weighted, data[None, :])[:, 0] / np.sqrt(np.maximum(rough, 1e-24)))


def _maxima(scores: Floats) -> npt.NDArray[np.int64]:
    padded = np.concatenate([[-np.inf], scores, [-np.inf]])
    return np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:]))


def _apart(peaks: list[Start]) -> list[Start]:
    chosen: list[Start] = []
    for peak in sorted(peaks, key=lambda p: -p.score):
        if len(chosen) == _PEAKS:
            break
        if all(abs(peak.mean - other.mean) >= _PEAKS_APART for other in chosen):
            chosen.append(peak)
    return chosen
