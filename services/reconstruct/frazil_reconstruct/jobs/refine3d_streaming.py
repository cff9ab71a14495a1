"""Streaming 3D refinement: a volume that grows with the data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy.typing as npt

from frazil import array
from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.state import Refine3dState, from_arrays
from frazil.algorithms.refine3d.stream import StreamingRefinement
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.worker import WorkerContext
from frazil_reconstruct.selected_run import SelectedRun
from frazil_reconstruct.start_volume import read_start_volume
from frazil_reconstruct.volume_output import write_refined


def run(context: WorkerContext) -> None:
    """Refine a session's particles until it is paused (checkpoint, return) or complete (last refinement, return)."""
    xp = array.backend("cupy" if context.environment.device == "gpu" else "numpy")
    _Refinement(context, xp, time.monotonic).run()


def refine3d_parameters(parameters: SessionParameters) -> Refine3dParameters:
    """Return the parameters of the algorithm for what a person set for the session."""
    return Refine3dParameters(
        particle_diameter_angstrom=max(parameters.particle_diameter_angstrom, parameters.particle_diameter_max_angstrom),
        symmetry=parameters.symmetry.strip() or "C1",
        seed=parameters.seed,
    )


class _Refinement(SelectedRun):
    FOLDER = "refine3d"
    PUBLISH_SECONDS = 15.0

    _published_steps = 0  # passes and units

    def begin(self, box_size_px: int, pixel_size_angstrom: float, resumed: Refine3dState | None) -> StreamingRefinement:
        parameters = refine3d_parameters(self._context.session.parameters)
        start = None
        if resumed is None:
            path = self._context.session_folder / self._context.start_volume
            start = read_start_volume(path, box_size_px, pixel_size_angstrom, parameters.start_resolution_angstrom)
        return StreamingRefinement(
            parameters,
            box_size_px=box_size_px,
            pixel_size_angstrom=pixel_size_angstrom,
            start=start,
            xp=self._xp,
            state=resumed,
        )

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Refine3dState:
        return from_arrays(arrays, self._xp)

    def has_result(self) -> bool:
        state = self._refinement.state
        return state.accumulated is not None and state.live().size > 0  # all may have gone for a while

    def has_news(self) -> bool:
        return len(self._refinement.state.history) > self._published_steps

    def publish(self, stem: str, *, final: bool) -> Sequence[str]:
        message = write_refined(self._refinement, self._context.session_folder, stem)
        message.final, message.particle_block_sequence = final, self._cursor
        self._published_steps = len(self._refinement.state.history)
        return self._context.publish_volume(message).expired_paths

    def progress(self) -> str:
        run, state = self._refinement.run, self._refinement.state
        words = f"{state.counters.taken} of {len(state.particles)} particles taken in"
        return words + (f", {run.plane.box_angstrom / state.resolved:.1f} Å" if state.counters.supported else "")

    @property
    def _refinement(self) -> StreamingRefinement:
        return cast(StreamingRefinement, self._stream)
