"""The runner of 3D refinement against blocks on disk: stopped and resumed, it ends where an undisturbed one does."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from frazil.api.reconstruction.v1.reconstruction_pb2 import ParticleBlock, Volume
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.mrc import read_mrc, write_mrc
from frazil.io.particles import read_particles, write_particles
from frazil.model.errors import FrazilError, InputError
from frazil.primitives.symmetry import symmetry
from frazil_reconstruct.jobs import refine3d_streaming
from frazil_reconstruct.start_volume import fit_to_box, read_start_volume
from frazil_reconstruct.volume_output import volume_sheet
from unit.algorithms.phantom3d import BOX, PIXEL, Phantom, blobs, simulate, symmetric_blobs, volume_of
from unit.reconstruct.blocks import Scheduler, Worker

PARTICLES = 160


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(symmetric_blobs(symmetry("O").operators), PARTICLES, snr=0.5, seed=4)


@pytest.fixture(scope="module")
def undisturbed(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Scheduler:
    scheduler = Scheduler(tmp_path_factory.mktemp("session"), phantom, symmetry="O")
    refine3d_streaming.run(Worker(scheduler))  # type: ignore[arg-type]
    return scheduler


def map_of(scheduler: Scheduler, name: str = "volume") -> np.ndarray:
    volume, pixel_size = read_mrc(scheduler.folder / getattr(scheduler.published[-1], name))
    assert pixel_size == pytest.approx(PIXEL)
    return volume


def test_the_volume_is_published_with_all_that_is_promised(undisturbed: Scheduler, phantom: Phantom) -> None:
    message = undisturbed.published[-1]
    assert (message.kind, message.final, message.particle_count) == (Volume.KIND_REFINEMENT, True, PARTICLES)
    assert (message.box_px, message.symmetry, message.particle_block_sequence) == (BOX, "O", 4)
    assert len(message.fsc.corrected) == len(message.fsc.unmasked) == BOX // 2 + 1
    assert message.resolution_angstrom > 2 * PIXEL
    assert np.corrcoef(map_of(undisturbed).ravel(), phantom.volume.ravel())[0, 1] > 0.8
    mask = map_of(undisturbed, "mask")
    assert 0 <= mask.min() < mask.max() <= 1
    for half in ("half1", "half2"):
        assert np.corrcoef(map_of(undisturbed, half).ravel(), phantom.volume.ravel())[0, 1] > 0.6
    poses = np.load(undisturbed.folder / message.poses)
    shards = [np.load(undisturbed.folder / block.particle_table) for block in undisturbed.blocks]
    known = np.concatenate(shards)
    assert poses["uid"].tolist() == known["uid"].tolist()
    assert poses["half_set"].tolist() == known["half_set"].tolist()
    assert (undisturbed.folder / message.sheet).is_file()


@pytest.mark.timeout(120)
def test_stopped_again_and_again_it_ends_as_the_undisturbed_run(
    undisturbed: Scheduler, phantom: Phantom, tmp_path: Path
) -> None:
    scheduler = Scheduler(tmp_path, phantom, symmetry="O")
    for reads in (2, 4, 4):  # one that resumes first looks which blocks there are
        refine3d_streaming.run(Worker(scheduler, reads=reads))  # type: ignore[arg-type]
        assert not any(volume.final for volume in scheduler.published)
    (tmp_path / scheduler.checkpoints[-1].path).write_bytes(b"damaged")  # the one before is taken
    refine3d_streaming.run(Worker(scheduler))  # type: ignore[arg-type]
    assert scheduler.published[-1].final
    assert len({checkpoint.number for checkpoint in scheduler.checkpoints}) == len(scheduler.checkpoints)
    np.testing.assert_array_equal(map_of(scheduler), map_of(undisturbed))
    ours, theirs = (np.load(one.folder / one.published[-1].poses) for one in (scheduler, undisturbed))
    np.testing.assert_array_equal(ours, theirs)


def test_withdrawn_particles_leave_the_volume(phantom: Phantom, tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, phantom, symmetry="O")
    scheduler.blocks.append(ParticleBlock(sequence=5, kind=ParticleBlock.KIND_RETRACT, retracts_sequence=2, particle_count=40))
    refine3d_streaming.run(Worker(scheduler))  # type: ignore[arg-type]
    message = scheduler.published[-1]
    gone = np.load(tmp_path / scheduler.blocks[1].particle_table)["uid"]
    poses = np.load(tmp_path / message.poses)
    assert message.particle_count == len(poses) == PARTICLES - 40
    assert not np.isin(poses["uid"], gone).any()


def test_particles_of_another_pixel_size_begin_the_run_again(phantom: Phantom, tmp_path: Path) -> None:
    """A session whose box was changed: blocks of the old kind, and new ones in their place as each exposure is redone."""
    scheduler = Scheduler(tmp_path, phantom, symmetry="O")
    for number, block in zip(itertools.count(5, step=2), list(scheduler.blocks), strict=False):
        images, table = read_particles(tmp_path / Path(block.particles).parent)
        table["pixel_size_angstrom"] *= 1.25
        folder = f"again{block.sequence}"
        write_particles(tmp_path / folder, images, table)
        number = len(scheduler.blocks) + 1
        scheduler.blocks += [
            ParticleBlock(
                sequence=number, kind=ParticleBlock.KIND_RETRACT, retracts_sequence=block.sequence, particle_count=40
            ),
            ParticleBlock(
                sequence=number + 1,
                kind=ParticleBlock.KIND_ADD,
                particle_count=40,
                particles=f"{folder}/particles.mrcs",
                particle_table=f"{folder}/particles.npy",
            ),
        ]
    refine3d_streaming.run(Worker(scheduler, reads=4))  # type: ignore[arg-type]
    refine3d_streaming.run(Worker(scheduler))  # type: ignore[arg-type]
    message = scheduler.published[-1]
    assert (message.final, message.particle_count, message.pixel_size_angstrom) == (
        True,
        PARTICLES,
        pytest.approx(1.25 * PIXEL),
    )


def withdraw_and_delete(scheduler: Scheduler, sequence: int) -> None:
    block = ParticleBlock(
        sequence=len(scheduler.blocks) + 1, kind=ParticleBlock.KIND_RETRACT, retracts_sequence=sequence, particle_count=40
    )
    scheduler.blocks.append(block)
    shutil.rmtree((scheduler.folder / scheduler.blocks[sequence - 1].particle_table).parent)


@pytest.mark.parametrize("begun", [False, True])
def test_withdrawn_particles_whose_files_are_gone_are_left_out_and_people_are_told(
    phantom: Phantom, tmp_path: Path, begun: bool
) -> None:
    scheduler = Scheduler(tmp_path, phantom, symmetry="O")
    gone = np.load(tmp_path / scheduler.blocks[1].particle_table)["uid"]
    if begun:  # a checkpoint that counts them
        refine3d_streaming.run(Worker(scheduler, reads=3))  # type: ignore[arg-type]
        assert scheduler.checkpoints
    withdraw_and_delete(scheduler, 2)
    worker = Worker(scheduler)
    refine3d_streaming.run(worker)  # type: ignore[arg-type]
    assert [sentence.split(":")[0] for sentence in worker.told] == ["Particle block 2 is left out"]
    message = scheduler.published[-1]
    poses = np.load(tmp_path / message.poses)
    assert (message.final, message.particle_count, len(poses)) == (True, PARTICLES - 40, PARTICLES - 40)
    assert not np.isin(poses["uid"], gone).any()


def test_lost_particles_that_count_are_never_passed_over(phantom: Phantom, tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, phantom, symmetry="O")
    refine3d_streaming.run(Worker(scheduler, reads=3))  # type: ignore[arg-type]
    shutil.rmtree((tmp_path / scheduler.blocks[1].particle_table).parent)
    with pytest.raises(FrazilError) as caught:  # the files may come back: the next worker looks again
        refine3d_streaming.run(Worker(scheduler))  # type: ignore[arg-type]
    assert (caught.value.reason, type(caught.value)) == ("PARTICLES_LOST", FrazilError)
    scheduler.checkpoints.clear()
    with pytest.raises(InputError):
        refine3d_streaming.run(Worker(scheduler))  # type: ignore[arg-type]


def test_the_larger_diameter_masks_and_symmetry_is_the_session_s() -> None:
    given = SessionParameters(particle_diameter_angstrom=120, particle_diameter_max_angstrom=180, symmetry=" D7 ", seed=3)
    found = refine3d_streaming.refine3d_parameters(given)
    assert (found.particle_diameter_angstrom, found.symmetry, found.seed) == (180, "D7", 3)
    assert refine3d_streaming.refine3d_parameters(SessionParameters(particle_diameter_angstrom=120)).symmetry == "C1"


@pytest.mark.parametrize(("size", "voxel"), [(BOX, PIXEL), (44, 5.0), (64, 3.0), (39, 6.0)])
def test_a_start_volume_keeps_its_place_in_another_box(size: int, voxel: float) -> None:
    """The same Gaussians sampled on either grid, from their formula, differ by the resolution limit alone."""
    particle = blobs()
    axis = (np.arange(size) - size // 2) * voxel
    factors = [np.exp(-((axis[None, :] - particle[:, i, None]) ** 2) / (2 * 8.0**2)) for i in range(3)]
    volume = np.einsum("p,pz,py,px->zyx", particle[:, 3], factors[2], factors[1], factors[0]).astype(np.float32)
    fitted = fit_to_box(volume, voxel, BOX, PIXEL, resolution_angstrom=2 * voxel)
    assert fitted.shape == (BOX, BOX, BOX)
    assert np.abs(fitted - volume_of(particle)).max() < 0.05 * volume_of(particle).max()


def test_what_is_no_map_is_refused_with_a_sentence(tmp_path: Path) -> None:
    write_mrc(tmp_path / "image.mrc", np.ones((8, 8), np.float32), 1.0)
    for name, reason in (("nothing.mrc", "START_VOLUME_MISSING"), ("image.mrc", "START_VOLUME_INVALID")):
        with pytest.raises(InputError) as caught:
            read_start_volume(tmp_path / name, 8, 1.0, 20.0)
        assert caught.value.reason == reason


def test_the_sheet_shows_slices_above_and_projections_below_along_z_y_x() -> None:
    volume = np.zeros((8, 8, 8), np.float32)
    volume[4, 1, 2] = 1.0  # in the central slice along z alone
    sheet = volume_sheet(volume)
    assert sheet.shape == (16, 24)
    bright = {(int(y), int(x)) for y, x in np.argwhere(sheet == 255)}
    assert bright == {(1, 2), (8 + 1, 2), (8 + 4, 8 + 2), (8 + 4, 16 + 1)}
