"""A streaming run over the particles of selected 2D classes.

A particle comes once it is assigned to a selected class, and goes when its newest assignment is to another; without a selection
all come at once. So the stream's own sequence of blocks is not the ledger's: it counts parts of blocks that come, and particles
that go, and a checkpoint says which of the ledger's blocks each part is of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.api.worker.v1 import worker_pb2
from frazil.worker import WorkerContext
from frazil_reconstruct.particle_feed import blocks_of, is_on_disk, live_blocks, read_uids, withdrawn_blocks
from frazil_reconstruct.selected_particles import UNKNOWN, are_in, part, revisions, selected_uids
from frazil_reconstruct.streaming_run import GEOMETRY, StreamingRun

PARTS = "feed.parts"
"""Name of the checkpoint's array of (sequence in the stream, sequence in the ledger), a row for each part of a block."""
CURSOR = "feed.cursor"
STRAGGLERS = 0.25  # share of a block that makes it worth reading again for particles that come late


@dataclass(slots=True)
class KnownBlock:
    """A block of the ledger that has not been withdrawn, and which of its particles are in the stream."""

    block: wire.ParticleBlock
    uid: npt.NDArray[np.uint64]
    taken: npt.NDArray[np.bool_]


class SelectedRun(StreamingRun):
    """The loop of `StreamingRun` with particles that come and go by the selection of 2D classes."""

    def __init__(self, context: WorkerContext, xp: Any, clock: Callable[[], float]) -> None:
        super().__init__(context, xp, clock)
        self._known: dict[int, KnownBlock] = {}
        self._parts: list[tuple[int, int]] = []
        self._revisions = UNKNOWN
        self._selected: npt.NDArray[np.uint64] | None = None
        self._unsettled = False
        self._thorough = False  # stragglers come however few they are

    def _read_blocks(self, wait_seconds: float) -> worker_pb2.ReadParticleBlocksResponse:
        reply = self._context.read_blocks(self._cursor, wait_seconds=wait_seconds, known_classes=self._revisions)
        if reply.HasField("class_averages"):
            self._hear(reply.class_averages)
        return reply

    def _hear(self, averages: wire.ClassAverages) -> None:
        try:
            selected = selected_uids(self._context.session_folder, averages)
        except FileNotFoundError:
            return  # a newer classification has replaced it: the next reply tells of that
        if selected is not None and not averages.revision:  # taken away: what is in stays until there is another
            selected = np.sort(np.concatenate([np.zeros(0, np.uint64), *(one.uid[one.taken] for one in self._known.values())]))
        self._selected = selected
        self._unsettled = True
        self._thorough = averages.final or averages.selection.revision != self._revisions[1]
        self._revisions = revisions(averages)

    def _take(self, block: wire.ParticleBlock) -> bool:
        """Note that there is a block, or none any more; its particles come by the selection."""
        if block.kind == wire.ParticleBlock.KIND_RETRACT:
            known = self._known.pop(block.retracts_sequence, None)
            if known is not None and known.taken.any():
                self._go(known.uid[known.taken])
        elif not self._note(block) and self._context.stop_requested:
            return False
        self._cursor = block.sequence
        return True

    def _note(self, block: wire.ParticleBlock) -> bool:
        """Learn which particles a block has; false when they are lost."""
        particles = self._unless_lost(block, read_uids)
        if particles is None:
            return False
        self._known[block.sequence] = KnownBlock(block, particles, np.zeros(particles.size, dtype=np.bool_))
        return True

    def _take_all(self, blocks: Sequence[wire.ParticleBlock]) -> None:
        super()._take_all(blocks)
        if blocks or self._unsettled:
            self._settle()

    def _settle(self) -> None:
        """Let particles go that the selection wants no more, and those come that it wants."""
        wanted = {sequence: are_in(known.uid, self._selected) for sequence, known in self._known.items()}
        gone = [known.uid[known.taken & ~wanted[sequence]] for sequence, known in self._known.items()]
        if any(uid.size for uid in gone):
            self._go(np.concatenate(gone))
        for sequence, rows in wanted.items():
            known = self._known.get(sequence)
            if known is None or self._context.stop_requested:
                continue
            known.taken &= rows
            coming = rows & ~known.taken
            if coming.any() and (self._thorough or not known.taken.any() or coming.mean() >= STRAGGLERS):
                self._come(known, coming)
        self._unsettled = self._context.stop_requested
        self._thorough &= self._unsettled

    def _come(self, known: KnownBlock, rows: npt.NDArray[np.bool_]) -> None:
        """Add particles of a block to the stream, which begins anew with the first block of another box or pixel size."""
        block = self._read(known.block)
        if block is None:
            if not self._context.stop_requested:
                del self._known[known.block.sequence]
            return
        geometry = (block.images.shape[-1], block.optics.pixel_size_angstrom)
        stream = self._stream
        if stream is None or geometry != (self._box_size_px, self._pixel_size_angstrom):
            self._unpublished = False
            stream = self._begin(*geometry, None)
            self._parts = []
            self._known = {number: one for number, one in self._known.items() if not one.taken.any()}
        sequence = int(stream.state.counters.cursor) + 1
        stream.add_block(part(block, rows, sequence))
        self._parts.append((sequence, known.block.sequence))
        known.taken |= rows

    def _go(self, uid: npt.NDArray[np.uint64]) -> None:
        if self._stream is not None:
            self._stream.retract(int(self._stream.state.counters.cursor) + 1, uid)

    def _resume(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Go on from a checkpoint: its parts of blocks are found again, and which particles they have in the stream."""
        state = self.restore(arrays)
        box_size_px, pixel_size_angstrom = arrays[GEOMETRY]
        stream = self._begin(int(box_size_px), float(pixel_size_angstrom), state)
        self._cursor, self._parts = int(arrays[CURSOR]), [(int(own), int(its)) for own, its in arrays[PARTS]]
        blocks = blocks_of(self._context)
        added = {block.sequence: block for block in blocks if block.kind == wire.ParticleBlock.KIND_ADD}
        origin, table = dict(self._parts), state.particles
        rows = {own: slice(*np.searchsorted(table.sequence, (own, own + 1))) for own in origin}

        def load(sequence: int) -> ParticleBlock:
            block = self._read_again(added[origin[sequence]])
            return part(block, np.isin(block.uid, table.uid[rows[sequence]]), sequence)

        stream.load_later(load)
        needed = set(table.sequence[~table.removed].tolist())
        lost = {block.sequence for block in withdrawn_blocks(blocks) if not self._is_on_disk(block)}
        for own, its in self._parts:
            if own in needed and its in lost:
                stream.drop_block(own)
                self._tell_lost(added[its])
        counts, mine = _counts(state), defaultdict[int, list[npt.NDArray[np.uint64]]](list)
        for own, its in self._parts:
            mine[its].append(table.uid[rows[own]][counts[rows[own]]])
        for block in live_blocks([one for one in blocks if one.sequence <= self._cursor and one.sequence not in lost]):
            uid = self._again(block, read_uids)
            taken = np.isin(uid, np.concatenate([*mine[block.sequence], uid[:0]]))
            self._known[block.sequence] = KnownBlock(block, uid, taken)

    def _is_on_disk(self, block: wire.ParticleBlock) -> bool:
        return is_on_disk(self._context.session_folder, block)

    def _feed_arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {PARTS: np.array(self._parts, dtype=np.int64).reshape(-1, 2), CURSOR: np.array(self._cursor)}


def _counts(state: Any) -> npt.NDArray[np.bool_]:
    """Say which rows of a stream's particles count, or will; those about to be removed do not."""
    table = state.particles
    counts: npt.NDArray[np.bool_] = ~table.removed
    for at in np.unique(state.retracted_at):
        counts[:at] &= ~np.isin(table.uid[:at], state.retracted_uid[state.retracted_at == at])
    return counts
