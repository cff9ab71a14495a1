"""Streaming 2D classification: class averages that grow with the data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy.typing as npt

from frazil import array
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.state import Class2dState, from_arrays
from frazil.algorithms.class2d.stream import Streaming2d
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.worker import WorkerContext
from frazil_reconstruct.class_output import write_classes
from frazil_reconstruct.streaming_run import StreamingRun

CLASS_COUNT_DEFAULT = 50
MAX_RESOLUTION_ANGSTROM_DEFAULT = 8.0
UNIT_IMAGES_DEFAULT = 200


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
        mask_diameter_angstrom=parameters.class_mask_diameter_angstrom,
        unit_images=parameters.class_batch_particles or UNIT_IMAGES_DEFAULT,
        seed=parameters.seed,
    )


class _Classification(StreamingRun):
    FOLDER = "class2d"
    PUBLISH_SECONDS = 5.0

    def begin(self, box_size_px: int, pixel_size_angstrom: float, resumed: Class2dState | None) -> Streaming2d:
        return Streaming2d(
            class2d_parameters(self._context.session.parameters),
            box_size_px=box_size_px,
            pixel_size_angstrom=pixel_size_angstrom,
            xp=self._xp,
            state=resumed,
        )

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Class2dState:
        return from_arrays(arrays, self._xp)

    def has_result(self) -> bool:
        return self._classification.state.class_count > 0

    def publish(self, stem: str, *, final: bool) -> Sequence[str]:
        message = write_classes(self._classification, self._context.session_folder, stem, self._pixel_size_angstrom)
        message.final = final
        return self._context.publish_class_averages(message).expired_paths

    def progress(self) -> str:
        state = self._classification.state
        return f"{state.counters.taken} of {len(state.particles)} particles taken in, {state.class_count} classes"

    @property
    def _classification(self) -> Streaming2d:
        return cast(Streaming2d, self._stream)
