"""The fit of a CTF to an averaged spectrum: where to search, the search, the refinement, the record."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf import quality
from frazil.algorithms.ctf.model import normalised
from frazil.algorithms.ctf.quality import Curves
from frazil.algorithms.ctf.refine import Refined, refine
from frazil.algorithms.ctf.rings import FINE_SECTORS, Background, Samples, pixels, ring_visibility, rings, sectors
from frazil.algorithms.ctf.search import Start, astigmatic_starts, damped_agreement, defocus_peaks, thon_rings
from frazil.algorithms.ctf.spectrum import Spectrum
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.optics import Optics

SAMPLING_LIMIT_PX = 2.2
_STAGES_ANGSTROM = (7.0, 5.5, 4.2)  # the refinement goes to higher resolution step by step
_STARTS = 4
_SAME_ANGSTROM = 30.0  # fits that are closer than this end in the same place
# Squared signal over noise less what the priors hold against it. The best of a search in pure noise reaches 5 in the median,
# 14 once in 30 times, 17 once in 300 (600 images, white and Poisson noise, pixels of 0.8 to 2.2 Å).
_SIGNIFICANT = 22.0
_ON_BOUND_ANGSTROM = 75.0
_PHASE_STEP_DEGREES = 5.0
_HALF_TURN = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CtfSearch:
    """What is searched for, and in which rings."""

    defocus_min_angstrom: float = 1_000.0
    defocus_max_angstrom: float = 40_000.0
    resolution_min_angstrom: float = 30.0
    resolution_max_angstrom: float = 3.0  # or 2.2 px, whichever is less fine
    phase_shift_min_degrees: float = 0.0  # of a phase plate; a known one has the same minimum and maximum
    phase_shift_max_degrees: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.defocus_min_angstrom < self.defocus_max_angstrom:
            raise InputError("CTF_SEARCH_RANGE", "Give a defocus search range with 0 < minimum < maximum, in Å.")
        if not 0.0 < self.resolution_max_angstrom < self.resolution_min_angstrom:
            raise InputError("CTF_RESOLUTION_RANGE", "Give a CTF fit range whose finer resolution is the smaller number, in Å.")
        if not 0.0 <= self.phase_shift_min_degrees <= self.phase_shift_max_degrees <= _HALF_TURN:
            raise InputError("CTF_PHASE_RANGE", "Give a phase shift range with 0 <= minimum <= maximum <= 180 degrees.")

    @property
    def with_phase(self) -> bool:
        """Whether the phase shift is searched for."""
        return self.phase_shift_min_degrees < self.phase_shift_max_degrees

    @property
    def phase_shifts(self) -> npt.NDArray[np.float64]:
        """The phase shifts to start from, degrees; 180 is 0 again."""
        low, high = self.phase_shift_min_degrees, self.phase_shift_max_degrees
        grid = np.linspace(low, high, math.ceil((high - low) / _PHASE_STEP_DEGREES) + 1)
        return grid[:-1] if high - low >= _HALF_TURN else grid


@dataclass(frozen=True, slots=True)
class CtfDiagnostics:
    """What a person needs to judge a fit.

    `curves` are for a plot; `spectrum` for the picture; `significance` is the squared signal over noise of the Thon rings, less
    what the priors hold against the fit;
    `defocus_sigma_angstrom` the standard deviation of the mean defocus that noise explains.
    """

    curves: Curves
    spectrum: Spectrum
    significance: float
    defocus_sigma_angstrom: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """A refined fit to a spectrum: to the pixels `fitted`, of those that are kept for curves."""

    spectrum: Spectrum
    refined: Refined
    fitted: Samples
    samples: Samples

    @property
    def significant(self) -> bool:
        """Whether there are Thon rings."""
        return self.refined.significance >= _SIGNIFICANT


def fit_spectrum(spectrum: Spectrum, *, optics: Optics, search: CtfSearch) -> tuple[Ctf, CtfDiagnostics]:
    """Fit a CTF to an averaged spectrum: a search over defocus in rings, one over astigmatism in sectors, and damped
    Gauss-Newton on pixels (after Rohou & Grigorieff 2015, here in the logarithm of the power).

    Parameters
    ----------
    spectrum: from tiles of the micrograph.
    optics: of the micrograph.
    search: ranges.

    Returns
    -------
    The fit and its diagnostics; without significant Thon rings the fit resolution is None.
    """
    if spectrum.tile_count == 0:
        return no_fit(search, spectrum)
    return judged(search_spectrum(spectrum, optics, search), optics, search)


def finest(optics: Optics, search: CtfSearch) -> float:
    """Return the finest resolution that is fitted, Å. Raises InputError when that leaves no Thon rings."""
    limit = max(search.resolution_max_angstrom, SAMPLING_LIMIT_PX * optics.pixel_size_angstrom)
    if limit >= 0.6 * search.resolution_min_angstrom:
        raise InputError(
            "CTF_PIXEL_TOO_LARGE",
            f"Pixels of {optics.pixel_size_angstrom:g} Å leave no Thon rings between {search.resolution_min_angstrom:g} Å and "
            f"{limit:g} Å: check the pixel size, or use a micrograph that is binned less.",
        )
    return limit


def search_spectrum(spectrum: Spectrum, optics: Optics, search: CtfSearch) -> Fit:
    """Fit a spectrum that has power, over the whole range of the search."""
    samples = pixels(spectrum, 1.0 / search.resolution_min_angstrom, _reach(spectrum))
    start = _global_fit(samples.within(0.0, 1.0 / finest(optics, search)), spectrum, search, optics)
    return _refined(spectrum, samples, start, optics, search)


def refine_spectrum(spectrum: Spectrum, start: Start, optics: Optics, search: CtfSearch) -> Fit:
    """Refine a fit that is right to half a ring: on averages over narrow sectors, then on pixels."""
    samples = pixels(spectrum, 1.0 / search.resolution_min_angstrom, _reach(spectrum))
    return _refined(spectrum, samples, start, optics, search)


def judged(fit: Fit, optics: Optics, search: CtfSearch) -> tuple[Ctf, CtfDiagnostics]:
    """Return the record of a fit, with its resolution where it is significant, and the diagnostics."""
    ctf, spectrum = record(fit, optics, search), fit.spectrum
    curves = quality.curves(fit.samples, ctf, optics, spectrum)
    resolution = quality.fit_resolution(curves) if fit.significant else None
    sigma = None if resolution is None else fit.refined.mean_sigma
    return replace(ctf, fit_resolution_angstrom=resolution), CtfDiagnostics(curves, spectrum, fit.refined.significance, sigma)


def record(fit: Fit, optics: Optics, search: CtfSearch) -> Ctf:
    """Return the record of a fit that is not judged."""
    at = fit.refined.at
    half = math.hypot(at.cosine, at.sine)
    u, v, angle = normalised(at.mean + half, at.mean - half, math.degrees(0.5 * math.atan2(at.sine, at.cosine)))
    low, high = search.defocus_min_angstrom + _ON_BOUND_ANGSTROM, search.defocus_max_angstrom - _ON_BOUND_ANGSTROM
    return Ctf(
        defocus_u_angstrom=u,
        defocus_v_angstrom=v,
        defocus_angle_degrees=angle,
        phase_shift_degrees=at.phase_shift % _HALF_TURN,
        score=_score(fit, optics),
        on_bound=not low < at.mean < high,
    )


def no_fit(search: CtfSearch, spectrum: Spectrum) -> tuple[Ctf, CtfDiagnostics]:
    """Return the record of an image without any structure."""
    bound, empty = search.defocus_min_angstrom, np.zeros(0)
    ctf = Ctf(defocus_u_angstrom=bound, defocus_v_angstrom=bound, defocus_angle_degrees=0.0, on_bound=True)
    return ctf, CtfDiagnostics(Curves(empty, empty, empty, empty), spectrum, 0.0, None)


def _reach(spectrum: Spectrum) -> float:
    return float((spectrum.power.shape[1] - 0.999) * spectrum.step_per_angstrom)


def _refined(spectrum: Spectrum, samples: Samples, start: Start, optics: Optics, search: CtfSearch) -> Fit:
    fitted = samples.within(0.0, 1.0 / finest(optics, search))
    averages = sectors(fitted, spectrum.step_per_angstrom, FINE_SECTORS)
    rough = refine(averages, start, optics, spectrum.window, with_phase=search.with_phase)
    fine = refine(fitted, rough.at, optics, spectrum.window, with_phase=search.with_phase, polish=rough)
    return Fit(spectrum, fine, fitted, samples)


def _global_fit(samples: Samples, spectrum: Spectrum, search: CtfSearch, optics: Optics) -> Start:
    """Return the best of the refined starts, on averages over sectors."""
    window = spectrum.window
    averages = sectors(samples, spectrum.step_per_angstrom)
    low, high = search.defocus_min_angstrom, search.defocus_max_angstrom
    profile = rings(samples, spectrum.step_per_angstrom)
    peaks = defocus_peaks(profile, (low, high), search.phase_shifts, optics, window)
    starts = astigmatic_starts(averages, peaks, optics, window)[:_STARTS] + peaks[:1]
    s_max = float(averages.s.max())
    limits = [1.0 / r for r in _STAGES_ANGSTROM if 1.0 / r < 0.95 * s_max] + [s_max]
    ends = starts
    for limit in limits:
        inside = averages.within(0.0, limit)
        ends = _distinct([refine(inside, end, optics, window, with_phase=search.with_phase).at for end in ends])
    ends = [end for end in ends if low - _ON_BOUND_ANGSTROM <= end.mean <= high + _ON_BOUND_ANGSTROM]
    if not ends:
        return peaks[0]
    agreement = damped_agreement(averages, ends, optics, window)
    return ends[int(np.argmax(agreement))]


def _distinct(fits: list[Start]) -> list[Start]:
    """Return the fits without those that ended where another did."""
    chosen: list[Start] = []
    for fit in fits:
        if all(
            max(abs(fit.mean - other.mean), abs(fit.cosine - other.cosine), abs(fit.sine - other.sine)) > _SAME_ANGSTROM
            for other in chosen
        ):
            chosen.append(fit)
    return chosen


def _score(fit: Fit, optics: Optics) -> float:
    """Return the correlation of the pixels with CTF², both less their smooth part."""
    samples, at = fit.fitted, fit.refined.at
    background = Background(samples)
    data = background.removed(samples.value)
    visibility = ring_visibility(samples.s, at.mean, optics, fit.spectrum.window)
    model = background.removed(thon_rings(samples, at, optics)[0] * visibility)
    return float(data @ model) / max(float(np.linalg.norm(data) * np.linalg.norm(model)), 1e-30)
