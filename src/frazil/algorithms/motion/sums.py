"""The last pass over a movie: frames are warped into register and added up, with and without dose weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from frazil.algorithms.dose_weighting import dose_weights, frame_exposures
from frazil.algorithms.motion.field import DEGREES, Matrix, ShiftField
from frazil.algorithms.motion.frames import CorrectedFrames
from frazil.array import Array, is_numpy, namespace
from frazil.kernels.radial import add_weighted
from frazil.kernels.warp import APRON_PX, add_warped, add_warped_raw, sharpened
from frazil.model.optics import Optics
from frazil.primitives.fourier import crop_transform, irfft2, rfft2

_BATCH_PX, _BATCH_FRAMES = 24_000_000, (4, 8)  # frames held together: fewer passes over the sums, little memory
_MARGIN_PX = APRON_PX + 4  # what is read beyond a shift
_TABLE_SIZE = 4096  # entries over frequency: taking the nearest is good to 1e-4 of a weight
_WEIGHT_ERROR = 3e-5


@dataclass(frozen=True, slots=True)
class Sums:
    """Micrographs of one movie, `(y, x)` float32 on the device, protein dark as recorded.

    In `dose_weighted` noise is that of one frame at every frequency, and the mean that of the plain sum over the root of the
    number of frames. `odd` and `even` are the plain sums of the 1st, 3rd, ... and of the 2nd, 4th, ... frame, if asked for.
    """

    dose_weighted: Array
    plain: Array
    odd: Array | None = None
    even: Array | None = None


@dataclass(frozen=True, slots=True)
class LowRankWeights:
    """Weights of frames that depend on frequency, as a few weights over time, each with one over frequency.

    Attributes
    ----------
    temporal: (rank, frame) orthonormal rows.
    spectral: per sum (frequency, rank), or (1, rank) where frequency makes no difference. Products give the weights.
    """

    temporal: Matrix
    spectral: tuple[Matrix, ...]


def aligned_sums(
    frames: CorrectedFrames,
    field: ShiftField,
    optics: Optics,
    left_out: tuple[int, ...] = (),
    shape: tuple[int, int] | None = None,
    *,
    halves: bool = False,
) -> Sums:
    """Bring every frame into register by one interpolation and add the frames up.

    The weights of all frames, frequencies and sums are of low rank: a few sums with weights over time alone are made in
    real space, where frames can be warped, and combined in Fourier space, where weights depend on frequency. Where a shift
    leaves a place without data, the frame's edge is mirrored.

    Parameters
    ----------
    frames: the movie.
    field: shifts to apply.
    optics: pixel size, voltage, dose.
    left_out: frames that are not added.
    shape: `(y, x)` of the result, no larger than a frame; the frame's own unless told. Fourier-cropped, mean kept.
    halves: make the sums of odd and even frames too.

    Raises
    ------
    InputError : dose or voltage are impossible.
    """
    xp = namespace(frames.gain)
    full = frames.shape
    kept = np.array([t for t in range(frames.frame_count) if t not in left_out], dtype=np.int64)
    rows = [_dose_rows(frames.frame_count, kept, optics), _constant_row(frames.frame_count, kept)]
    if halves:
        rows += [_constant_row(frames.frame_count, kept[kept % 2 == parity]) for parity in (0, 1)]
    weights = low_rank(rows)
    canvas = (full[0] + 2 * APRON_PX, full[1] + 2 * APRON_PX)
    sums = xp.zeros((len(weights.temporal), *canvas), dtype=xp.float32)
    add = _add_raw if is_numpy(frames.gain) else _add_batches
    sums = add(sums, frames, kept, field, weights.temporal, _margin(field.coefficients, full))
    return Sums(*_combined(sums, weights, full, shape or full))


def low_rank(rows: list[Matrix]) -> LowRankWeights:
    """Factorise weights (frequency or 1, frame) of several sums by a singular value decomposition of all of them.

    As many components are kept as leave an error of 3e-5 of a row's norm; rows that stand for all frequencies count a
    hundredfold, so that plain sums are exact.
    """
    norms = [np.maximum(np.linalg.norm(row, axis=1, keepdims=True), 1e-30) for row in rows]
    emphasis = [100.0 if len(row) == 1 else 1.0 for row in rows]
    every = 8  # neighbouring frequencies are all but alike
    stacked = np.concatenate([row[::every] / n[::every] * e for row, n, e in zip(rows, norms, emphasis, strict=True)])
    _, values, components = np.linalg.svd(stacked, full_matrices=False)
    left = np.sqrt(np.maximum(np.cumsum((values**2)[::-1])[::-1], 0.0) / len(stacked))
    rank = max(1, int(np.count_nonzero(left > _WEIGHT_ERROR)))
    temporal = components[:rank]
    return LowRankWeights(temporal, tuple(row @ temporal.T for row in rows))


def _dose_rows(frame_count: int, kept: Matrix, optics: Optics) -> Matrix:
    """Return the dose weights of all frames over a table of frequencies, (frequency, frame), 0 for frames left out."""
    exposures = frame_exposures(frame_count, optics.dose_per_frame_e_per_angstrom2, optics.pre_exposure_e_per_angstrom2)
    frequency = _table_step() * np.arange(_TABLE_SIZE) / optics.pixel_size_angstrom
    rows = np.zeros((_TABLE_SIZE, frame_count))
    rows[:, kept] = dose_weights(frequency, tuple(exposures[t] for t in kept), optics.voltage_kv).T
    return rows


def _constant_row(frame_count: int, kept: Matrix) -> Matrix:
    row = np.zeros((1, frame_count))
    row[0, kept] = 1.0
    return row


def _table_step() -> float:
    """Return the cycles per px between entries of the table, which ends at a transform's corner."""
    return math.sqrt(0.5) / (_TABLE_SIZE - 1)


def _margin(coefficients: Matrix, shape: tuple[int, int]) -> tuple[int, int]:
    """Return how far beyond the field (y, x) the frames are asked for; never more than a frame, which can be mirrored once."""
    largest = (np.abs(coefficients) * 0.5 ** DEGREES[:, None]).sum(axis=1).max(axis=0, initial=0.0)
    sides = [min(int(reach) + _MARGIN_PX, size) for reach, size in zip(largest, shape, strict=True)]
    return sides[0], sides[1]


def _add_raw(
    sums: Array, frames: CorrectedFrames, kept: Matrix, field: ShiftField, temporal: Matrix, margin: tuple[int, int]
) -> Array:
    """Add the frames as recorded: the CPU corrects and warps them row by row."""
    for part, raw in frames.raw_blocks(kept.tolist()):
        add_warped_raw(sums, raw, field.coefficients[part], temporal[:, part] * np.isin(part, kept), margin)
    return sums


def _add_batches(
    sums: Array, frames: CorrectedFrames, kept: Matrix, field: ShiftField, temporal: Matrix, margin: tuple[int, int]
) -> Array:
    """Add the frames, some corrected ones at a time."""
    xp = namespace(frames.gain)
    height, width = frames.shape
    batch = min(max(_BATCH_PX // (height * width), _BATCH_FRAMES[0]), _BATCH_FRAMES[1])
    shape = (min(batch, len(kept)), height + 2 * margin[0], width + 2 * margin[1])
    images = xp.empty(shape, dtype=xp.float32)
    for start in range(0, len(kept), batch):
        part = kept[start : start + batch]
        _read_padded(frames, part, margin, images)
        sums = add_warped(sums, images[: len(part), ...], field.coefficients[part], temporal[:, part], margin)
    return sums


def _read_padded(frames: CorrectedFrames, part: Matrix, margin: tuple[int, int], images: Array) -> None:
    """Read frames into `images` (frame, y + 2 margin, x + 2 margin) and continue them beyond their edges by their mirrors."""
    xp = namespace(frames.gain)
    (height, width), (my, mx) = frames.shape, margin
    for i, t in enumerate(part):
        images[i, my : my + height, mx : mx + width] = frames.frame(int(t))
        images[i, :, :mx] = xp.flip(images[i, :, mx : 2 * mx], axis=1)
        images[i, :, width + mx :] = xp.flip(images[i, :, width : width + mx], axis=1)
        images[i, :my, :] = xp.flip(images[i, my : 2 * my, :], axis=0)
        images[i, height + my :, :] = xp.flip(images[i, height : height + my, :], axis=0)


def _combined(sums: Array, weights: LowRankWeights, full: tuple[int, int], shape: tuple[int, int]) -> list[Array]:
    """Give the sums over time, sharpened, each result's weights over frequency, and transform back."""
    xp = namespace(sums)
    totals = [xp.zeros((full[0], full[1] // 2 + 1), dtype=xp.complex64) for _ in weights.spectral]
    for r in range(sums.shape[0]):
        transform = rfft2(sharpened(sums[r, ...]))
        for i, table in enumerate(weights.spectral):
            if len(table) == 1:
                totals[i] += transform * float(table[0, r])
            else:
                totals[i] = add_weighted(totals[i], transform, full[1], table[:, r], _table_step())
    return [_image(total, full, shape) for total in totals]


def _image(transform: Array, full: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return the real image of a sum, cropped to `shape` px with its mean kept."""
    if shape == full:
        return irfft2(transform, full)
    return irfft2(crop_transform(transform, full[1], shape) * (math.prod(shape) / math.prod(full)), shape)
