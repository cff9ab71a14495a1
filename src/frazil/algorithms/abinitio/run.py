"""Ab-initio 3D: a bounded set of particles in, volumes out, by stochastic online EM from random starts.

Every start makes the first third of the steps; the one that explains held-out particles best goes on. What happens is a
function of the parameters and of the particles alone; random numbers are keyed by seed and step. So a run that goes on from a
checkpoint ends as if it had not been interrupted, bit for bit on one machine with one number of BLAS threads. The hand of a map
cannot be known from its projections: a mirrored map is as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.abinitio import schedule, steps
from frazil.algorithms.abinitio.centring import centre_on_average
from frazil.algorithms.abinitio.parameters import AbInitioParameters
from frazil.algorithms.abinitio.state import AbInitioState, Phase, Volumes, empty_state
from frazil.algorithms.class2d.images import ParticleBlock
from frazil.algorithms.refine3d.intake import take_in
from frazil.algorithms.refine3d.results import AngularDistribution, angular_distribution
from frazil.algorithms.refine3d.state import concatenate, fresh_poses
from frazil.array import to_host
from frazil.model.errors import ErrorKind, FrazilError
from frazil.primitives.volumes import resample

_PIECE_IMAGES = 1000
_LEAST_IMAGES = 20
_RESTARTS_UNTIL = 0.8  # of the iterations: afterwards volumes must settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What an ab-initio run found.

    Attributes
    ----------
    volumes: (volume, box, box, box) float32 host, density positive, in units of the particle images; not sharpened.
    fraction: (volume,) share of the particles.
    resolution_limit_angstrom: finest detail used: not a resolution, which only half maps tell.
    likelihoods: (start,) mean log likelihood of held-out particles; empty for a single start.
    distribution: (volume,) viewing directions of each volume's particles; a preferred orientation is marked there.
    """

    volumes: npt.NDArray[np.float32]
    fraction: npt.NDArray[np.float64]
    resolution_limit_angstrom: float
    likelihoods: npt.NDArray[np.float64]
    distribution: tuple[AngularDistribution, ...]


class AbInitio:
    """One ab-initio run. Not thread-safe; a checkpoint may be taken between any two calls."""

    def __init__(
        self,
        parameters: AbInitioParameters,
        *,
        box_size_px: int,
        pixel_size_angstrom: float,
        xp: Any = np,
        state: AbInitioState | None = None,
    ) -> None:
        """Begin a run, or go on from a checkpoint's `state`, whose blocks must then be added again."""
        self._run = steps.make_run(parameters, box_size_px, pixel_size_angstrom, xp)
        self.state = state if state is not None else empty_state(self._run.plane.shell_count)

    @property
    def missing_images(self) -> int:
        """Particles in the state whose images have not been loaded again after a restart."""
        return len(self.state.particles) - len(self._run.imaging.images)

    def add_block(self, block: ParticleBlock) -> None:
        """Take in a block, in order of sequence, before the run begins; or load it again after a restart.

        Raises
        ------
        InputError: box or pixel size differ from the run's. FrazilError: the run has begun, or blocks come in another order.
        """
        state, images = self.state, self._run.imaging.images
        if block.sequence <= state.counters.cursor:
            first = len(images)
            if not np.array_equal(state.particles.uid[first : first + block.uid.size], block.uid):
                raise FrazilError(
                    "BLOCK_ORDER",
                    f"Add blocks once and in order of sequence: block {block.sequence} is not the next one to be loaded.",
                    kind=ErrorKind.CONFLICT,
                )
            images.append(block)
            return
        if state.counters.phase != Phase.COLLECTING:
            raise FrazilError(
                "ABINITIO_BEGUN",
                "Begin another ab-initio run for more particles: this one has begun with those it had.",
                kind=ErrorKind.CONFLICT,
            )
        images.append(block)
        state.particles = concatenate(state.particles, fresh_poses(block.uid, block.sequence))
        state.volume_index = np.concatenate([state.volume_index, np.full(block.uid.size, -1, np.int32)])
        state.counters.cursor = block.sequence

    def advance(self) -> bool:
        """Do the next step; False: the run is finished.

        Raises FrazilError when there are fewer than 20 particles, or images are missing after a restart.
        """
        state, counters = self.state, self.state.counters
        if self.missing_images:
            raise FrazilError(
                "IMAGES_MISSING",
                f"Add all blocks up to the cursor first: {self.missing_images} particle images are not loaded.",
                kind=ErrorKind.CONFLICT,
            )
        if counters.phase == Phase.FINISHED:
            return False
        if counters.phase == Phase.COLLECTING:
            self._begin()
        elif counters.phase == Phase.ASSIGNING:
            self._assign()
        else:
            self._step(_volumes_of(state))
        return True

    def reconstruction(self) -> Reconstruction:
        """Return the present volumes: of the start in hand, or of the one that won.

        Raises FrazilError before the run has begun.
        """
        run, state = self._run, self.state
        volumes, plane = _volumes_of(state), run.plane
        iteration = max(state.counters.iteration - 1, 0)
        radius = schedule.step_plan(plane, run.parameters, iteration).radius
        size = plane.working_size(radius)
        found = [to_host(resample(v, plane.box_size_px)) for v in steps.current_maps(run, volumes, radius, size)]
        distribution = tuple(
            angular_distribution(state.particles.pose[state.volume_index == k], run.group.operators) for k in range(len(found))
        )
        return Reconstruction(
            volumes=np.stack(found).astype(np.float32),
            fraction=volumes.weight / volumes.weight.sum(),
            resolution_limit_angstrom=plane.box_angstrom / radius,
            likelihoods=state.likelihoods.copy(),
            distribution=distribution,
        )

    def _begin(self) -> None:
        run, state = self._run, self.state
        count = len(state.particles)
        if count < max(_LEAST_IMAGES, run.parameters.volume_count):
            raise FrazilError("TOO_FEW_PARTICLES", f"Select more particles for ab-initio: {count} are too few to begin with.")
        take_in(run.imaging, state, np.arange(count))
        centre_on_average(run.imaging, state, run.parameters.particle_diameter_angstrom)
        self._begin_start()
        contest = schedule.contest_iterations(run.parameters)
        state.counters.phase = Phase.CONTEST if contest else Phase.ONLINE

    def _begin_start(self) -> None:
        self.state.counters.step += 1
        self.state.counters.iteration = 0
        self.state.noise = self.state.first_noise.copy()
        steps.begin_start(self._run, self.state)

    def _step(self, volumes: Volumes) -> None:
        run, state, counters = self._run, self.state, self.state.counters
        contest = counters.phase == Phase.CONTEST
        counters.step += 1
        excluded = steps.held_out(run, state) if contest else np.zeros(0, np.int64)
        steps.online_step(run, state, volumes, counters.iteration, excluded)
        if run.parameters.volume_count > 1 and counters.iteration < _RESTARTS_UNTIL * run.parameters.iterations:
            steps.restart_starving(run, state, volumes)
        counters.iteration += 1
        if contest and counters.iteration == schedule.contest_iterations(run.parameters):
            self._judge(volumes, excluded)
        elif counters.iteration == run.parameters.iterations:
            counters.phase = Phase.ASSIGNING

    def _judge(self, volumes: Volumes, rows: npt.NDArray[np.int64]) -> None:
        """Compare a start with the best so far on particles it has not seen; then begin the next, or go on with the best."""
        run, state, counters = self._run, self.state, self.state.counters
        state.noise = state.first_noise.copy()  # the same for all: likelihoods under different noise do not compare
        likelihood = steps.mean_log_likelihood(run, state, volumes, rows, counters.iteration)
        if state.likelihoods.size == 0 or likelihood > state.likelihoods.max():
            state.best = volumes
        state.likelihoods = np.append(state.likelihoods, likelihood)
        counters.start += 1
        if counters.start < run.parameters.restarts:
            self._begin_start()
            return
        state.volumes, state.best = state.best, None
        counters.start = int(state.likelihoods.argmax())
        counters.phase = Phase.ONLINE

    def _assign(self) -> None:
        run, state, counters = self._run, self.state, self.state.counters
        total = len(state.particles)
        rows = np.arange(counters.visited, min(counters.visited + _PIECE_IMAGES, total))
        steps.assign(run, state, _volumes_of(state), rows)
        counters.visited = int(rows[-1]) + 1
        if counters.visited == total:
            counters.phase = Phase.FINISHED


def _volumes_of(state: AbInitioState) -> Volumes:
    if state.volumes is None:
        raise FrazilError("NOTHING_RECONSTRUCTED", "Let the ab-initio run begin first: there is no volume yet.")
    return state.volumes
