"""What every streaming job does: reads particle blocks by cursor, works, publishes, checkpoints, until told to stop.

What is computed depends on the sequence of blocks alone; the clock decides only when a result is shown and saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError, InputError
from frazil.worker import WorkerContext
from frazil_reconstruct.checkpoints import CHECKPOINT_SECONDS, Checkpoints
from frazil_reconstruct.particle_feed import blocks_of, is_on_disk, read_block, withdrawn_blocks

Read = TypeVar("Read")

WAIT_SECONDS = 10.0
GEOMETRY = "run.geometry"
"""Name of the checkpoint's array of the particles' box (px) and pixel size (Å)."""


class Stream(Protocol):
    """A streaming algorithm: `frazil.algorithms.class2d.stream` says what each of these means."""

    state: Any

    def load_later(self, load: Callable[[int], ParticleBlock]) -> None: ...  # noqa: D102

    def add_block(self, block: ParticleBlock) -> None: ...  # noqa: D102

    def drop_block(self, sequence: int) -> None: ...  # noqa: D102

    def retract(self, sequence: int, uid: npt.NDArray[Any]) -> None: ...  # noqa: D102

    def request_finalise(self) -> None: ...  # noqa: D102

    def advance(self) -> bool: ...  # noqa: D102


class StreamingRun(ABC):
    """The loop of one worker over one run of a streaming algorithm; a job says what is run and what is published of it."""

    FOLDER: ClassVar[str]  # of what is published, in the session's folder
    PUBLISH_SECONDS: ClassVar[float]

    def __init__(self, context: WorkerContext, xp: Any, clock: Callable[[], float]) -> None:
        self._context = context
        self._xp = xp
        self._clock = clock
        self._stream: Stream | None = None
        self._box_size_px, self._pixel_size_angstrom = 0, 0.0  # of the particles, once there are some
        self._cursor = 0
        self._checkpoints = Checkpoints(context)
        self._saved_at = self._published_at = clock()
        self._unsaved = self._unpublished = False
        self._publications = 0

    @abstractmethod
    def begin(self, box_size_px: int, pixel_size_angstrom: float, resumed: Any) -> Stream:
        """Return a stream of particles of this box and pixel size, going on from a state unless it is None."""

    @abstractmethod
    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Any:
        """Return the state that a checkpoint holds."""

    @abstractmethod
    def has_result(self) -> bool:
        """Tell whether there is anything to publish yet."""

    @abstractmethod
    def publish(self, stem: str, *, final: bool) -> Sequence[str]:
        """Write the present result under `stem` in the session's folder, publish it, and return the paths that have expired."""

    @abstractmethod
    def progress(self) -> str:
        """Say in one sentence how far the run has come."""

    def has_news(self) -> bool:
        """Tell whether work that was done has changed the result; some algorithms change it only now and then."""
        return True

    def run(self) -> None:
        """Work until the input ends or a stop is asked for."""
        arrays = self._checkpoints.load()
        if arrays is not None:
            self._resume_unless_changed(arrays)
        busy = True
        while not self._context.stop_requested:
            reply = self._read_blocks(0.0 if busy else WAIT_SECONDS)
            self._take_all(reply.blocks)
            if reply.stop:
                break
            ended = reply.end_of_input and not reply.blocks
            busy = self._work(finalise=ended) or bool(reply.blocks)
            if ended and not busy:
                self._publish(final=True)
                self._save()
                return
            self._show_and_save()
        self._save()

    def _resume_unless_changed(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Go on from a checkpoint, unless the session's parameters are such by now that the run must begin anew."""
        try:
            self._resume(arrays)
        except FrazilError as error:
            if error.reason != "STATE_OF_OTHER_PARAMETERS":
                raise
            self._context.notify("Streaming 2D classification begins anew: the session's parameters have changed.")

    def _resume(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Go on from a checkpoint. Its images are read once they are needed; what was withdrawn and is lost is left out."""
        state = self.restore(arrays)
        box_size_px, pixel_size_angstrom = arrays[GEOMETRY]
        stream = self._begin(int(box_size_px), float(pixel_size_angstrom), state)
        self._cursor = int(state.counters.cursor)
        blocks = blocks_of(self._context)  # their places, not their images
        added = {block.sequence: block for block in blocks if block.kind == wire.ParticleBlock.KIND_ADD}
        stream.load_later(lambda sequence: self._read_again(added[sequence]))
        needed = set(state.particles.sequence[~state.particles.removed].tolist())
        for block in withdrawn_blocks(blocks):
            if block.sequence in needed and not is_on_disk(self._context.session_folder, block):
                stream.drop_block(block.sequence)
                self._tell_lost(block)

    def _begin(self, box_size_px: int, pixel_size_angstrom: float, resumed: Any) -> Stream:
        self._box_size_px, self._pixel_size_angstrom = box_size_px, pixel_size_angstrom
        self._stream = self.begin(box_size_px, pixel_size_angstrom, resumed)
        return self._stream

    def _read_blocks(self, wait_seconds: float) -> worker_pb2.ReadParticleBlocksResponse:
        """Read the ledger's next blocks."""
        return self._context.read_blocks(self._cursor, wait_seconds=wait_seconds)

    def _take_all(self, blocks: Sequence[wire.ParticleBlock]) -> None:
        """Take the ledger's next blocks, up to one at which a stop came."""
        for block in blocks:
            if not self._take(block):
                break

    def _take(self, block: wire.ParticleBlock) -> bool:
        """Add or withdraw a block; the first one begins the run, since it tells box and pixel size.

        When these change, every exposure is extracted anew: the run begins again with the first block of the new kind, without
        those of the old kind, which are being withdrawn.

        False: a stop came before it was known what is to be done with it, so that the next worker takes it.
        """
        stream = self._stream
        if block.kind == wire.ParticleBlock.KIND_RETRACT:
            if stream is not None:
                table = stream.state.particles
                stream.retract(block.sequence, table.uid[table.sequence == block.retracts_sequence])
        else:
            particles = self._read(block)
            if particles is not None:
                geometry = (particles.images.shape[-1], particles.optics.pixel_size_angstrom)
                if stream is None or geometry != (self._box_size_px, self._pixel_size_angstrom):
                    self._unpublished = False
                    stream = self._begin(*geometry, None)
                stream.add_block(particles)
            elif self._context.stop_requested:
                return False
        self._cursor = block.sequence
        return True

    def _read(self, block: wire.ParticleBlock) -> ParticleBlock | None:
        """Return a block's particles; None when they are lost and have been withdrawn meanwhile, or a stop is asked for."""
        return self._unless_lost(block, read_block)

    def _unless_lost(self, block: wire.ParticleBlock, read: Callable[[Path, wire.ParticleBlock], Read]) -> Read | None:
        try:
            return read(self._context.session_folder, block)
        except InputError:
            withdrawn = {one.sequence for one in withdrawn_blocks(blocks_of(self._context))}
            if block.sequence in withdrawn:
                self._tell_lost(block)
            elif not self._context.stop_requested:  # else not all blocks may have been seen
                raise
        return None

    def _read_again(self, block: wire.ParticleBlock) -> ParticleBlock:
        """Return a known block's particles; the loss of its files ends this worker, and the next one sees what to do."""
        return self._again(block, read_block)

    def _again(self, block: wire.ParticleBlock, read: Callable[[Path, wire.ParticleBlock], Read]) -> Read:
        try:
            return read(self._context.session_folder, block)
        except InputError as error:
            if is_on_disk(self._context.session_folder, block):
                raise
            raise FrazilError("PARTICLES_LOST", error.sentence, kind=ErrorKind.UNAVAILABLE) from error

    def _tell_lost(self, block: wire.ParticleBlock) -> None:
        self._context.notify(
            f"Particle block {block.sequence} is left out: it was withdrawn, and {block.particle_table} is not there any more."
        )

    def _work(self, *, finalise: bool) -> bool:
        """Do one piece of work; false when there is none."""
        stream = self._stream
        if stream is None:
            return False
        if finalise:
            stream.request_finalise()
        worked = stream.advance()
        self._unsaved |= worked
        self._unpublished |= worked and self.has_news()
        self._context.report(self.progress())
        return worked

    def _feed_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a checkpoint must hold besides the stream's own state."""
        return {}

    def _show_and_save(self) -> None:
        now = self._clock()
        if self._unpublished and now - self._published_at >= self.PUBLISH_SECONDS:
            self._publish(final=False)
        if self._unsaved and now - self._saved_at >= CHECKPOINT_SECONDS:
            self._save()

    def _publish(self, *, final: bool) -> None:
        if self._stream is None or not self.has_result():
            return
        self._publications += 1
        stem = f"{self.FOLDER}/{self._context.job_id}/{self._context.environment.epoch}.{self._publications:05d}"
        self._context.delete_expired(tuple(self.publish(stem, final=final)))
        self._published_at = self._clock()
        self._unpublished = False

    def _save(self) -> None:
        """Write cursor and accumulators in one file, then make it the one to resume from."""
        stream = self._stream
        if stream is None or not self._unsaved:
            return
        geometry = {GEOMETRY: np.array([self._box_size_px, self._pixel_size_angstrom])}
        self._checkpoints.save(self._cursor, stream.state.to_arrays() | geometry | self._feed_arrays())
        self._saved_at = self._clock()
        self._unsaved = False
