import numpy as np
import pytest

from frazil.algorithms.abinitio import run as abinitio
from frazil.algorithms.abinitio.parameters import AbInitioParameters
from frazil.algorithms.abinitio.run import AbInitio
from frazil.algorithms.abinitio.state import Phase, from_arrays
from frazil.io.checkpoint import read_checkpoint, write_checkpoint
from frazil.model.errors import FrazilError, InputError
from frazil.primitives.rotations import angles_between
from frazil.primitives.symmetry import symmetry
from unit.algorithms.phantom3d import BOX, DIAMETER, PIXEL, blobs, simulate, symmetric_blobs

GROUP = symmetry("D2")
MIRROR = np.diag([1.0, 1.0, -1.0])


def begin(blocks, **parameters):
    chosen = {"particle_diameter_angstrom": DIAMETER, "symmetry": "D2", "iterations": 30, "restarts": 2} | parameters
    found = AbInitio(AbInitioParameters(**chosen), box_size_px=BOX, pixel_size_angstrom=PIXEL)
    for block in blocks:
        found.add_block(block)
    return found


def finish(found):
    while found.advance():
        pass
    return found


def pose_error(found, truth):
    """Median angle to the truth in the best of the frames and hands that images cannot tell apart.

    Turns of the cube permute the axes of D2 and map the group onto itself.
    """
    frames = symmetry("O").operators
    hands = (found, MIRROR @ found @ MIRROR)
    return min(np.median(angles_between(hand, truth @ frame, GROUP.operators)) for hand in hands for frame in frames)


@pytest.fixture(scope="module")
def reconstructed():
    phantom = simulate(symmetric_blobs(GROUP.operators, count=5), 240, snr=0.6, seed=3)
    return phantom, finish(begin(phantom.blocks(100)))


def test_particles_find_their_poses_from_nothing(reconstructed):
    """A random start, no reference: most poses agree with the truth but for one common turn and the hand."""
    phantom, found = reconstructed
    assert pose_error(found.state.particles.pose, phantom.pose) < 12  # the grid's step is 10 degrees
    shuffled = phantom.pose[np.random.default_rng(0).permutation(len(phantom.pose))]
    assert pose_error(found.state.particles.pose, shuffled) > 30


def test_the_volume_has_the_density_of_the_particle(reconstructed):
    """Sorted voxels do not depend on frame or hand: the map's distribution of density is that of the phantom."""
    phantom, found = reconstructed
    result = found.reconstruction()
    assert result.volumes.shape == (1, BOX, BOX, BOX)
    assert result.fraction.tolist() == [1.0]
    dense = np.sort(result.volumes[0].ravel())[-400:]
    truth = np.sort(phantom.volume.ravel())[-400:]
    assert dense.mean() == pytest.approx(truth.mean(), rel=0.35)
    assert result.distribution[0].count.sum() == pytest.approx(240)


def test_the_start_that_explains_held_out_particles_best_goes_on(reconstructed):
    _, found = reconstructed
    likelihoods = found.reconstruction().likelihoods
    assert likelihoods.shape == (2,)
    assert found.state.counters.start == likelihoods.argmax()
    assert (likelihoods > 0).all()  # better than no particle


def test_two_kinds_of_particles_part_into_two_volumes():
    kinds = [simulate(symmetric_blobs(GROUP.operators, seed=s, count=4), 150, snr=0.6, seed=s) for s in (3, 8)]
    first, second = kinds[0].blocks(150)[0], kinds[1].blocks(150, first_sequence=2)[0]
    object.__setattr__(second, "uid", second.uid + np.uint64(1))
    found = finish(begin([first, second], volume_count=2, restarts=1, iterations=20))
    index = found.state.volume_index
    share = np.array([[(index[:150] == k).mean(), (index[150:] == k).mean()] for k in (0, 1)])
    assert max(share[0, 0] + share[1, 1], share[0, 1] + share[1, 0]) / 2 > 0.75


def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(abinitio, "_PIECE_IMAGES", 25)
    blocks = simulate(symmetric_blobs(GROUP.operators), 60, snr=0.5, seed=1).blocks(20)
    chosen = {"iterations": 4, "restarts": 2, "volume_count": 2}
    whole = finish(begin(blocks, **chosen))
    broken = begin(blocks, **chosen)
    while broken.advance():
        write_checkpoint(tmp_path / "c", {}, broken.state.to_arrays())
        state = from_arrays(read_checkpoint(tmp_path / "c").arrays, np)
        parameters = AbInitioParameters(particle_diameter_angstrom=DIAMETER, symmetry="D2", **chosen)
        broken = AbInitio(parameters, box_size_px=BOX, pixel_size_angstrom=PIXEL, state=state)
        for block in blocks:
            broken.add_block(block)
    assert broken.state.counters.phase == Phase.FINISHED
    theirs = broken.state.to_arrays()
    for name, array in whole.state.to_arrays().items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_what_cannot_be_done_is_said():
    with pytest.raises(InputError, match="restarts"):
        AbInitioParameters(particle_diameter_angstrom=100, restarts=0)
    blocks = simulate(blobs(), 40).blocks(10)
    found = begin(blocks[:1])
    with pytest.raises(FrazilError, match="more particles"):
        found.advance()
    with pytest.raises(FrazilError, match="no volume yet"):
        found.reconstruction()
    found.add_block(blocks[1])
    assert found.advance()
    with pytest.raises(FrazilError, match="another ab-initio run"):
        found.add_block(blocks[2])
