import shutil
import subprocess

import numpy as np
import pytest

from frazil.algorithms.refine3d.fsc import (
    corrected_fsc,
    fourier_shell_correlation,
    last_shell_above,
    randomise_phases,
    resolution_angstrom,
)
from frazil.algorithms.refine3d.mask import automatic_mask
from frazil.algorithms.refine3d.sharpening import guinier, sharpen
from frazil.algorithms.refine3d.trend import fit_trend
from frazil.io.mrc import write_mrc
from frazil.primitives.volumes import half_transform, low_pass, radius_from_centre, shell_indices, soft_sphere, transform_radius

SIZE, PIXEL = 40, 2.0
BOX = SIZE * PIXEL


def noise(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(size,) * 3).astype(np.float32)


def decaying(seed: int, b_factor: float) -> np.ndarray:
    """Point scatterers within a ball, blurred by a B factor: mean amplitude falls as exp(-B s^2 / 4)."""
    points = noise(seed) * (radius_from_centre(SIZE, np) < SIZE / 5)
    blur = np.exp(-b_factor / 4 * (transform_radius(SIZE, np) / BOX) ** 2)
    return np.fft.irfftn(np.fft.rfftn(points) * blur, s=points.shape, axes=(0, 1, 2)).astype(np.float32)


def test_a_map_correlates_with_itself_and_not_with_noise():
    volume = noise(1)
    np.testing.assert_allclose(fourier_shell_correlation(volume, 2 * volume), 1, atol=1e-6)
    members = np.bincount(shell_indices(SIZE, np).ravel())[: SIZE // 2 + 1]
    assert (np.abs(fourier_shell_correlation(volume, noise(2)))[1:] < 4 / np.sqrt(members[1:])).all()


def test_half_a_voxel_of_shift_shows_as_the_sinc_of_each_shell():
    """The mean of cos(2 pi k.t / N) over a sphere is sinc(2 k t / N): catches an origin at (N-1)/2."""
    volume = low_pass(noise(3), SIZE / 2 - 1, 0)
    transform = np.fft.rfftn(volume)
    k = np.fft.rfftfreq(SIZE)
    shifted = np.fft.irfftn(transform * np.exp(-2j * np.pi * k * 0.5), s=volume.shape, axes=(0, 1, 2))
    shells = np.arange(SIZE // 2 - 1)
    expected = np.sinc(2 * shells * 0.5 / SIZE)
    np.testing.assert_allclose(fourier_shell_correlation(volume, shifted)[: SIZE // 2 - 1], expected, atol=0.04)


def test_randomising_phases_keeps_amplitudes_and_low_shells():
    volume = noise(4)
    scrambled = randomise_phases(volume, 8, np.random.default_rng(0))
    before, after = half_transform(volume), half_transform(scrambled)
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=2e-3)
    low = shell_indices(SIZE, np) < 8
    np.testing.assert_allclose(after[low], before[low], atol=2e-3)
    beyond = fourier_shell_correlation(volume, scrambled)[9:]
    assert np.abs(beyond).max() < 0.15


def test_what_a_mask_correlates_is_taken_off():
    """Halves that share only shells below 7: the mask carries their correlation on, the corrected curve does not."""
    shared = 6 * low_pass(noise(5), 6.5, 0)
    halves = (shared + 0.3 * noise(6), shared + 0.3 * noise(7))
    tight = soft_sphere(SIZE, 5, 2, np)
    curves = corrected_fsc(halves, tight, BOX, np.random.default_rng(1))
    assert curves.first_randomised_shell == 7
    assert curves.masked[9:12].mean() > 0.25
    assert abs(curves.corrected[9:20].mean()) < 0.1
    assert BOX / 10 < curves.resolution_angstrom < BOX / 6


def test_resolution_is_read_between_shells_and_is_honest_at_both_ends():
    curve = np.array([1, 0.9, 0.8, 0.243, 0.043, 0.3])
    assert last_shell_above(curve) == 3
    assert resolution_angstrom(curve, 100.0) == pytest.approx(100 / 3.5)
    assert resolution_angstrom(np.array([1, 0.1, 0.0, 0.9]), 100.0) is None
    assert resolution_angstrom(np.ones(5), 100.0) == pytest.approx(25.0)
    same = corrected_fsc((noise(8), noise(8)), np.ones((SIZE,) * 3, np.float32), BOX, np.random.default_rng(0))
    assert same.limited_by_sampling


def test_guinier_finds_the_decay_and_sharpening_undoes_it():
    sharp, blurred = decaying(9, 0.0), decaying(9, 90.0)
    curves = corrected_fsc((blurred, blurred), np.ones_like(blurred), BOX, np.random.default_rng(0))
    plot = guinier(blurred, curves)
    assert plot.b_factor_angstrom2 == pytest.approx(90, abs=9)
    shells = shell_indices(SIZE, np)
    band = (shells > 8) & (shells < 18)
    restored = half_transform(sharpen(blurred, curves, 90.0))[band]
    np.testing.assert_allclose(restored, half_transform(sharp)[band], rtol=0.02, atol=0.02 * np.abs(restored).max())


def test_the_mask_holds_the_particle_and_little_else():
    z, y, x = np.mgrid[:SIZE, :SIZE, :SIZE] - SIZE // 2
    rod = ((x**2 + y**2 < 16) & (np.abs(z) < 12)).astype(np.float32)
    mask = automatic_mask(low_pass(rod, 12, 2) + 0.05 * noise(10), PIXEL, 56.0)
    assert mask[rod > 0].min() > 0.99
    far = x**2 + y**2 > 15**2
    assert mask[far].max() == 0
    assert mask.mean() < 0.2
    nothing = automatic_mask(noise(11), PIXEL, 40.0)
    assert nothing.sum() > 0


def test_the_trend_is_the_line_that_rosenthal_and_henderson_draw():
    count = np.array([1e3, 2e3, 4e3, 8e3])
    resolution = (0.002 + 2 / 150 * np.log(count)) ** -0.5
    trend = fit_trend(count, resolution)
    assert trend.b_factor_angstrom2 == pytest.approx(150)
    assert trend.particles_for(resolution[3]) == pytest.approx(8e3)
    assert trend.resolution_angstrom(16e3) < resolution[3]
    assert trend.particles_for(0.01) == np.inf
    assert fit_trend(count, resolution[::-1]) is None
    assert fit_trend(count[:2], resolution[:2]) is None
    assert fit_trend([100, 110, 120], [9, 8, 7]) is None


@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="RELION is not installed")
def test_the_corrected_curve_agrees_with_relion_postprocess(tmp_path):
    """RELION sums half transforms, with the plane kx = 0 weighted otherwise: 0.02 for small shells (algorithms 9.4)."""
    signal = 30 * decaying(12, 250.0)
    halves = tuple((signal + noise(s)).astype(np.float32) for s in (13, 14))
    mask = soft_sphere(SIZE, SIZE / 5 + 3, 6, np).astype(np.float32)
    for number, half in enumerate(halves, start=1):
        write_mrc(tmp_path / f"half{number}_unfil.mrc", half, PIXEL)
    write_mrc(tmp_path / "mask.mrc", mask, PIXEL)
    command = ["relion_postprocess", "--i", "half1_unfil.mrc", "--i2", "half2_unfil.mrc", "--mask", "mask.mrc", "--o", "out",
               "--angpix", str(PIXEL)]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)  # fails at its PDF where Ghostscript is missing
    star = (tmp_path / "out.star").read_text()
    table = star.split("data_fsc")[1].split("data_")[0]
    names = [line.split()[0] for line in table.splitlines() if line.startswith("_rln")]
    rows = np.array([line.split() for line in table.splitlines() if line[:1] in " 0123456789" and len(line.split()) > 4], float)
    ours = corrected_fsc(halves, mask, BOX, np.random.default_rng(0))
    unmasked = rows[:, names.index("_rlnFourierShellCorrelationUnmaskedMaps")]
    corrected = rows[:, names.index("_rlnFourierShellCorrelationCorrected")]
    np.testing.assert_allclose(ours.unmasked[2 : len(rows)], unmasked[2:], atol=0.02)
    np.testing.assert_allclose(ours.corrected[2 : len(rows)], corrected[2:], atol=0.04)
    general = dict(line.split()[:2] for line in star.split("data_fsc")[0].splitlines() if line.startswith("_rln"))
    assert ours.resolution_angstrom == pytest.approx(float(general["_rlnFinalResolution"]), rel=0.1)
