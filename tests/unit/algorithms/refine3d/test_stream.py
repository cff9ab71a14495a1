import shutil
import subprocess

import numpy as np
import pytest

from frazil.algorithms.refine3d import stream
from frazil.algorithms.refine3d.fsc import fourier_shell_correlation
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.results import angular_distribution, poses, publish
from frazil.algorithms.refine3d.state import Phase, from_arrays
from frazil.algorithms.refine3d.stream import StreamingRefinement
from frazil.io.checkpoint import read_checkpoint, write_checkpoint
from frazil.io.mrc import read_mrc, write_mrc
from frazil.model.errors import FrazilError, InputError
from frazil.model.particles import half_set
from frazil.primitives.rotations import angles_between, random_matrices
from frazil.primitives.symmetry import symmetry
from frazil.primitives.volumes import soft_sphere
from unit.algorithms.phantom3d import BOX, DIAMETER, PIXEL, blobs, in_found_frame, simulate, symmetric_blobs, volume_of

GROUP = symmetry("D2")
MASK = soft_sphere(BOX, 11, 4, np)


def begin(start, **parameters):
    chosen = Refine3dParameters(**({"particle_diameter_angstrom": DIAMETER, "first_images": 100} | parameters))
    return StreamingRefinement(chosen, box_size_px=BOX, pixel_size_angstrom=PIXEL, start=start)


def refine_all(phantom, start, **parameters):
    run = begin(start, first_images=len(phantom.images), **parameters)
    for block in phantom.blocks(50):
        run.add_block(block)
    run.finalise()
    return run


SYMMETRIC = symmetric_blobs(GROUP.operators, count=5)


def symmetric(count, snr=1.0, seed=3):
    return simulate(SYMMETRIC, count, snr=snr, seed=seed)


@pytest.fixture(scope="module")
def asymmetric():
    """200 particles without symmetry, refined from the truth low-passed to 40 Å, poses and shifts unknown."""
    phantom = simulate(blobs(), 200, snr=0.5, seed=4)
    return phantom, refine_all(phantom, volume_of(blobs()))


def test_poses_shifts_and_map_are_the_truth(asymmetric):
    """One wrong sign, axis, angle sense or half pixel spoils this: the phantom is written from the conventions alone."""
    phantom, run = asymmetric
    error = angles_between(run.state.particles.pose, phantom.pose)
    assert np.median(error) < 4
    assert (error < 10).mean() > 0.95
    assert np.median(np.hypot(*(run.state.particles.shift - phantom.shift).T)) < PIXEL / 2
    result = publish(run)
    volume = sum(result.half_maps) / 2 * MASK
    curve = fourier_shell_correlation(volume, phantom.volume * MASK)
    assert curve[: int(BOX * PIXEL / 20)].min() > 0.9
    scale = np.vdot(volume, phantom.volume * MASK) / np.vdot(phantom.volume * MASK, phantom.volume * MASK)
    assert 0.8 < scale < 1.1


def test_the_half_maps_promise_no_more_than_the_truth_holds(asymmetric):
    """Two halves of FSC F give a mean that correlates with the truth by sqrt(2F / (1 + F))."""
    phantom, run = asymmetric
    result = publish(run)
    assert result.supported
    last = int(BOX * PIXEL / result.resolution_angstrom)
    promised = np.sqrt(2 * np.clip(result.curves.corrected, 0, 1) / (1 + np.clip(result.curves.corrected, 0, 1)))
    truth = volume_of(in_found_frame(blobs(), phantom, run.state.particles.pose, run.state.particles.shift))
    held = fourier_shell_correlation(sum(result.half_maps) / 2 * result.mask, truth * result.mask)
    assert (promised[1:last] - held[1:last]).max() < 0.05
    assert 14 < result.resolution_angstrom < 22


def test_a_long_particle_is_centred():
    """Unequal balls in a row, picked 13 Å off and more: the radial average of all puts half of them 20 Å off."""
    balls = np.array([[-36.0, 4, 0, 1.5], [-14, -6, 8, 1.2], [13, 9, -6, 1.0], [38, -8, 3, 0.6], [30, 12, 14, 0.5]])
    balls[:, :3] -= np.average(balls[:, :3], axis=0, weights=balls[:, 3])
    phantom = simulate(balls, 120, snr=0.5, spread=10.0, seed=2)
    run = begin(volume_of(balls), first_images=120)
    run.add_block(phantom.blocks(120)[0])
    assert run.advance()
    off = np.hypot(*(run.state.particles.centre - phantom.shift).T)
    assert np.median(off) < 7
    assert np.quantile(off, 0.9) < 12


def test_poses_are_given_as_relion_reads_them(asymmetric):
    phantom, run = asymmetric
    found = poses(run.state)
    assert found.half_set.tolist() == [half_set(int(u)) for u in found.uid]
    np.testing.assert_allclose(found.origin_x_angstrom, -run.state.particles.shift[:, 0])
    assert (np.abs(found.psi_degrees) <= 180).all()
    spread = angular_distribution(run.state.particles.pose, symmetry("C1").operators)
    assert spread.count.sum() == pytest.approx(len(phantom.images))
    assert not spread.preferred


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")
def test_relion_reconstructs_the_same_map_from_our_poses(asymmetric, tmp_path):
    phantom, run = asymmetric
    found = poses(run.state)
    write_mrc(tmp_path / "p.mrcs", phantom.images, PIXEL, image_stack=True)
    lines = [
        f"{i + 1:06d}@p.mrcs 1 {u + 300:.2f} {u:.2f} 30 {a:.4f} {b:.4f} {c:.4f} {x:.4f} {y:.4f}"
        for i, (u, a, b, c, x, y) in enumerate(
            zip(phantom.defocus, found.rot_degrees, found.tilt_degrees, found.psi_degrees, found.origin_x_angstrom,
                found.origin_y_angstrom, strict=True))]  # fmt: skip
    optics = "OpticsGroup OpticsGroupName Voltage SphericalAberration AmplitudeContrast ImagePixelSize ImageSize"
    optics += " ImageDimensionality"
    names = "ImageName OpticsGroup DefocusU DefocusV DefocusAngle AngleRot AngleTilt AnglePsi OriginXAngst OriginYAngst"
    tables = (("optics", optics, [f"1 g 300 2.7 0.1 {PIXEL} {BOX} 2"]), ("particles", names, lines))
    star = ""
    for name, columns, rows in tables:
        labels = "\n".join(f"_rln{c}" for c in columns.split())
        star += f"\n# version 30001\n\ndata_{name}\n\nloop_\n{labels}\n" + "\n".join(rows) + "\n\n"
    (tmp_path / "p.star").write_text(star)
    command = ["relion_reconstruct", "--i", "p.star", "--o", "theirs.mrc", "--ctf"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs, _ = read_mrc(tmp_path / "theirs.mrc")
    curve = fourier_shell_correlation(theirs * MASK, sum(publish(run).half_maps) / 2 * MASK)
    assert curve[1:10].min() > 0.97


@pytest.mark.parametrize("group", ["C1", "D2"])
def test_noise_is_never_claimed_to_be_resolved(group):
    """Einstein from noise: a 40 Å reference and nothing else; no claim finer than 35 Å, and the run says why."""
    particle = blobs() if group == "C1" else SYMMETRIC
    result = publish(refine_all(simulate(None, 100, seed=6), volume_of(particle), symmetry=group))
    assert result.resolution_angstrom >= 35
    assert not result.supported
    assert result.trend is None


def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Bit for bit: state in a checkpoint file after every piece of work, in the middle of passes and updates too."""
    monkeypatch.setattr(stream, "_PIECE_IMAGES", 60)
    start = volume_of(SYMMETRIC)
    chosen = {"symmetry": "D2", "unit_images": 30, "max_passes": 4, "first_images": 80}
    blocks = symmetric(120).blocks(30)

    whole = begin(start, **chosen)
    for block in blocks:
        whole.add_block(block)
    whole.finalise()

    broken = begin(start, **chosen)
    restarts = 0
    for number in range(1, len(blocks) + 2):
        if number <= len(blocks):
            broken.add_block(blocks[number - 1])
        else:
            broken.request_finalise()
        while broken.advance():
            restarts += 1
            write_checkpoint(tmp_path / "c", {}, broken.state.to_arrays())
            state = from_arrays(read_checkpoint(tmp_path / "c").arrays, np)
            broken = StreamingRefinement(broken.run.parameters, box_size_px=BOX, pixel_size_angstrom=PIXEL, state=state)
            broken.load_later(lambda sequence: blocks[sequence - 1])
    assert restarts > 10
    assert broken.state.counters.phase == Phase.FINISHED
    ours, theirs = whole.state.to_arrays(), broken.state.to_arrays()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_particles_that_come_slowly_end_as_those_given_at_once():
    phantom, start = symmetric(240), volume_of(SYMMETRIC)
    at_once = publish(refine_all(phantom, start, symmetry="D2"))
    assert at_once.supported
    slow = begin(start, symmetry="D2", first_images=100, unit_images=70)
    counts = []
    for block in phantom.blocks(50):
        slow.add_block(block)
        while slow.advance():
            counts.append(slow.state.accumulated.images if slow.state.accumulated else 0)
    assert {100, 170, 240} <= set(counts)  # maps after every unit, not at the end alone
    slow.finalise()
    assert publish(slow).resolution_angstrom == pytest.approx(at_once.resolution_angstrom, rel=0.05)


def test_retracted_particles_leave_the_maps():
    """One in six particles is noise; once retracted the maps are those of the others."""
    good, junk = symmetric(200), simulate(None, 40, seed=9)
    run = begin(volume_of(SYMMETRIC), symmetry="D2", first_images=240)
    run.add_block(good.blocks(200)[0])
    mixed = junk.blocks(40, first_sequence=2)[0]
    uid = mixed.uid + np.uint64(1)
    object.__setattr__(mixed, "uid", uid)
    run.add_block(mixed)
    run.finalise()
    assert run.state.accumulated.images == 240
    run.retract(3, uid)
    run.finalise()
    assert run.state.accumulated.images == 200
    assert not set(uid.tolist()) & set(poses(run.state).uid.tolist())
    error = angles_between(run.state.particles.pose[:200], good.pose, GROUP.operators)
    assert np.median(error) < 6


def test_blocks_out_of_order_and_missing_start_maps_are_refused():
    with pytest.raises(InputError, match="start map"):
        begin(None)
    with pytest.raises(InputError, match="even cube"):
        begin(np.zeros((32, 32, 30)))
    with pytest.raises(InputError, match="flat"):
        begin(np.zeros((32, 32, 32)))
    run = begin(volume_of(blobs()))
    with pytest.raises(FrazilError, match="first pass"):
        publish(run)
    one, two = simulate(None, 20).blocks(10)
    run.add_block(one)
    run.add_block(two)
    with pytest.raises(FrazilError, match="in order of sequence"):
        run.add_block(one)
    assert not run.advance()  # 20 of the 100 particles wanted


def test_a_start_map_from_other_sampling_is_taken_over_the_same_extent():
    """The map of a box twice as finely sampled is the same density: the start of the run is too."""
    fine = np.zeros((64, 64, 64), np.float32)
    axis = (np.arange(64) - 32) * PIXEL / 2
    for x, y, z, w in blobs():
        g = [np.exp(-((axis - c) ** 2) / (2 * 8.0**2)) for c in (z, y, x)]
        fine += w * np.einsum("z,y,x->zyx", *g).astype(np.float32)
    np.testing.assert_allclose(begin(fine).state.start, begin(volume_of(blobs())).state.start, atol=2e-3)


def test_preferred_views_are_seen():
    views = random_matrices(3000, np.random.default_rng(0))
    assert not angular_distribution(views, symmetry("C1").operators).preferred
    cap = np.tile(views[views[:, 2, 2] > 0.9], (10, 1, 1))
    assert angular_distribution(cap, symmetry("C1").operators).preferred
