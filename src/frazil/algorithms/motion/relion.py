"""A shift field in the form that RELION writes and its polishing reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from frazil.algorithms.motion.field import ShiftField, grid_places

Matrix = np.ndarray[Any, Any]

_LOCAL_TERMS = ((0, 1), (0, 2), (1, 0), (2, 0), (1, 1))  # powers of y and x, in RELION's order after the constant
_TIME_POWERS = (1, 2, 3)
COEFFICIENT_COUNT = 18  # per axis


def relion_model(field: ShiftField) -> tuple[Matrix, Matrix]:
    """Refit a field by RELION's third-order polynomial (its `motioncorr`, after MotionCor2) and free whole-frame shifts.

    The shift at (X, Y), fractions of the frame from its middle, in frame Z from 0 is that of the whole frame plus the sum over
    1, X, X², Y, Y², XY of three coefficients times Z, Z², Z³. The constant's coefficients stay 0: whole-frame shifts hold them.

    Returns
    -------
    (frame, 2) whole-frame shifts (y, x) px, and the 36 coefficients, 18 for x before 18 for y.
    """
    frame_count = len(field.coefficients)
    places = grid_places()
    shifts = field.at(places)
    design = np.einsum("tk,pb->tpbk", _time_powers(frame_count), _local_terms(places)).reshape(frame_count, len(places), -1)
    centred, target = (part - part.mean(axis=1, keepdims=True) for part in (design, shifts))
    fitted = np.linalg.lstsq(centred.reshape(-1, design.shape[2]), target.reshape(-1, 2), rcond=None)[0]
    whole = (shifts - design @ fitted).mean(axis=1)
    scale = np.array([max(frame_count - 1, 1) ** -float(power) for power in _TIME_POWERS], float)
    coefficients = np.zeros((2, COEFFICIENT_COUNT))
    coefficients[:, 3:] = (fitted.T.reshape(2, len(_LOCAL_TERMS), 3) * scale).reshape(2, -1)
    return whole - whole[0], coefficients[::-1].ravel()


def relion_shifts(whole: Matrix, coefficients: Matrix, places: Matrix) -> Matrix:
    """Return the shift to apply, (frame, place, 2) as (y, x) px, that RELION reads from its file at relative places (n, 2)."""
    frame_count = len(whole)
    powers = np.arange(frame_count)[:, None] ** np.array(_TIME_POWERS)
    spatial = np.concatenate([np.ones((len(places), 1)), _local_terms(places)], axis=1)
    of_axes = np.asarray(coefficients, float).reshape(2, 6, 3)[::-1]
    return np.asarray(whole[:, None] + np.einsum("tk,pb,abk->tpa", powers, spatial, of_axes))


def _time_powers(frame_count: int) -> Matrix:
    """Return powers of the frame number, scaled to end at 1, (frame, power): well conditioned for any number of frames."""
    z = np.arange(frame_count) / max(frame_count - 1, 1)
    return np.stack([z**power for power in _TIME_POWERS], axis=1)


def _local_terms(places: Matrix) -> Matrix:
    return np.stack([places[:, 0] ** i * places[:, 1] ** j for i, j in _LOCAL_TERMS], axis=1)
