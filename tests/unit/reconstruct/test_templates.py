"""Templates for the picker: from a map, from 2D classes; a worker that is stopped; maps that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frazil.api.reconstruction.v1.reconstruction_pb2 import ParticleBlock
from frazil.io.mrc import read_mrc, write_mrc
from frazil.io.templates import read_templates
from frazil.model.errors import InputError
from frazil.primitives.symmetry import symmetry
from frazil_reconstruct.jobs import class2d_templates, create_templates
from frazil_reconstruct.jobs.class2d_templates import choose
from unit.algorithms.phantom3d import BOX, PIXEL, Phantom, simulate, symmetric_blobs
from unit.reconstruct.blocks import Scheduler, Worker

CLASSES = {"classes": "4", "max_resolution_angstrom": "20"}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(symmetric_blobs(symmetry("D2").operators), 160, snr=0.5, seed=2)


def test_a_map_on_another_grid_becomes_the_views_that_it_shows(phantom: Phantom, tmp_path: Path) -> None:
    """Along one axis of a map, sampled twice as finely and off a cube, the template is the projection along that axis."""
    scheduler = Scheduler(tmp_path, phantom)
    along_z = phantom.volume.sum(axis=0)
    fine = np.kron(phantom.volume, np.ones((2, 2, 2), dtype=np.float32))[:, :, 2:-2]
    write_mrc(tmp_path / "fine.map", fine, PIXEL / 2)
    asked = {"volume": "fine.map", "views": "400", "symmetry": "D2", "resolution_angstrom": str(3 * PIXEL)}
    create_templates.run(Worker(scheduler, parameters=asked))  # type: ignore[arg-type]
    (message,) = scheduler.templates
    assert (len(message.templates), message.box_px, message.pixel_size_angstrom) == (100, BOX, PIXEL)
    images = read_templates(str(tmp_path / message.star)).images
    inner = slice(4, -4)
    flat = images[:, inner, inner].reshape(len(images), -1)
    likeness = [np.corrcoef(one, along_z[inner, inner].ravel())[0, 1] for one in flat]
    assert max(likeness) > 0.9


def test_good_classes_pick_and_a_run_that_was_stopped_ends_with_the_same_ones(phantom: Phantom, tmp_path: Path) -> None:
    undisturbed = Scheduler(tmp_path / "one", phantom)
    class2d_templates.run(Worker(undisturbed, parameters=CLASSES))  # type: ignore[arg-type]
    (message,) = undisturbed.templates
    assert message.particle_count == 160
    stack, pixel_size = read_mrc(tmp_path / "one" / message.images)
    assert (stack.shape, pixel_size) == ((len(message.templates), BOX, BOX), pytest.approx(PIXEL))
    good = [one.number - 1 for one in message.templates if one.selected]
    assert good
    np.testing.assert_array_equal(read_templates(str(tmp_path / "one" / message.star)).images, stack[good])

    stopped = Scheduler(tmp_path / "two", phantom)
    for _ in range(60):
        class2d_templates.run(Worker(stopped, reports=3, parameters=CLASSES))  # type: ignore[arg-type]
        if stopped.templates:
            break
    assert len(stopped.checkpoints) > 3
    np.testing.assert_array_equal(read_mrc(tmp_path / "two" / stopped.templates[0].images)[0], stack)


def test_micrographs_are_spread_over_those_that_count() -> None:
    blocks = [ParticleBlock(sequence=n, kind=ParticleBlock.KIND_ADD, particle_count=10) for n in range(1, 12)]
    blocks.append(ParticleBlock(sequence=12, kind=ParticleBlock.KIND_RETRACT, retracts_sequence=1))
    assert [block.sequence for block in choose(blocks, 4, 1000, None)] == [2, 5, 8, 11]
    assert [block.sequence for block in choose(blocks, 0, 35, None)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"volume": "none.mrc"}, "check the path"),
        ({}, "has no volume yet"),
        ({"volume": "start.mrc", "pixel_size_angstrom": "0.1"}, "extends over"),
        ({"volume": "start.mrc", "symmetry": "Q"}, "no symmetry"),
        ({"volume": "blank.mrc"}, "shows nothing"),
        ({"volume": "image.mrc"}, "is no volume"),
        ({"volume": "sizeless.mrc"}, "does not say its pixel size"),
        ({"volume": "emd_1.map.gz"}, "gunzip"),
    ],
)
def test_what_is_no_map_is_one_sentence(phantom: Phantom, tmp_path: Path, asked: dict[str, str], words: str) -> None:
    scheduler = Scheduler(tmp_path, phantom)
    write_mrc(tmp_path / "blank.mrc", np.zeros((BOX, BOX, BOX), np.float32), PIXEL)
    write_mrc(tmp_path / "image.mrc", phantom.volume[0], PIXEL)
    write_mrc(tmp_path / "sizeless.mrc", phantom.volume, 0.0)
    with pytest.raises(InputError, match=words):
        create_templates.run(Worker(scheduler, parameters=asked))  # type: ignore[arg-type]
    assert not scheduler.templates
