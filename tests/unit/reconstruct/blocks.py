"""A session's particle blocks on disk, and the scheduler as a runner of reconstruction sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages, ParticleBlock, Templates, Volume
from frazil.api.session.v1.session_pb2 import Session, SessionParameters
from frazil.api.worker.v1 import worker_pb2 as wire
from frazil.io.mrc import write_mrc
from frazil.rpc.config import WorkerEnvironment
from unit.algorithms.phantom3d import DIAMETER, PIXEL, Phantom, write_shards


class Scheduler:
    """What survives a worker: the blocks, the checkpoints it may resume from, and the volumes that it has published."""

    def __init__(self, folder: Path, phantom: Phantom, **parameters: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        folders = write_shards(phantom, folder, 40)
        self.blocks = [
            ParticleBlock(
                sequence=number,
                kind=ParticleBlock.KIND_ADD,
                particle_count=count,
                particles=f"{name}/particles.mrcs",
                particle_table=f"{name}/particles.npy",
            )
            for number, (name, count) in enumerate(folders, start=1)
        ]
        self.session = Session(session_id="s1", name="grid7", folder=str(folder))
        self.session.parameters.CopyFrom(SessionParameters(particle_diameter_angstrom=DIAMETER, seed=1, **parameters))
        self.checkpoints: list[wire.Checkpoint] = []
        self.published: list[Volume] = []
        self.published_classes: list[ClassAverages] = []
        self.templates: list[Templates] = []
        write_mrc(folder / "start.mrc", phantom.volume, PIXEL)


class Worker:
    """The part of `frazil.worker.WorkerContext` that runners use; it is told to stop after so many reads, or reports."""

    job_id = "job"

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        reads: int = 1_000_000,
        reports: int = 1_000_000,
        parameters: dict[str, str] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._reads, self._reports = reads, reports
        self.session, self.session_folder = scheduler.session, scheduler.folder
        self.start_volume = "start.mrc"
        self.newest_volume = ""
        self.parameters = parameters or {}
        self.checkpoints = tuple(reversed(scheduler.checkpoints))
        epoch = str(len(scheduler.checkpoints) + 1)
        environ = {"FRAZIL_SCHEDULER_ADDRESS": "nowhere:1", "FRAZIL_LEASE_ID": "lease", "FRAZIL_EPOCH": epoch}
        self.environment = WorkerEnvironment.from_environ(environ)
        self.log = structlog.get_logger()
        self.deleted: list[str] = []
        self.told: list[str] = []

    @property
    def stop_requested(self) -> bool:
        return self._reads <= 0 or self._reports <= 0

    def report(self, sentence: str) -> None:
        assert sentence
        self._reports -= 1

    def read_blocks(
        self, after: int, max_count: int = 100, wait_seconds: float = 10.0, known_classes: tuple[int, int] | None = None
    ) -> wire.ReadParticleBlocksResponse:
        self._reads -= 1
        blocks = [block for block in self._scheduler.blocks if block.sequence > after]
        return wire.ReadParticleBlocksResponse(blocks=blocks, end_of_input=True)

    def commit_checkpoint(self, number: int, cursor: int, path: str, sha256: str) -> tuple[str, ...]:
        checkpoint = wire.Checkpoint(number=number, cursor_sequence=cursor, path=path, sha256=sha256)
        self._scheduler.checkpoints.append(checkpoint)
        return ()

    def publish_volume(self, volume: Volume) -> wire.PublishVolumeResponse:
        self._scheduler.published.append(volume)
        return wire.PublishVolumeResponse(revision=len(self._scheduler.published))

    def publish_class_averages(self, averages: ClassAverages) -> wire.PublishClassAveragesResponse:
        self._scheduler.published_classes.append(averages)
        return wire.PublishClassAveragesResponse(revision=len(self._scheduler.published_classes))

    def notify(self, sentence: str) -> None:
        self.told.append(sentence)

    def publish_templates(self, templates: Templates) -> wire.PublishTemplatesResponse:
        self._scheduler.templates.append(templates)
        return wire.PublishTemplatesResponse()

    def delete_expired(self, paths: tuple[str, ...]) -> None:
        self.deleted += paths
