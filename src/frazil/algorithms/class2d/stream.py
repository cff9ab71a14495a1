"""Streaming 2D classification: blocks of particles in, steps of bounded work, classes out.

What happens is a function of the parameters and of the sequence of blocks and retractions alone. Particles are consumed in
units formed by block sequence; a remainder waits for the next block or for the end. Random numbers are keyed by seed and
step. So a run gives the same result whether blocks come at once or slowly, and after any number of restarts from a
checkpoint, bit for bit on one machine with one number of BLAS threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.class2d import schedule, steps
from frazil.algorithms.class2d.expectation import Search
from frazil.algorithms.class2d.images import ParticleBlock
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.references import reference_images
from frazil.algorithms.class2d.schedule import StepPlan
from frazil.algorithms.class2d.state import Class2dState, Phase, concatenate, empty_state, fresh_particles
from frazil.algorithms.class2d.statistics import ClassSummary, summarise
from frazil.algorithms.class2d.transforms import full_images
from frazil.array import to_host
from frazil.model.errors import ErrorKind, FrazilError

_PIECE_IMAGES = 2000
"""Particles of a full pass done in one call of `advance`: a second or two on one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignments:
    """Where every live, assigned particle belongs; one row per particle, in block sequence (host arrays).

    Attributes
    ----------
    uid: identity. class_index: of its class. psi_degrees: in [-180, 180), as in docs/conventions.md.
    origin_x_angstrom, origin_y_angstrom: the particle's centre sits at minus the origin from the box centre.
    probability: of the class. log_likelihood: relative to no particle. generation: of the pass that assigned it.
    """

    uid: np.ndarray[Any, Any]
    class_index: np.ndarray[Any, Any]
    psi_degrees: np.ndarray[Any, Any]
    origin_x_angstrom: np.ndarray[Any, Any]
    origin_y_angstrom: np.ndarray[Any, Any]
    probability: np.ndarray[Any, Any]
    log_likelihood: np.ndarray[Any, Any]
    generation: np.ndarray[Any, Any]


class Streaming2d:
    """One run of streaming 2D classification. Not thread-safe; a checkpoint may be taken between any two calls."""

    def __init__(
        self,
        parameters: Class2dParameters,
        *,
        box_size_px: int,
        pixel_size_angstrom: float,
        xp: Any = np,
        state: Class2dState | None = None,
    ) -> None:
        """Begin a run, or go on from a checkpoint's `state`, whose images `load_later` then provides.

        Raises FrazilError STATE_OF_OTHER_PARAMETERS for a state of finer or coarser resolution, or of more classes.
        """
        self._run = steps.make_run(parameters, box_size_px, pixel_size_angstrom, xp)
        grid = self._run.grid
        if state is not None and (
            (state.noise.size, state.classes.numerator.shape[-1]) != (grid.shell_count, grid.padded_size)
            or state.class_count > parameters.class_count
        ):
            raise FrazilError(
                "STATE_OF_OTHER_PARAMETERS",
                "Begin the classification anew: it was begun with another resolution limit, or with more classes.",
                kind=ErrorKind.CONFLICT,
            )
        self.state = state if state is not None else empty_state(grid.shell_count, grid.padded_size, xp)
        self._search: Search | None = None  # of the pass in hand; a function of the state

    @property
    def parameters(self) -> Class2dParameters:
        """What the run was begun with."""
        return self._run.parameters

    @property
    def work(self) -> steps.Work:
        """What this process has computed so far."""
        return self._run.work

    def load_later(self, load: Callable[[int], ParticleBlock]) -> None:
        """Go on from a checkpoint: `load` returns a block by its sequence once a step asks for its images.

        So nothing is read that is not needed, and never a block whose particles have all been removed.
        """
        table = self.state.particles
        self._run.images.append_later(table.sequence, table.uid, load)

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
        self._run.images.append(block)
        state.particles = concatenate(state.particles, fresh_particles(block.uid, block.sequence))
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

    def retract(self, sequence: int, uid: np.ndarray[Any, Any]) -> None:
        """Take in a retraction: particles that count no more, removed when their turn in the sequence comes.

        Their statistics leave with the next pass over all particles, which many retractions make due at once.
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
        """Say that no more blocks are expected: the remainder and the last passes become due."""
        self.state.counters.finalising = 1

    def finalise(self) -> None:
        """Do all work that is left, the last passes included."""
        self.request_finalise()
        while self.advance():
            pass

    def advance(self) -> bool:
        """Do the next piece of work, a second or two; False: nothing can be done before another block comes."""
        self._require_images()
        phase = self.state.counters.phase
        if phase in (Phase.WAITING, Phase.FINISHED):
            return self._begin()
        if phase == Phase.BOOTSTRAP:
            self._bootstrap()
        elif phase == Phase.UNIT:
            self._unit()
        else:
            self._pass()
        return True

    def class_averages(self) -> np.ndarray[Any, Any]:
        """Return the class averages at the particles' sampling, masked: (class, box, box) float32."""
        run, state = self._run, self.state
        if state.class_count == 0:
            return np.zeros((0, run.grid.box_size_px, run.grid.box_size_px), np.float32)
        images = reference_images(run.grid, run.masks, state.classes, state.radius) * run.masks.particle
        return to_host(full_images(run.grid, images)).astype(np.float32)

    def class_summaries(self) -> list[ClassSummary]:
        """Return the statistics of every class, by index."""
        run, state = self._run, self.state
        if state.class_count == 0:
            return []
        return summarise(run.grid, run.masks, state, state.radius, self.parameters.particle_diameter_angstrom)

    def assignments(self) -> Assignments:
        """Return where every live particle that has been classified belongs."""
        table, live = self.state.particles, self.state.live()
        rows = live[table.class_index[live] >= 0]
        degrees = np.rad2deg(table.psi[rows].astype(np.float64))
        return Assignments(
            uid=table.uid[rows],
            class_index=table.class_index[rows],
            psi_degrees=((degrees + 180) % 360 - 180).astype(np.float32),
            origin_x_angstrom=-table.shift[rows, 0],
            origin_y_angstrom=-table.shift[rows, 1],
            probability=table.probability[rows],
            log_likelihood=table.log_likelihood[rows],
            generation=table.generation[rows],
        )

    def _require_images(self) -> None:
        if len(self._run.images) < len(self.state.particles):
            raise FrazilError(
                "IMAGES_MISSING", "Say first how the images of a restored state are loaded.", kind=ErrorKind.CONFLICT
            )

    def _reopen(self) -> None:
        counters = self.state.counters
        counters.finalising = 0
        if counters.phase == Phase.FINISHED:
            counters.phase = Phase.WAITING

    def _begin(self) -> bool:
        """Begin what is due, in an order that does not depend on when blocks came."""
        state = self.state
        counters = state.counters
        bootstrapped = state.class_count > 0
        unit = self.parameters.unit_images if bootstrapped else self.parameters.bootstrap_images
        waiting = np.flatnonzero(~state.particles.removed[counters.taken :])
        end = counters.taken + int(waiting[unit - 1]) + 1 if waiting.size >= unit else len(state.particles)
        if self._remove_due(end if waiting.size >= unit else end + 1):
            if self._pass_is_due():
                self._enter(Phase.FULL_PASS)
            return True
        if waiting.size >= unit or (counters.finalising and counters.taken < end):
            self._begin_unit(end, bootstrapped)
            return True
        if counters.finalising and counters.phase != Phase.FINISHED and state.live().size and bootstrapped:
            self._enter(Phase.FINAL_PASS)
            return True
        return False

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
        state.counters.phase = Phase.WAITING  # final passes made before are void
        state.counters.removed_since_pass += int(gone[: state.counters.taken].sum())
        state.retracted_uid = state.retracted_uid[~now]
        state.retracted_by = state.retracted_by[~now]
        state.retracted_at = state.retracted_at[~now]
        return True

    def _begin_unit(self, end: int, bootstrapped: bool) -> None:
        """Take in the particles up to a row; those that are removed already do not count for a unit."""
        counters = self.state.counters
        counters.unit_start, counters.unit_end, counters.taken = counters.taken, end, end
        if not self.state.live().size:
            return
        if bootstrapped:
            steps.begin_unit(self._run, self.state, counters.unit_start, counters.unit_end)
        else:
            steps.begin_bootstrap(self._run, self.state)
        self._enter(Phase.UNIT if bootstrapped else Phase.BOOTSTRAP)

    def _bootstrap(self) -> None:
        counters = self.state.counters
        steps.bootstrap_step(self._run, self.state, counters.phase_step)
        counters.phase_step += 1
        if counters.phase_step == schedule.BOOTSTRAP_STEPS:
            self._enter(Phase.FULL_PASS)

    def _unit(self) -> None:
        counters = self.state.counters
        steps.unit_step(self._run, self.state, counters.phase_step)
        counters.phase_step += 1
        if counters.phase_step < schedule.UNIT_STEPS:
            return
        if not counters.renewed and schedule.renewal_is_due(self.parameters, self.state.live().size):
            self._renew()
        else:
            self._enter(Phase.FULL_PASS if self._pass_is_due() else Phase.WAITING)

    def _renew(self) -> None:
        """Begin to arrange all classes anew: they may show something else afterwards, so that each counts as begun anew."""
        self.state.counters.renewed = 1
        self.state.restarts += 1
        self._enter(Phase.BOOTSTRAP)
        self.state.counters.phase_step = schedule.RENEWAL_FROM

    def _pass(self) -> None:
        run, state = self._run, self.state
        plan = self._pass_plan()
        if state.sums is None:
            self._search = steps.begin_step(run, state, plan)
        elif self._search is None:
            self._search = steps.make_search(run, state, plan)
        if not steps.pass_piece(run, state, self._search, plan, _PIECE_IMAGES):
            return
        self._search = None
        counters = state.counters
        counters.phase_step += 1
        if counters.phase == Phase.FULL_PASS:
            self._enter(Phase.WAITING)
        elif counters.phase_step == self.parameters.final_passes:
            self._enter(Phase.FINISHED)

    def _pass_plan(self) -> StepPlan:
        grid, live = self._run.grid, self.state.live().size
        counters = self.state.counters
        if counters.phase == Phase.FULL_PASS:
            return schedule.pass_plan(grid, self.parameters, live)
        return schedule.final_plan(grid, self.parameters, counters.phase_step)

    def _pass_is_due(self) -> bool:
        counters, live = self.state.counters, self.state.live().size
        change = live - counters.pass_images + (1 + schedule.REMOVED_WEIGHT) * counters.removed_since_pass
        return live > 0 and self.state.class_count > 0 and change >= schedule.PASS_GROWTH * counters.pass_images

    def _enter(self, phase: Phase) -> None:
        self.state.counters.phase = phase
        self.state.counters.phase_step = 0
