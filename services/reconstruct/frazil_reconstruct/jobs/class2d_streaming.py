"""Streaming 2D classification: reads particle blocks by cursor, works, publishes, checkpoints, until told to stop.

What is computed depends on the sequence of blocks alone; the clock decides only when a result is shown and saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from frazil import array
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.state import Class2dState, from_arrays
from frazil.algorithms.class2d.stream import Streaming2d
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.checkpoint import load_newest, write_checkpoint
from frazil.worker import WorkerContext
from frazil_reconstruct.class_output import write_classes
from frazil_reconstruct.particle_feed import read_block

CHECKPOINT_SECONDS = 60.0
PUBLISH_SECONDS = 5.0
WAIT_SECONDS = 10.0
CLASS_COUNT_DEFAULT = 50
MAX_RESOLUTION_ANGSTROM_DEFAULT = 8.0


def run(context: WorkerContext) -> None:
    """Classify a session's particles until it is paused (checkpoint, return) or complete (final passes, return)."""
    xp = array.backend("cupy" if context.environment.device == "gpu" else "numpy")
    _Classification(context, xp, time.monotonic).run()


def class2d_parameters(parameters: SessionParameters) -> Class2dParameters:
    """Return the parameters of the algorithm for what a person set for the session."""
    diameter = max(parameters.particle_diameter_angstrom, parameters.particle_diameter_max_angstrom)
    return Class2dParameters(
        particle_diameter_angstrom=diameter,
        class_count=parameters.class_count or CLASS_COUNT_DEFAULT,
        max_resolution_angstrom=parameters.class_max_resolution_angstrom or MAX_RESOLUTION_ANGSTROM_DEFAULT,
        seed=parameters.seed,
    )


class _Classification:
    """The loop of one worker over one run of the algorithm."""

    def __init__(self, context: WorkerContext, xp: Any, clock: Callable[[], float]) -> None:
        self._context = context
        self._xp = xp
        self._clock = clock
        self._stream: Streaming2d | None = None
        self._pixel_size_angstrom = 0.0
        self._cursor = 0  # a resumed run reads every block again: its images are not in the checkpoint
        self._uids: dict[int, np.ndarray[Any, Any]] = {}
        self._number = max((c.number for c in context.checkpoints), default=0)
        self._resumed = self._load_state()
        self._saved_at = self._published_at = clock()
        self._unsaved = self._unpublished = False
        self._publications = 0

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

    def _load_state(self) -> Class2dState | None:
        paths = [(c.path, c.sha256) for c in self._context.checkpoints]
        checkpoint, corrupt = load_newest(self._context.session_folder, paths)
        for sentence in corrupt:
            self._context.log.warning("checkpoint_corrupt", sentence=sentence)
        return None if checkpoint is None else from_arrays(checkpoint.arrays, self._xp)

    def _take(self, block: wire.ParticleBlock) -> None:
        """Add or withdraw a block; the first one begins the run, since it tells box and pixel size."""
        folder = self._context.session_folder
        if block.kind == wire.ParticleBlock.KIND_RETRACT:
            withdrawn = self._uids.pop(block.retracts_sequence, None)
            if self._stream is not None and withdrawn is not None:
                self._stream.retract(block.sequence, withdrawn)
        else:
            particles = read_block(folder, block)
            if self._stream is None:
                self._pixel_size_angstrom = particles.optics.pixel_size_angstrom
                self._stream = Streaming2d(
                    class2d_parameters(self._context.session.parameters),
                    box_size_px=particles.images.shape[-1],
                    pixel_size_angstrom=self._pixel_size_angstrom,
                    xp=self._xp,
                    state=self._resumed,
                )
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
        self._unpublished |= worked
        done, total = stream.state.counters.taken, len(stream.state.particles)
        self._context.report(f"{done} of {total} particles taken in, {stream.state.class_count} classes")
        return worked

    def _show_and_save(self) -> None:
        now = self._clock()
        if self._unpublished and now - self._published_at >= PUBLISH_SECONDS:
            self._publish(final=False)
        if self._unsaved and now - self._saved_at >= CHECKPOINT_SECONDS:
            self._save()

    def _publish(self, *, final: bool) -> None:
        stream = self._stream
        if stream is None or stream.state.class_count == 0:
            return
        self._publications += 1
        stem = f"class2d/{self._context.job_id}/{self._context.environment.epoch}.{self._publications:05d}"
        message = write_classes(stream, self._context.session_folder, stem, self._pixel_size_angstrom)
        message.final = final
        reply = self._context.publish_class_averages(message)
        self._context.delete_expired(tuple(reply.expired_paths))
        self._published_at = self._clock()
        self._unpublished = False

    def _save(self) -> None:
        """Write cursor and accumulators in one file, then make it the one to resume from."""
        stream = self._stream
        if stream is None or not self._unsaved:
            return
        self._number += 1
        cursor = int(stream.state.counters.cursor)
        path = f"checkpoints/{self._context.job_id}/{self._context.environment.epoch}.{self._number:05d}.checkpoint"
        header = {"job_id": self._context.job_id, "number": self._number, "cursor_sequence": cursor}
        sha256 = write_checkpoint(self._context.session_folder / path, header, stream.state.to_arrays())
        expired = self._context.commit_checkpoint(self._number, cursor, path, sha256)
        self._context.delete_expired(expired)
        self._saved_at = self._clock()
        self._unsaved = False
