"""Particles of selected classes come and go: random histories of blocks, classifications and stops end as they must."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from frazil.algorithms.class2d.images import load_coefficients
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.state import Class2dState, from_arrays
from frazil.algorithms.class2d.stream import Streaming2d
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.api.worker.v1 import worker_pb2
from frazil.io.particles import ASSIGNMENT_DTYPE, PARTICLE_DTYPE, write_array, write_particles
from frazil.rpc.config import WorkerEnvironment
from frazil_reconstruct.jobs import abinitio
from frazil_reconstruct.selected_particles import selected_now
from frazil_reconstruct.selected_run import SelectedRun

BOX, PIXEL = 16, 5.0
NEVER = Class2dParameters(particle_diameter_angstrom=40.0, bootstrap_images=1_000_000)  # takes images in, and waits for more


def image_of(uid: int) -> np.ndarray:
    return np.random.default_rng(int(uid)).normal(size=(BOX, BOX)).astype(np.float32)


class Ledger:
    """A session's blocks and classification, as a worker reads them; the class of every particle is drawn."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, np.random.default_rng(seed)
        self.blocks: list[wire.ParticleBlock] = []
        self.live: dict[int, np.ndarray] = {}  # by sequence: the particles that count
        self.averages = wire.ClassAverages()
        self.checkpoints: list[worker_pb2.Checkpoint] = []
        self._uids = self._revision = 0

    def add(self, count: int = 0) -> None:
        count = count or int(self.random.integers(1, 9))
        table = np.zeros(count, PARTICLE_DTYPE)
        table["uid"] = np.arange(self._uids + 1, self._uids + count + 1)
        table["pixel_size_angstrom"], table["voltage_kv"], table["defocus_u_angstrom"] = PIXEL, 300, 10_000
        self._uids += count
        sequence = len(self.blocks) + 1
        write_particles(self.folder / str(sequence), np.stack([image_of(uid) for uid in table["uid"]]), table)
        paths = {"particles": f"{sequence}/particles.mrcs", "particle_table": f"{sequence}/particles.npy"}
        self._append(wire.ParticleBlock.KIND_ADD, particle_count=count, **paths)
        self.live[sequence] = table["uid"]

    def withdraw(self) -> None:
        if self.live:
            sequence = int(self.random.choice(list(self.live)))
            del self.live[sequence]
            self._append(wire.ParticleBlock.KIND_RETRACT, retracts_sequence=sequence)

    def classify(self, *, final: bool = False) -> None:
        """Assign the particles there are, or all but the newest, to three classes."""
        known = [uid for sequence, uid in self.live.items() if final or sequence < len(self.blocks) - 1]
        table = np.zeros(sum(uid.size for uid in known), ASSIGNMENT_DTYPE)
        table["uid"] = np.concatenate([*known, np.zeros(0, np.uint64)])
        table["class_number"] = self.random.integers(1, 4, table.size)
        self._revision = revision = self._revision + 1
        write_array(self.folder / f"{revision}.npy", table)
        self.averages.revision, self.averages.assignments, self.averages.final = revision, f"{revision}.npy", final
        self.averages.ClearField("classes")
        for number in (1, 2, 3):
            self.averages.classes.add(class_number=number, selected=bool(self.random.integers(2)))

    def clear(self) -> None:
        """Take the classification away."""
        selection = self.averages.selection
        self.averages = wire.ClassAverages(selection=selection)

    def select(self) -> None:
        self.averages.selection.revision += 1
        self.averages.selection.all_particles = self.random.random() < 0.2
        for one in self.averages.classes:
            one.selected = bool(self.random.integers(2))

    def wanted(self) -> set[int]:
        live = set(np.concatenate([*self.live.values(), np.zeros(0, np.uint64)]).tolist())
        if not self.averages.selection.revision or self.averages.selection.all_particles:
            return live
        if not self.averages.assignments:
            return set()
        table = np.load(self.folder / self.averages.assignments)
        numbers = [one.class_number for one in self.averages.classes if one.selected]
        return live & set(table["uid"][np.isin(table["class_number"], numbers)].tolist())

    def _append(self, kind: Any, **values: Any) -> None:
        self.blocks.append(wire.ParticleBlock(sequence=len(self.blocks) + 1, kind=kind, **values))


class Worker:
    """The part of `WorkerContext` that runs use; it is stopped after so many reads."""

    job_id, session, start_volume = "job", None, ""

    def __init__(self, ledger: Ledger, reads: int, *before: Callable[[], None]) -> None:
        self._ledger, self._reads = ledger, reads
        self._before = iter(before)  # each is called before a read
        self.session_folder, self.log = ledger.folder, structlog.get_logger()
        self.checkpoints = tuple(reversed(ledger.checkpoints))
        epoch = str(len(ledger.checkpoints) + 1)
        environ = {"FRAZIL_SCHEDULER_ADDRESS": "nowhere:1", "FRAZIL_LEASE_ID": "lease", "FRAZIL_EPOCH": epoch}
        self.environment = WorkerEnvironment.from_environ(environ)

    @property
    def stop_requested(self) -> bool:
        return self._reads <= 0

    def read_blocks(
        self, after: int, max_count: int = 100, wait_seconds: float = 0.0, known_classes: tuple[int, int] | None = None
    ) -> worker_pb2.ReadParticleBlocksResponse:
        next(self._before, lambda: None)()
        averages = self._ledger.averages
        reply = worker_pb2.ReadParticleBlocksResponse(blocks=[block for block in self._ledger.blocks if block.sequence > after])
        if known_classes is not None:
            self._reads -= 1
            if known_classes != (averages.revision, averages.selection.revision):
                reply.class_averages.CopyFrom(averages)
        return reply

    def commit_checkpoint(self, number: int, cursor: int, path: str, sha256: str) -> tuple[str, ...]:
        made = worker_pb2.Checkpoint(number=number, cursor_sequence=cursor, path=path, sha256=sha256)
        self._ledger.checkpoints.append(made)
        return ()

    def delete_expired(self, paths: tuple[str, ...]) -> None:
        pass

    def report(self, sentence: str) -> None:
        pass


class Run(SelectedRun):
    FOLDER, PUBLISH_SECONDS = "none", 1e9

    def begin(self, box_size_px: int, pixel_size_angstrom: float, resumed: Class2dState | None) -> Streaming2d:
        self._unsaved = True
        return Streaming2d(NEVER, box_size_px=box_size_px, pixel_size_angstrom=pixel_size_angstrom, state=resumed)

    def restore(self, arrays: dict[str, Any]) -> Class2dState:
        return from_arrays(arrays, np)

    def has_result(self) -> bool:
        return False

    def publish(self, stem: str, *, final: bool) -> Sequence[str]:
        raise AssertionError

    def progress(self) -> str:
        return "waits"

    def in_stream(self) -> list[int]:
        """Return the particles that count, each with its own image."""
        stream: Any = self._stream
        if stream is None:
            return []
        rows = np.flatnonzero(~stream.state.particles.removed)
        uid = stream.state.particles.uid[rows]
        if rows.size:
            _, power = load_coefficients(stream._run.grid, np.stack([image_of(one) for one in uid]))
            np.testing.assert_allclose(stream._run.images.power(rows), power, rtol=1e-5)
        return sorted(uid.tolist())


@pytest.mark.parametrize("seed", range(12))
def test_in_the_end_the_wanted_particles_are_in_the_stream_once(tmp_path: Path, seed: int) -> None:
    ledger = Ledger(tmp_path, seed)
    for _ in range(12):
        for _ in range(int(ledger.random.integers(1, 4))):
            change = ledger.random.choice(["add", "add", "withdraw", "classify", "select", "clear"])
            getattr(ledger, change)()
        run = Run(Worker(ledger, reads=int(ledger.random.integers(1, 4))), np, lambda: 0.0)  # type: ignore[arg-type]
        run.run()
        assert len(set(run.in_stream())) == len(run.in_stream())
    ledger.classify(final=True)
    run = Run(Worker(ledger, reads=4), np, lambda: 0.0)  # type: ignore[arg-type]
    run.run()
    assert run.in_stream() == sorted(ledger.wanted())


def test_a_few_late_particles_of_a_block_wait_for_the_last_classification(tmp_path: Path) -> None:
    """A block is not read again for them; what goes goes at once."""
    ledger = Ledger(tmp_path, 0)
    ledger.add(8)
    ledger.averages.selection.revision = 1
    ledger.averages.classes.add(class_number=1, selected=True)
    found: list[list[int]] = []

    def assign(*selected: int, final: bool = False) -> Callable[[], None]:
        def before() -> None:
            found.append(run.in_stream())
            table = np.zeros(8, ASSIGNMENT_DTYPE)
            table["uid"] = np.arange(1, 9)
            table["class_number"] = np.where(np.isin(table["uid"], selected), 1, 2)
            ledger.averages.revision += 1
            ledger.averages.assignments, ledger.averages.final = f"{ledger.averages.revision}.npy", final
            write_array(tmp_path / ledger.averages.assignments, table)

        return before

    steps = [assign(1, 2, 3), assign(2, 3, 4), assign(2, 3, 4, 5), assign(2, 3, 4, 5, 6, final=True), assign(1)]
    run = Run(Worker(ledger, 5, *steps), np, lambda: 0.0)  # type: ignore[arg-type]
    run.run()
    assert found == [[], [1, 2, 3], [2, 3], [2, 3, 4, 5], [2, 3, 4, 5, 6]]


def test_a_bounded_job_takes_the_first_blocks_with_selected_particles(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 0)
    for _ in range(5):
        ledger.add(4)
    table = np.zeros(20, ASSIGNMENT_DTYPE)
    table["uid"] = np.arange(1, 21)
    table["class_number"] = np.where(np.isin(table["uid"], (5, 6, 13, 17)), 1, 2)
    write_array(tmp_path / "1.npy", table)
    ledger.averages.revision, ledger.averages.assignments = 1, "1.npy"
    ledger.averages.classes.add(class_number=1, selected=True)
    worker: Any = Worker(ledger, 10)
    assert selected_now(worker) is None  # nobody has selected anything
    ledger.averages.selection.revision = 1
    wanted = selected_now(worker)
    assert wanted is not None
    chosen = abinitio.choose(tmp_path, ledger.blocks, wanted, 3, None)
    assert [block.sequence for block in chosen] == [2, 4]
    assert abinitio.read(worker, chosen[0], wanted).uid.tolist() == [5, 6]


def test_when_the_classification_is_taken_away_what_is_in_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 3)
    for _ in range(4):
        ledger.add(6)
    ledger.classify(final=True)
    ledger.averages.selection.revision = 1
    for one in ledger.averages.classes:
        one.selected = one.class_number != 2
    run = Run(Worker(ledger, 2), np, lambda: 0.0)  # type: ignore[arg-type]
    run.run()
    before = run.in_stream()
    assert 0 < len(before) < 24
    ledger.clear()
    ledger.add(6)
    for _ in range(2):  # also when a worker begins only then
        run = Run(Worker(ledger, 2), np, lambda: 0.0)  # type: ignore[arg-type]
        run.run()
        assert run.in_stream() == before
