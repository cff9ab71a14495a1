"""What every streaming job does: reads particle blocks by cursor, works, publishes, checkpoints, until told to stop.

What is computed depends on the sequence of blocks alone; the clock decides only when a result is shown and saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.worker import WorkerContext
from frazil_reconstruct.checkpoints import CHECKPOINT_SECONDS, Checkpoints
from frazil_reconstruct.particle_feed import read_block

WAIT_SECONDS = 10.0


class Stream(Protocol):
    """A streaming algorithm: `frazil.algorithms.class2d.stream` says what each of these means."""

    state: Any

    @property
    def missing_images(self) -> int: ...  # noqa: D102

    def add_block(self, block: ParticleBlock) -> None: ...  # noqa: D102

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
        self._cursor = 0  # a resumed run reads every block again: its images are not in the checkpoint
        self._uids: dict[int, npt.NDArray[Any]] = {}
        self._checkpoints = Checkpoints(context)
        arrays = self._checkpoints.load()
        self._resumed = None if arrays is None else self.restore(arrays)
        self._saved_at = self._published_at = clock()
        self._unsaved = self._unpublished = False
        self._publications = 0

    @abstractmethod
    def begin(self, first: ParticleBlock, resumed: Any) -> Stream:
        """Return the stream that the first block's box and pixel size ask for, going on from a state unless it is None."""

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
        busy = True
        while not self._context.stop_requested:
            reply = self._context.read_blocks(self._cursor, wait_seconds=0.0 if busy else WAIT_SECONDS)
            for block in reply.blocks:
                self._take(block)
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

    def _take(self, block: wire.ParticleBlock) -> None:
        """Add or withdraw a block; the first one begins the run, since it tells box and pixel size."""
        if block.kind == wire.ParticleBlock.KIND_RETRACT:
            withdrawn = self._uids.pop(block.retracts_sequence, None)
            if self._stream is not None and withdrawn is not None:
                self._stream.retract(block.sequence, withdrawn)
        else:
            particles = read_block(self._context.session_folder, block)
            if self._stream is None:
                self._stream = self.begin(particles, self._resumed)
            self._stream.add_block(particles)
            self._uids[block.sequence] = particles.uid
        self._cursor = block.sequence

    def _work(self, *, finalise: bool) -> bool:
        """Do one piece of work; false when there is none, or the images of a resumed run are not all loaded yet."""
        stream = self._stream
        if stream is None or stream.missing_images:
            return False
        if finalise:
            stream.request_finalise()
        worked = stream.advance()
        self._unsaved |= worked
        self._unpublished |= worked and self.has_news()
        self._context.report(self.progress())
        return worked

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
        self._checkpoints.save(int(stream.state.counters.cursor), stream.state.to_arrays())
        self._saved_at = self._clock()
        self._unsaved = False
