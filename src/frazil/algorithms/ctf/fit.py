"""Estimation of the CTF of a micrograph."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf import quality
from frazil.algorithms.ctf.model import normalised, thon_lag_angstrom
from frazil.algorithms.ctf.quality import Curves
from frazil.algorithms.ctf.refine import Refined, refine
from frazil.algorithms.ctf.rings import Background, Samples, hann_visibility, pixels, rings, sectors
from frazil.algorithms.ctf.search import Start, astigmatic_starts, damped_agreement, defocus_peaks, thon_rings
from frazil.algorithms.ctf.spectrum import Spectrum, average_spectrum
from frazil.array import Array
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.optics import Optics

_TILE_ANGSTROM = 720.0
_VISIBLE_LAG = 0.45  # of a tile: longer tiles are taken when the Thon rings are finer than this allows
_SAMPLING_LIMIT_PX = 2.2
_CURVES_TO_ANGSTROM = 3.0
_STAGES_ANGSTROM = (7.0, 5.5)  # the refinement goes to higher resolution step by step
_STARTS = 4
# Squared signal over noise less what the priors hold against it. The best of a search in pure noise reaches 5 in the median,
# 14 once in 30 times, 17 once in 300 (600 images, white and Poisson noise, pixels of 0.8 to 2.2 Å).
_SIGNIFICANT = 22.0
_ON_BOUND_ANGSTROM = 75.0
_PHASE_STEP_DEGREES = 5.0
_SIDE_MIN_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CtfSearch:
    """What is searched for, and in which rings."""

    defocus_min_angstrom: float = 1_000.0
    defocus_max_angstrom: float = 40_000.0
    resolution_min_angstrom: float = 30.0
    resolution_max_angstrom: float = 4.0  # or 2.2 px, whichever is less fine
    phase_shift_degrees: float = 0.0  # of a phase plate, where known
    phase_shift_search: bool = False  # search for it from 0 to 180 degrees

    def __post_init__(self) -> None:
        if not 0.0 < self.defocus_min_angstrom < self.defocus_max_angstrom:
            raise InputError("CTF_SEARCH_RANGE", "Give a defocus search range with 0 < minimum < maximum, in Å.")
        if not 0.0 < self.resolution_max_angstrom < self.resolution_min_angstrom:
            raise InputError("CTF_RESOLUTION_RANGE", "Give a CTF fit range whose finer resolution is the smaller number, in Å.")


@dataclass(frozen=True, slots=True)
class CtfDiagnostics:
    """What a person needs to judge a fit.

    `curves` are for a plot; `spectrum` for the picture; `significance` is the squared signal over noise of the Thon rings, less
    what the priors hold against the fit;
    `defocus_sigma_angstrom` the standard deviation of the mean defocus that noise explains; `ice_ring` the power of the
    crystalline ice ring over its surroundings, None where Nyquist hides it.
    """

    curves: Curves
    spectrum: Spectrum
    significance: float
    defocus_sigma_angstrom: float | None
    ice_ring: float | None


def estimate_ctf(micrograph: Array, *, optics: Optics, search: CtfSearch | None = None) -> tuple[Ctf, CtfDiagnostics]:
    """Estimate the CTF of a micrograph from its Thon rings.

    The averaged spectrum is brought to the host, where the fit runs: a search over defocus in rings, one over astigmatism in
    sectors, and damped Gauss-Newton on pixels (after Rohou & Grigorieff 2015, here in the logarithm of the power).

    Parameters
    ----------
    micrograph: `(y, x)`, the aligned sum **without** dose weighting; at least 64 px on each side.
    optics: pixel size of this image, voltage, spherical aberration, amplitude contrast.
    search: ranges.

    Returns
    -------
    The fit and its diagnostics. Without significant Thon rings (noise, a constant image) the fit resolution is None, and the
    other numbers mean nothing.

    Raises
    ------
    InputError: the image is too small, or the pixel too large for the range of the fit.
    """
    search = search or CtfSearch()
    _check_size(micrograph.shape)
    finest = _finest(optics, search)
    s_max = max(1.0 / finest, min(1.0 / _CURVES_TO_ANGSTROM, 1.0 / (_SAMPLING_LIMIT_PX * optics.pixel_size_angstrom)))

    def spectrum_of(tile_angstrom: float) -> Spectrum:
        return average_spectrum(
            micrograph, pixel_size_angstrom=optics.pixel_size_angstrom, tile_angstrom=tile_angstrom, s_max=s_max
        )

    spectrum = spectrum_of(_TILE_ANGSTROM)
    ctf, diagnostics = fit_spectrum(spectrum, optics=optics, search=search)
    wanted = float(thon_lag_angstrom(np.array(1.0 / finest), ctf.mean_defocus_angstrom, optics)) / _VISIBLE_LAG
    if ctf.fit_resolution_angstrom is None or wanted < 1.25 * spectrum.tile_angstrom:
        return ctf, diagnostics
    return fit_spectrum(spectrum_of(wanted), optics=optics, search=search, start=ctf)


def fit_spectrum(
    spectrum: Spectrum, *, optics: Optics, search: CtfSearch, start: Ctf | None = None
) -> tuple[Ctf, CtfDiagnostics]:
    """Fit a CTF to an averaged spectrum.

    Parameters
    ----------
    spectrum: from tiles of the micrograph.
    optics: of the micrograph.
    search: ranges.
    start: a fit to refine; without it the whole range is searched.

    Returns
    -------
    See `estimate_ctf`.
    """
    if spectrum.tile_count == 0:
        return _no_fit(search, spectrum)
    s_min, reach = 1.0 / search.resolution_min_angstrom, (spectrum.power.shape[1] - 0.999) * spectrum.step_per_angstrom
    samples = pixels(spectrum, s_min, reach)
    fitted = samples.within(s_min, min(reach, 1.0 / _finest(optics, search)))
    at = _global_fit(fitted, spectrum, search, optics) if start is None else _start_of(start)
    refined = refine(fitted, at, optics, spectrum.tile_angstrom, with_phase=search.phase_shift_search)
    ctf = _record(refined.at, fitted, search, optics, spectrum.tile_angstrom)
    return _judged(ctf, refined, samples, spectrum, optics)


def _check_size(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or min(shape) < _SIDE_MIN_PX:
        raise InputError("CTF_IMAGE_TOO_SMALL", f"A CTF fit needs an image of at least {_SIDE_MIN_PX} px a side, not {shape}.")


def _finest(optics: Optics, search: CtfSearch) -> float:
    finest = max(search.resolution_max_angstrom, _SAMPLING_LIMIT_PX * optics.pixel_size_angstrom)
    if finest >= 0.6 * search.resolution_min_angstrom:
        raise InputError(
            "CTF_PIXEL_TOO_LARGE",
            f"Pixels of {optics.pixel_size_angstrom:g} Å leave no Thon rings between {search.resolution_min_angstrom:g} Å and "
            f"{finest:g} Å: check the pixel size, or use a micrograph that is binned less.",
        )
    return finest


def _global_fit(samples: Samples, spectrum: Spectrum, search: CtfSearch, optics: Optics) -> Start:
    """Return the best of the refined starts, on averages over sectors."""
    averages = sectors(samples, spectrum.step_per_angstrom)
    low, high = search.defocus_min_angstrom, search.defocus_max_angstrom
    profile = rings(samples, spectrum.step_per_angstrom)
    peaks = defocus_peaks(profile, (low, high), _phase_shifts(search), optics, spectrum.tile_angstrom)
    starts = astigmatic_starts(averages, peaks, optics, spectrum.tile_angstrom)[:_STARTS] + peaks[:1]
    s_max = float(averages.s.max())
    limits = [1.0 / r for r in _STAGES_ANGSTROM if 1.0 / r < 0.95 * s_max] + [s_max]
    ends = []
    for start in starts:
        for limit in limits:
            inside = averages.within(0.0, limit)
            start = refine(inside, start, optics, spectrum.tile_angstrom, with_phase=search.phase_shift_search).at
        ends.append(start)
    ends = [end for end in ends if low - _ON_BOUND_ANGSTROM <= end.mean <= high + _ON_BOUND_ANGSTROM]
    if not ends:
        return peaks[0]
    agreement = damped_agreement(averages, ends, optics, spectrum.tile_angstrom)
    return ends[int(np.argmax(agreement))]


def _start_of(ctf: Ctf) -> Start:
    doubled, half = math.radians(2.0 * ctf.defocus_angle_degrees), 0.5 * ctf.astigmatism_angstrom
    return Start(ctf.mean_defocus_angstrom, half * math.cos(doubled), half * math.sin(doubled), ctf.phase_shift_degrees)


def _phase_shifts(search: CtfSearch) -> npt.NDArray[np.float64]:
    if search.phase_shift_search:
        return np.arange(0.0, 180.0, _PHASE_STEP_DEGREES)
    return np.array([search.phase_shift_degrees])


def _record(at: Start, fitted: Samples, search: CtfSearch, optics: Optics, tile_angstrom: float) -> Ctf:
    """Return the record of a fit that is not yet judged."""
    half = math.hypot(at.cosine, at.sine)
    u, v, angle = normalised(at.mean + half, at.mean - half, math.degrees(0.5 * math.atan2(at.sine, at.cosine)))
    low, high = search.defocus_min_angstrom + _ON_BOUND_ANGSTROM, search.defocus_max_angstrom - _ON_BOUND_ANGSTROM
    return Ctf(
        defocus_u_angstrom=u,
        defocus_v_angstrom=v,
        defocus_angle_degrees=angle,
        phase_shift_degrees=at.phase_shift % 180.0,
        score=_score(fitted, at, optics, tile_angstrom),
        on_bound=not low < at.mean < high,
    )


def _judged(ctf: Ctf, refined: Refined, samples: Samples, spectrum: Spectrum, optics: Optics) -> tuple[Ctf, CtfDiagnostics]:
    """Add the resolution, where there is a fit, and the diagnostics."""
    curves = quality.curves(samples, ctf, optics, spectrum.step_per_angstrom)
    resolution = quality.fit_resolution(curves) if refined.significance >= _SIGNIFICANT else None
    sigma = None if resolution is None else refined.mean_sigma
    diagnostics = CtfDiagnostics(curves, spectrum, refined.significance, sigma, quality.ice_ring(samples))
    return replace(ctf, fit_resolution_angstrom=resolution), diagnostics


def _score(samples: Samples, at: Start, optics: Optics, tile_angstrom: float) -> float:
    """Return the correlation of the pixels with CTF², both less their smooth part."""
    background = Background(samples)
    data = background.removed(samples.value)
    model = background.removed(thon_rings(samples, at, optics)[0] * hann_visibility(samples.s, at.mean, optics, tile_angstrom))
    return float(data @ model) / max(float(np.linalg.norm(data) * np.linalg.norm(model)), 1e-30)


def _no_fit(search: CtfSearch, spectrum: Spectrum) -> tuple[Ctf, CtfDiagnostics]:
    """Return the record of an image without any structure."""
    bound, empty = search.defocus_min_angstrom, np.zeros(0)
    ctf = Ctf(defocus_u_angstrom=bound, defocus_v_angstrom=bound, defocus_angle_degrees=0.0, on_bound=True)
    return ctf, CtfDiagnostics(Curves(empty, empty, empty, empty), spectrum, 0.0, None, None)
