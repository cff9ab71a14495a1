"""Estimation of the CTF of a micrograph, and of how its defocus changes across the field."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from frazil.algorithms.ctf.fit import (
    SAMPLING_LIMIT_PX,
    CtfDiagnostics,
    CtfSearch,
    Fit,
    finest,
    judged,
    no_fit,
    record,
    refine_spectrum,
    search_spectrum,
)
from frazil.algorithms.ctf.landscape import fit_field, levelled, refine_field
from frazil.algorithms.ctf.model import thon_lag_angstrom
from frazil.algorithms.ctf.spectrum import Tiles, tile_spectra
from frazil.algorithms.ctf.tilted import TiltedStart, tilted_start
from frazil.algorithms.ice import Ice, measure_ice
from frazil.array import Array
from frazil.model.ctf import Ctf, DefocusField
from frazil.model.errors import InputError
from frazil.model.optics import Optics

_TILE_ANGSTROM = 720.0
_VISIBLE_LAG = 0.45  # of a tile: longer tiles are taken when the Thon rings are finer than this allows
_RINGS_TO_ANGSTROM = 4.0  # how fine they must be visible
_LONGER = 1.25
_CURVES_TO_ANGSTROM = 2.8
_ICE_RING = 1.1  # times its surroundings: from there on the fit ends before the first ring of crystals
_BEFORE_ICE_ANGSTROM = 4.0
_FIELD_ROUNDS = 2
_ALIKE_ANGSTROM = 250.0
_TILTED_GAIN = 20.0  # in significance, that a start with a tilt must bring
_SIDE_MIN_PX = 64


@dataclass(frozen=True, slots=True)
class CtfEstimate:
    """The CTF of a micrograph, what a person needs to judge it, and the ice in it."""

    ctf: Ctf
    diagnostics: CtfDiagnostics
    ice: Ice


def estimate_ctf(
    micrograph: Array, *, optics: Optics, search: CtfSearch | None = None, dose_weighted: Array | None = None
) -> CtfEstimate:
    """Estimate the CTF of a micrograph from its Thon rings.

    The spectra of tiles are brought to the host, where the fit runs: one CTF for the average of all tiles, then a plane or a
    curved surface of defocus for all tiles at once where the likelihood asks for it, then the CTF again with the tiles
    levelled. Rings fade as the specimen is damaged, so that those of the dose-weighted sum are mostly stronger, but not where
    the first frames move or the rings are those of ice: the image with the more significant fit is used.

    Parameters
    ----------
    micrograph: `(y, x)`, the aligned sum without dose weighting; at least 64 px on each side.
    optics: pixel size of this image, voltage, spherical aberration, amplitude contrast.
    search: ranges.
    dose_weighted: `(y, x)`, the dose-weighted sum with its noise white, as `algorithms.dose_weighting` makes it.

    Returns
    -------
    The estimate. Without significant Thon rings (noise, a constant image) the fit resolution is None, and the other numbers
    of the CTF mean nothing.

    Raises
    ------
    InputError: the image is too small, or the pixel too large for the range of the fit.
    """
    search = search or CtfSearch()
    _check_size(micrograph.shape)
    tiles = _tiles(micrograph, optics, search, _TILE_ANGSTROM)
    ice = measure_ice(tiles.profile, tiles.step_per_angstrom)
    if not len(tiles.powers):
        return CtfEstimate(*no_fit(search, tiles.average()), ice)
    if ice.ring is not None and ice.ring > _ICE_RING and search.resolution_max_angstrom < _BEFORE_ICE_ANGSTROM:
        search = replace(search, resolution_max_angstrom=_BEFORE_ICE_ANGSTROM)
    image, fit = micrograph, search_spectrum(tiles.average(), optics, search)
    if dose_weighted is not None:
        weighted = _tiles(dose_weighted, optics, search, _TILE_ANGSTROM)
        other = _fitted_like(fit, weighted, optics, search)
        if other.refined.significance > fit.refined.significance:
            image, tiles, fit = dose_weighted, weighted, other
    rings_to = np.array(1.0 / max(_RINGS_TO_ANGSTROM, finest(optics, search)))
    wanted = float(thon_lag_angstrom(rings_to, fit.refined.at.mean, optics)) / _VISIBLE_LAG
    if fit.significant and wanted > _LONGER * fit.spectrum.tile_angstrom:
        tiles = _tiles(image, optics, search, wanted)
        fit = _fitted_like(fit, tiles, optics, search)
    fit, field = _with_field(tiles, fit, optics, search, (micrograph.shape[0], micrograph.shape[1]))
    ctf, diagnostics = judged(fit, optics, search)
    return CtfEstimate(replace(ctf, field=field if fit.significant else DefocusField()), diagnostics, ice)


def _check_size(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or min(shape) < _SIDE_MIN_PX:
        raise InputError("CTF_IMAGE_TOO_SMALL", f"A CTF fit needs an image of at least {_SIDE_MIN_PX} px a side, not {shape}.")


def _tiles(image: Array, optics: Optics, search: CtfSearch, tile_angstrom: float) -> Tiles:
    pixel_size = optics.pixel_size_angstrom
    s_max = max(1.0 / finest(optics, search), min(1.0 / _CURVES_TO_ANGSTROM, 1.0 / (SAMPLING_LIMIT_PX * pixel_size)))
    return tile_spectra(image, pixel_size_angstrom=pixel_size, tile_angstrom=tile_angstrom, s_max=s_max)


def _fitted_like(fit: Fit, tiles: Tiles, optics: Optics, search: CtfSearch) -> Fit:
    """Fit other tiles of the same micrograph, starting where a fit is already, if that one is significant."""
    spectrum = tiles.average()
    if fit.significant:
        return refine_spectrum(spectrum, fit.refined.at, optics, search)
    return search_spectrum(spectrum, optics, search)


def _with_field(tiles: Tiles, fit: Fit, optics: Optics, search: CtfSearch, shape: tuple[int, int]) -> tuple[Fit, DefocusField]:
    """Return how the defocus changes across the field, and the fit to the tiles levelled by that."""
    field = DefocusField()
    if fit.significant:
        field = fit_field(tiles, fit, record(fit, optics, search), optics, shape)
    if not field.flat:
        fit, field = _levelled(tiles, fit, field, optics, search)
    steep = tilted_start(tiles, optics, search, shape)
    if steep is None or _alike(tiles, fit, field, steep):
        return fit, field
    spectrum = levelled(tiles, steep.field, steep.mean, optics)
    other, other_field = _levelled(tiles, search_spectrum(spectrum, optics, search), steep.field, optics, search)
    if other.refined.significance > fit.refined.significance + _TILTED_GAIN:
        return other, other_field
    return fit, field


def _levelled(tiles: Tiles, fit: Fit, field: DefocusField, optics: Optics, search: CtfSearch) -> tuple[Fit, DefocusField]:
    """Refine a fit, with the tiles levelled, and a field in turns."""
    for _ in range(_FIELD_ROUNDS):
        at = fit.refined.at
        fit = refine_spectrum(levelled(tiles, field, at.mean, optics), at, optics, search)
        field = refine_field(tiles, fit, record(fit, optics, search), optics, field)
    return fit, field


def _alike(tiles: Tiles, fit: Fit, field: DefocusField, start: TiltedStart) -> bool:
    """Say whether a start would lead where a fit is already."""
    found = fit.refined.at.mean + field.at(tiles.x, tiles.y)
    return bool(np.abs(found - start.mean - start.field.at(tiles.x, tiles.y)).mean() < _ALIKE_ANGSTROM)
