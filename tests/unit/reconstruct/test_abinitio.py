"""The runner of ab-initio reconstruction: from blocks to published volumes, over a stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frazil.api.reconstruction.v1.reconstruction_pb2 import ParticleBlock, Volume
from frazil.io.mrc import read_mrc
from frazil.model.errors import InputError
from frazil.primitives.symmetry import symmetry
from frazil_reconstruct.jobs import abinitio
from unit.algorithms.phantom3d import BOX, Phantom, simulate, symmetric_blobs
from unit.reconstruct.blocks import Scheduler, Worker

ASKED = {"restarts": "1", "iterations": "12", "particles": "120"}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(symmetric_blobs(symmetry("O").operators), 160, snr=0.5, seed=4)


def test_stopped_it_goes_on_with_the_same_particles_and_ends_as_the_undisturbed_run(phantom: Phantom, tmp_path: Path) -> None:
    maps = []
    for name in ("undisturbed", "stopped"):
        scheduler = Scheduler(tmp_path / name, phantom, symmetry="O")
        scheduler.blocks.append(ParticleBlock(sequence=5, kind=ParticleBlock.KIND_RETRACT, retracts_sequence=1))
        if name == "stopped":
            abinitio.run(Worker(scheduler, reports=5, parameters=ASKED))  # type: ignore[arg-type]
            assert not scheduler.published
            scheduler.blocks.append(ParticleBlock(sequence=6, kind=ParticleBlock.KIND_RETRACT, retracts_sequence=2))
        abinitio.run(Worker(scheduler, parameters=ASKED))  # type: ignore[arg-type]
        (message,) = scheduler.published
        assert (message.kind, message.final, message.particle_count) == (Volume.KIND_AB_INITIO, True, 120)
        assert (message.symmetry, message.box_px, message.HasField("resolution_angstrom")) == ("O", BOX, False)
        maps.append(read_mrc(scheduler.folder / message.volume)[0])
    assert np.ptp(maps[0]) > 0
    np.testing.assert_array_equal(maps[0], maps[1])


def test_the_most_populated_class_comes_first(phantom: Phantom, tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, phantom, symmetry="O")
    abinitio.run(Worker(scheduler, parameters=ASKED | {"classes": "2"}))  # type: ignore[arg-type]
    (message,) = scheduler.published
    fractions = [one.fraction for one in message.classes]
    assert fractions == sorted(fractions, reverse=True)
    assert sum(fractions) == pytest.approx(1)
    assert message.volume == message.classes[0].volume != message.classes[1].volume
    assert all((tmp_path / one.volume).is_file() for one in message.classes)


def test_without_particles_it_says_so(phantom: Phantom, tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, phantom)
    scheduler.blocks.clear()
    with pytest.raises(InputError, match="there are none yet"):
        abinitio.run(Worker(scheduler))  # type: ignore[arg-type]
