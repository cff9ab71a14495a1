"""Preprocessing: gain, defects, motion and dose, the CTF, a thumbnail, picking and extraction of one movie, in this order.

A changed parameter starts it in the middle, from the micrograph, the fit or the candidates that an earlier attempt has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.estimate import CtfEstimate, estimate_ctf
from frazil.algorithms.extraction import Extraction, extract
from frazil.algorithms.motion.correct import CorrectedMovie, correct_movie
from frazil.algorithms.pick_thresholds import kept
from frazil.algorithms.super_resolution import crop_movie
from frazil.algorithms.thumbnail import thumbnail
from frazil.array import to_device, to_host
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.particles import Candidates
from frazil.model.stages import redone
from frazil_preprocess.intermediates import Intermediates
from frazil_preprocess.settings import MovieSettings, Settings
from frazil_preprocess.stages import Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What motion correction makes of a movie; pixels on the host, `(y, x)` as in the movie."""

    settings: MovieSettings
    corrected: CorrectedMovie
    micrograph: npt.NDArray[np.float32]
    unweighted: npt.NDArray[np.float32]
    thumbnail: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessed:
    """What preprocessing found in one movie. What was taken over from an earlier attempt and not looked at again is None."""

    moved: Moved | None
    ctf: Ctf
    estimate: CtfEstimate | None  # that gave this CTF
    candidates: Candidates
    picked: npt.NDArray[np.int64]  # indices of the candidates that the thresholds leave
    particles: Extraction  # its `kept` are indices of `picked`


def preprocess(movie: npt.NDArray[Any], settings: MovieSettings, stages: Stages, xp: Any) -> Preprocessed:
    """Take one movie `(frame, y, x)` to micrograph, CTF, picks and particles on the backend `xp`.

    Raises InputError when the movie holds no image, or the settings do not fit it.
    """
    optics, gain, defects = settings.optics, settings.gain, settings.defects
    if settings.load_crop > 1:
        with stages.stage("crop"):
            movie, gain, defects = crop_movie(movie, gain, defects, settings.load_crop, xp=xp, seed=settings.seed), None, None
    with stages.stage("motion"):
        corrected = correct_movie(movie, gain, defects, optics, xp=xp, seed=settings.seed)
    if not float(xp.max(corrected.plain)) > float(xp.min(corrected.plain)):
        raise InputError("MOVIE_BLANK", "The movie holds no image: every pixel is alike, or none is a number.")
    with stages.stage("thumbnail"):
        picture = thumbnail(corrected.dose_weighted, pixel_size_angstrom=optics.pixel_size_angstrom)
    with stages.stage("ctf"):
        estimate = _estimate(corrected.plain, corrected.dose_weighted, settings)
    candidates = _search(corrected.dose_weighted, settings, estimate.ctf, stages)
    picked, particles = _extract(corrected.dose_weighted, candidates, settings, stages)
    moved = Moved(
        settings=settings,
        corrected=corrected,
        micrograph=to_host(corrected.dose_weighted),
        unweighted=to_host(corrected.plain),
        thumbnail=to_host(picture),
    )
    return Preprocessed(
        moved=moved, ctf=estimate.ctf, estimate=estimate, candidates=candidates, picked=picked, particles=particles
    )


def reprocess(before: Intermediates, settings: Settings, first_stage: str, stages: Stages, xp: Any) -> Preprocessed:
    """Redo one exposure from a stage after motion correction on, from what an earlier attempt has left.

    Raises InputError when that is gone or damaged, or the settings do not fit it.
    """
    with stages.stage("read"):
        micrograph = to_device(before.micrograph(), xp)
    ctf, estimate, candidates = before.ctf, None, None
    if redone("ctf", first_stage):
        with stages.stage("ctf"):
            estimate = _estimate(to_device(before.unweighted(), xp), micrograph, settings)
            ctf = estimate.ctf
    if redone("pick", first_stage):
        candidates = _search(micrograph, settings, ctf, stages)
    if candidates is None:
        candidates = before.candidates()
    picked, particles = _extract(micrograph, candidates, settings, stages)
    return Preprocessed(moved=None, ctf=ctf, estimate=estimate, candidates=candidates, picked=picked, particles=particles)


def _estimate(plain: Any, dose_weighted: Any, settings: Settings) -> CtfEstimate:
    return estimate_ctf(plain, optics=settings.optics, search=settings.ctf_search, dose_weighted=dose_weighted)


def _search(micrograph: Any, settings: Settings, ctf: Ctf, stages: Stages) -> Candidates:
    with stages.stage("pick"):
        fitted = None if ctf.fit_resolution_angstrom is None else ctf
        return settings.picker.search(micrograph, settings.picking, optics=settings.optics, ctf=fitted, seed=settings.seed)


def _extract(
    micrograph: Any, candidates: Candidates, settings: Settings, stages: Stages
) -> tuple[npt.NDArray[np.int64], Extraction]:
    with stages.stage("extract"):
        picked = kept(candidates, settings.limits)
        return picked, extract(
            micrograph,
            [candidates.picks[index] for index in picked],
            box=settings.box,
            pixel_size_angstrom=settings.optics.pixel_size_angstrom,
            particle_diameter_angstrom=settings.particle_diameter_angstrom,
            seed=settings.seed,
        )
