"""Preprocessing: gain, defects, motion and dose, the CTF, a thumbnail, picking and extraction of one movie, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.fit import CtfDiagnostics, estimate_ctf
from frazil.algorithms.extraction import Extraction, extract
from frazil.algorithms.motion.correct import CorrectedMovie, correct_movie
from frazil.algorithms.super_resolution import crop_movie
from frazil.algorithms.thumbnail import thumbnail
from frazil.array import to_host
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.particles import Pick
from frazil_preprocess.settings import Settings
from frazil_preprocess.stages import Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessed:
    """What preprocessing found in one movie; pixels on the host, `(y, x)` as in the movie."""

    corrected: CorrectedMovie
    micrograph: npt.NDArray[np.float32]
    thumbnail: npt.NDArray[np.uint8]
    ctf: Ctf
    diagnostics: CtfDiagnostics
    picks: tuple[Pick, ...]
    particles: Extraction


def preprocess(movie: npt.NDArray[Any], settings: Settings, stages: Stages, xp: Any) -> Preprocessed:
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
    with stages.stage("ctf"):
        ctf, diagnostics = estimate_ctf(corrected.plain, optics=optics)
    with stages.stage("thumbnail"):
        picture = thumbnail(corrected.dose_weighted, pixel_size_angstrom=optics.pixel_size_angstrom)
    with stages.stage("pick"):
        fitted = None if ctf.fit_resolution_angstrom is None else ctf
        picks = settings.picker.pick(corrected.dose_weighted, settings.picking, optics=optics, ctf=fitted, seed=settings.seed)
    with stages.stage("extract"):
        particles = extract(
            corrected.dose_weighted,
            picks,
            box=settings.box,
            pixel_size_angstrom=optics.pixel_size_angstrom,
            particle_diameter_angstrom=settings.particle_diameter_angstrom,
            seed=settings.seed,
        )
    return Preprocessed(
        corrected=corrected,
        micrograph=to_host(corrected.dose_weighted),
        thumbnail=to_host(picture),
        ctf=ctf,
        diagnostics=diagnostics,
        picks=picks,
        particles=particles,
    )
