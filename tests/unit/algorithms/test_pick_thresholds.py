from __future__ import annotations

import numpy as np
import pytest

from frazil.algorithms.detection.peaks import Limits
from frazil.algorithms.pick_thresholds import Calibration, Calibrations, calibrate, picked
from frazil.algorithms.picking.blob import BlobParameters, search
from frazil.model.errors import InputError
from frazil.model.optics import Optics
from frazil.model.particles import Candidates, Pick
from simulated_micrograph import Scene, simulate


def picks_of(*scores: float) -> tuple[Pick, ...]:
    return tuple(Pick(x_px=i, y_px=0.0, score=s, power=10 * s, diameter_angstrom=100.0) for i, s in enumerate(scores))


def test_the_line_is_found_among_junk() -> None:
    rng = np.random.default_rng(0)
    defocus = rng.uniform(5_000, 25_000, 60)
    scores = 0.3 + 1e-5 * (defocus - 15_000) + 0.01 * rng.normal(size=60)
    scores[:15] = rng.uniform(0.0, 1.0, 15)
    found = calibrate(defocus, scores)
    assert found.slope_per_angstrom == pytest.approx(1e-5, rel=0.15)
    good = found.calibrated(scores, 0.0)[15:] - found.slope_per_angstrom * defocus[15:]
    assert good.std() < 0.012  # what defocus explained is gone


def test_one_threshold_serves_every_defocus() -> None:
    """Particles score 0.2 + defocus/100000 and junk 0.05 less: no threshold on raw scores tells them apart."""
    calibrations = Calibrations(score=calibrate(np.linspace(5e3, 25e3, 9), 0.2 + np.linspace(5e3, 25e3, 9) / 1e5))
    for defocus in (5e3, 15e3, 25e3):
        level = 0.2 + defocus / 1e5
        picks = picks_of(level + 0.01, level - 0.01, level - 0.05)
        kept = picked(
            Candidates(picks=picks, score_min=0.0), Limits(score_min=0.32), defocus_angstrom=defocus, calibrations=calibrations
        )
        assert kept == picks[:2]


def test_few_micrographs_or_one_defocus_change_nothing() -> None:
    assert calibrate(np.array([1e4, 2e4]), np.array([0.1, 0.9])) == Calibration()
    assert calibrate(np.full(9, 1e4), np.linspace(0, 1, 9)).slope_per_angstrom == 0.0
    picks = picks_of(0.9, 0.5)
    slanted = Calibrations(score=Calibration(1.0, 0.0))
    assert picked(Candidates(picks=picks), Limits(score_min=0.4), calibrations=slanted) == picks  # no defocus is known
    with pytest.raises(InputError):
        calibrate(np.zeros(6), np.zeros(5))


def test_thresholds_are_tightened_and_loosened_on_what_was_found_once() -> None:
    truth = simulate(Scene(shape=(640, 640), pixel_size_angstrom=2.2, particle_count=30, contrast=0.5, seed=3))
    size = {"diameter_min_angstrom": truth.diameter_angstrom, "diameter_max_angstrom": truth.diameter_angstrom}
    found = search(truth.image, BlobParameters(**size), optics=Optics(pixel_size_angstrom=2.2), seed=1)
    plain = picked(found, Limits())
    assert 0 < len(plain) < len(found.picks)
    assert plain == tuple(one for one in found.picks if one.score >= found.score_min)
    powers = sorted(one.power for one in plain)
    lower = found.picks[len(plain) + 1]  # the second one below the automatic threshold
    assert picked(found, Limits(score_min=lower.score)) == found.picks[: len(plain) + 2]
    assert picked(found, Limits(score_min=plain[4].score)) == plain[:5]
    assert picked(found, Limits(power_min=powers[5])) == tuple(one for one in plain if one.power >= powers[5])
    assert picked(found, Limits(power_max=powers[-5])) == tuple(one for one in plain if one.power <= powers[-5])
    assert picked(found, Limits(max_picks=4)) == plain[:4]
