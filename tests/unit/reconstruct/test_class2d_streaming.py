"""The runner of 2D classification against blocks on disk: a resumed worker reads only what it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages
from frazil.io.mrc import read_mrc
from frazil.primitives.symmetry import symmetry
from frazil_reconstruct import streaming_run
from frazil_reconstruct.jobs import class2d_streaming
from unit.algorithms.phantom3d import Phantom, simulate, symmetric_blobs
from unit.reconstruct.blocks import Scheduler, Worker

PARTICLES = 160


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(symmetric_blobs(symmetry("O").operators), PARTICLES, snr=0.5, seed=4)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks whose images are read, as they are read."""
    read: list[int] = []
    read_block = streaming_run.read_block

    def noting(folder: Path, block: ClassAverages) -> object:
        read.append(block.sequence)
        return read_block(folder, block)

    monkeypatch.setattr(streaming_run, "read_block", noting)
    return read


def averages_of(scheduler: Scheduler) -> np.ndarray:
    volume, _ = read_mrc(scheduler.folder / scheduler.published_classes[-1].averages)
    return volume


def test_a_stopped_run_goes_on_to_the_same_classes_and_reads_each_block_once_when_it_is_needed(
    phantom: Phantom, tmp_path: Path, read: list[int]
) -> None:
    undisturbed = Scheduler(tmp_path / "undisturbed", phantom)
    class2d_streaming.run(Worker(undisturbed))  # type: ignore[arg-type]
    assert read == [1, 2, 3, 4]

    scheduler = Scheduler(tmp_path / "stopped", phantom)
    resumptions = 0
    while not (scheduler.published_classes and scheduler.published_classes[-1].final):
        read.clear()
        class2d_streaming.run(Worker(scheduler, reads=4 if scheduler.checkpoints else 2))  # type: ignore[arg-type]
        assert len(read) == len(set(read))
        resumptions += 1
    assert resumptions > 3
    np.testing.assert_array_equal(averages_of(scheduler), averages_of(undisturbed))

    read.clear()
    class2d_streaming.run(Worker(scheduler))  # type: ignore[arg-type]
    assert read == []  # it has finished: nothing is read to say so again
