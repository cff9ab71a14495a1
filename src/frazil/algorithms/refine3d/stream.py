"""Streaming homogeneous refinement: blocks of particles in, steps of bounded work, half maps and poses out.

What happens is a function of the parameters, of the start map and of the sequence of blocks and retractions alone. The first
particles are refined until passes change little; new ones are then taken in by units, against the maps there are, and passes
over all particles follow as the run grows. Random numbers are keyed by seed and step. So a run gives the same result whether
blocks come at once or slowly, and after any number of restarts from a checkpoint, bit for bit on one machine with one number of
BLAS threads (on a CUDA device sums come in no fixed order: there results agree to single precision).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.algorithms.refine3d import convergence, steps
from frazil.algorithms.refine3d.expectation import Search
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.schedule import PassPlan, grid_limit, start_radius
from frazil.algorithms.refine3d.state import HISTORY, Kind, Phase, Refine3dState, Sums, concatenate, fresh_poses
from frazil.model.errors import ErrorKind, FrazilError, InputError
from frazil.primitives.volumes import low_pass, resample

_PIECE_IMAGES = 1000
"""Particles of a pass done in one call of `advance`."""


class StreamingRefinement:
    """One run of streaming homogeneous refinement. Not thread-safe; a checkpoint may be taken between any two calls."""

    def __init__(
        self,
        parameters: Refine3dParameters,
        *,
        box_size_px: int,
        pixel_size_angstrom: float,
        start: npt.NDArray[Any] | None = None,
        xp: Any = np,
        state: Refine3dState | None = None,
    ) -> None:
        """Begin a run from a start map, or go on from a checkpoint's `state`, whose images `load_later` then provides.

        start: (size, size, size) over the extent of the particle box, density positive, of any scale.
        Raises InputError when there is neither, or the map is no even cube.
        """
        self._run = steps.make_run(parameters, box_size_px, pixel_size_angstrom, xp)
        self.state = state if state is not None else _first_state(self._run, start)
        self._search: Search | None = None  # of the pass in hand; a function of the state

    @property
    def run(self) -> steps.Run:
        """The layout and images of the run, for what is published."""
        return self._run

    @property
    def start_radius(self) -> float:
        """Up to where the start map is used, Fourier pixels."""
        return start_radius(self._run.plane, self._run.parameters)

    @property
    def _grid_radius(self) -> float:
        return min(grid_limit(self._run.plane, self._run.parameters), self._run.plane.limit)

    def load_later(self, load: Callable[[int], ParticleBlock]) -> None:
        """Go on from a checkpoint: `load` returns a block by its sequence once a step asks for its images.

        So nothing is read that is not needed, and never a block whose particles have all been removed.
        """
        table = self.state.particles
        self._run.imaging.images.append_later(table.sequence, table.uid, load)

    def add_block(self, block: ParticleBlock) -> None:
        """Take in a block, in order of sequence.

        Raises
        ------
        InputError: box or pixel size differ from the run's. FrazilError: it comes out of order or twice, or the images of a
        restored state have not been provided (`load_later`).
        """
        state = self.state
        if block.sequence <= state.counters.cursor:
            raise FrazilError(
                "BLOCK_ORDER",
                f"Add blocks once and in order of sequence: block {block.sequence} comes after {state.counters.cursor}.",
                kind=ErrorKind.CONFLICT,
            )
        self._require_images()
        self._run.imaging.images.append(block)
        state.particles = concatenate(state.particles, fresh_poses(block.uid, block.sequence))
        state.counters.cursor = block.sequence
        self._reopen()

    def drop_block(self, sequence: int) -> None:
        """Go on without a block whose images are lost: its particles count no more from now on, unlike those of a retraction.

        A pass or unit in hand begins again, since some of them may be in its sums.
        """
        state = self.state
        gone = (state.particles.sequence == sequence) & ~state.particles.removed
        state.particles.removed |= gone
        state.counters.removed_since_pass += int(gone[: state.counters.taken].sum())
        state.sums = self._search = None
        if not state.live().size:
            state.counters.phase = Phase.WAITING

    def retract(self, sequence: int, uid: npt.NDArray[Any]) -> None:
        """Take in a retraction: particles that count no more, removed when their turn in the sequence comes.

        They leave the maps with the next pass over all particles.
        """
        state = self.state
        if sequence <= state.counters.cursor:
            return
        rows = len(state.particles)
        state.retracted_uid = np.concatenate([state.retracted_uid, uid.astype(np.uint64)])
        state.retracted_by = np.concatenate([state.retracted_by, np.full(uid.size, sequence, np.int64)])
        state.retracted_at = np.concatenate([state.retracted_at, np.full(uid.size, rows, np.int64)])
        state.counters.cursor = sequence
        self._reopen()

    def request_finalise(self) -> None:
        """Say that no more blocks are expected: the remainder and a last refinement become due."""
        self.state.counters.finalising = 1

    def finalise(self) -> None:
        """Do all work that is left, the last refinement included."""
        self.request_finalise()
        while self.advance():
            pass

    def advance(self) -> bool:
        """Do the next piece of work, some seconds; False: nothing can be done before another block comes."""
        self._require_images()
        phase = self.state.counters.phase
        if phase in (Phase.WAITING, Phase.FINISHED):
            return self._begin()
        self._piece()
        return True

    def _begin(self) -> bool:
        """Begin what is due, in an order that does not depend on when blocks came."""
        state, counters = self.state, self.state.counters
        begun = state.accumulated is not None
        unit = self._run.parameters.unit_images if begun else self._run.parameters.first_images
        waiting = len(state.particles) - counters.taken
        if self._remove_due(counters.taken + unit):
            if begun and convergence.pass_is_due(state):
                self._enter_refining(Kind.LOCAL)
            return True
        if waiting >= unit or (counters.finalising and waiting > 0):
            self._begin_unit(min(unit, waiting), begun)
            return True
        if counters.finalising and counters.phase != Phase.FINISHED and state.live().size and begun:
            self._enter_refining(Kind.GLOBAL)
            return True
        return False

    def _begin_unit(self, size: int, begun: bool) -> None:
        state, counters = self.state, self.state.counters
        counters.unit_start, counters.unit_end = counters.taken, counters.taken + size
        counters.taken = counters.unit_end
        new = self._new_rows()
        steps.take_in(self._run, state, new)
        if not begun:
            if new.size:
                self._enter_refining(Kind.DENSE)
            return
        counters.step += 1
        counters.kind = Kind.GLOBAL
        counters.phase = Phase.UNIT

    def _piece(self) -> None:
        """Do the next particles of the pass or unit in hand; at its end take the sums in and decide what follows."""
        state, counters = self.state, self.state.counters
        update = counters.phase == Phase.UNIT
        rows = self._new_rows() if update else state.live()
        plan = steps.make_plan(self._run, state, Kind(counters.kind), update=update)
        sums = self._open_sums(plan, update)
        if self._search is None:
            self._search = steps.make_search(self._run, state, plan, sums.radius)
        batch = rows[sums.visited : sums.visited + _PIECE_IMAGES]
        steps.insert_piece(self._run, state, self._search, batch, sums)
        if sums.visited < rows.size:
            return
        self._search = None
        state.particles.generation[rows] = counters.generation if update else counters.generation + 1
        state.sums = None
        if update:
            self._finish_unit(plan, sums)
        else:
            self._finish_pass(plan, sums, int(rows.size))

    def _open_sums(self, plan: PassPlan, update: bool) -> Sums:
        """Return the sums of the pass in hand: those of all particles for an update, which adds to them."""
        state = self.state
        if state.sums is None:
            state.sums = steps.begin_update(state) if update else steps.begin_sums(self._run, plan)
        return state.sums

    def _finish_unit(self, plan: PassPlan, sums: Sums) -> None:
        state, counters = self.state, self.state.counters
        before = state.resolved
        steps.maximise(self._run, state, plan, steps.add_update(state, sums), update=True)
        counters.units_since_pass += 1
        counters.idle_units = 0 if state.resolved > before * convergence.GAIN else counters.idle_units + 1
        counters.phase = Phase.WAITING
        if convergence.pass_is_due(state):
            self._enter_refining(Kind.LOCAL)

    def _finish_pass(self, plan: PassPlan, sums: Sums, images: int) -> None:
        state, counters = self.state, self.state.counters
        before = state.resolved
        steps.maximise(self._run, state, plan, sums, update=False)
        counters.generation += 1
        counters.passes += 1
        counters.step += 1
        counters.pass_images, counters.removed_since_pass = images, 0
        counters.units_since_pass = counters.idle_units = 0
        follow = convergence.next_kind(state, self._run.parameters, before, self._grid_radius)
        if follow is None:
            counters.phase = Phase.FINISHED if self._is_last() else Phase.WAITING
        else:
            counters.kind = follow

    def _is_last(self) -> bool:
        counters = self.state.counters
        return bool(counters.finalising) and counters.taken == len(self.state.particles)

    def _enter_refining(self, kind: Kind) -> None:
        """Begin passes over all particles; from the start map, as long as nothing finer has been seen."""
        state, counters = self.state, self.state.counters
        if not counters.supported:
            kind = Kind.DENSE
            state.particles.shift[: counters.taken] = state.particles.centre[: counters.taken]
        counters.phase, counters.kind = Phase.REFINING, kind
        counters.passes = counters.quiet = 0
        counters.step += 1

    def _new_rows(self) -> npt.NDArray[np.int64]:
        counters = self.state.counters
        removed = self.state.particles.removed[counters.unit_start : counters.unit_end]
        return np.flatnonzero(~removed) + counters.unit_start

    def _remove_due(self, limit: int) -> bool:
        """Apply the oldest retraction that came before the row `limit`; False if there is none."""
        state = self.state
        due = state.retracted_by[state.retracted_at < limit]
        if due.size == 0:
            return False
        now = state.retracted_by == due.min()
        known = int(state.retracted_at[now][0])  # later rows may hold the same particles, extracted anew
        table = state.particles
        gone = np.isin(table.uid, state.retracted_uid[now]) & ~table.removed
        gone[known:] = False
        table.removed |= gone
        state.counters.phase = Phase.WAITING  # a last refinement made before is void
        state.counters.removed_since_pass += int(gone[: state.counters.taken].sum())
        state.retracted_uid = state.retracted_uid[~now]
        state.retracted_by = state.retracted_by[~now]
        state.retracted_at = state.retracted_at[~now]
        return True

    def _require_images(self) -> None:
        if len(self._run.imaging.images) < len(self.state.particles):
            raise FrazilError(
                "IMAGES_MISSING", "Say first how the images of a restored state are loaded.", kind=ErrorKind.CONFLICT
            )

    def _reopen(self) -> None:
        counters = self.state.counters
        counters.finalising = 0
        if counters.phase == Phase.FINISHED:
            counters.phase = Phase.WAITING


def _first_state(run: steps.Run, start: npt.NDArray[Any] | None) -> Refine3dState:
    """Return the state of a run that has seen nothing but its start map."""
    if start is None:
        raise InputError("NO_START_MAP", "Give the refinement a start map: an ab-initio volume, or a map from a file.")
    if start.ndim != 3 or len(set(start.shape)) != 1 or start.shape[0] % 2:
        raise InputError("BAD_START_MAP", f"Give a start map that is an even cube; this one is {start.shape}.")
    if not np.isfinite(start).all() or not np.ptp(start) > 0:
        raise InputError("BAD_START_MAP", "Give a start map with density in it; this one is flat or has undefined voxels.")
    plane = run.plane
    radius = start_radius(plane, run.parameters)
    fitted = resample(np.asarray(start, np.float32), plane.box_size_px)
    return Refine3dState(
        start=low_pass(fitted, radius, 0.0).astype(np.float32),
        particles=fresh_poses(np.zeros(0, np.uint64), 0),
        noise=np.ones(plane.shell_count),
        first_noise=np.ones(plane.shell_count),
        fsc=np.zeros(plane.shell_count),
        history=np.zeros((0, len(HISTORY))),
        radius=radius,
        reference_power=0.0,
    )
