"""The last pass over a movie: frames are warped into register and added up with several weights at once.

Interpolation is by cubic B-splines (Unser, IEEE Signal Processing Magazine 1999). Their prefilter is the same for all frames
and the sums are linear, so it is applied once, to the sums, by `sharpened`.

A warp is the shift to apply, a cubic polynomial over the field: (frame, 10, 2) as (y, x) px, of the terms
1, x, y, x², xy, y², x³, x²y, xy², y³ with x, y the px divided by the frame's size, minus 1/2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace, thread_count
from frazil.kernels.gain import RawFrames

APRON_PX = 10  # around the field in the sums: what the prefilter reaches, to 1e-6
CUDA_RANK_MAX = 16
_RUNS_PX = (32, 16, 8, 4, 2, 1)  # neighbours in a row that share one shift: the longest that is good enough
_TOGETHER_BYTES = 1 << 20  # of the sums, for as many rows as frames are gone through together: a CPU's cache
_RUN_ERROR_PX = 0.1  # at the ends of a run in the steepest place and frame
_POLE = math.sqrt(3) - 2
_PREFILTER = _POLE ** np.abs(np.arange(-APRON_PX, APRON_PX + 1))
_PREFILTER /= _PREFILTER.sum()  # but for what is cut off, the root of 3


def add_warped(
    sums: Array, images: Array, warps: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], margin: tuple[int, int]
) -> Array:
    """Add frames, each at `place - shift(place)`, to sums with different weights; to be `sharpened` in the end.

    Parameters
    ----------
    sums: (sum, y + 2 apron, x + 2 apron) float32; on cupy they are added to in place.
    images: (frame, y + 2 margin, x + 2 margin) float32.
    warps: (frame, 10, 2) host, no shift beyond the margin less the apron and 3 px.
    weights: (sum, frame) host.
    margin: (y, x) px around the field in `images`.

    Returns
    -------
    The sums.
    """
    if is_cupy(images):
        _add_cuda(sums, images, warps, weights, margin)
        return sums
    return add_warped_standard(sums, images, warps, weights, margin)


def add_warped_raw(
    sums: np.ndarray[Any, Any],
    frames: RawFrames,
    warps: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    margin: tuple[int, int],
) -> None:
    """Do what `add_warped` does with frames as recorded, on the CPU: each row is corrected, warped and added in one go.

    Beyond its edges a frame is continued by its mirror. Frames without any weight are not read.

    Parameters
    ----------
    sums: as of `add_warped`; they are added to in place.
    frames: the frames.
    warps, weights: as of `add_warped`.
    margin: (y, x) px around the field that shifts may reach to; at most the field's own size.
    """
    from frazil.kernels._warp_numba import add_rows

    steepest_y, steepest_x = _slopes(warps, frames.raw.shape[1:])
    step = next((run for run in _RUNS_PX if steepest_x * run / 2 <= _RUN_ERROR_PX), _RUNS_PX[-1])
    together = min(max(_TOGETHER_BYTES // sums[:, 0].nbytes, 4), 32)
    layout = (APRON_PX, step, together, 8 + _spread_of_rows(warps) + math.ceil(together * steepest_y))
    bad = (frames.bad, frames.bad_rows, frames.sources)
    host = np.ascontiguousarray(warps, np.float32), np.ascontiguousarray(weights, np.float32)
    arguments = (frames.raw, frames.gain, frames.levels, bad, *host, margin, layout)
    _in_strips(lambda a, b: add_rows(sums, *arguments, (a, b)), sums.shape[1])


def sharpened(total: Array) -> Array:
    """Return one sum `(y + 2 apron, x + 2 apron)` after the prefilter, without its apron: `(y, x)` float32."""
    if is_numpy(total):
        from frazil.kernels._warp_numba import sharpen_rows

        height, width = (n - 2 * APRON_PX for n in total.shape)
        out = np.empty((height, width), np.float32)
        taps = _PREFILTER.astype(np.float32)
        _in_strips(lambda a, b: sharpen_rows(total, taps, a, b, out), height)
        return out
    for axis in (0, 1):
        size = total.shape[axis] - 2 * APRON_PX
        parts = [total[i : i + size, :] if axis == 0 else total[:, i : i + size] for i in range(2 * APRON_PX + 1)]
        total = sum((float(tap) * part for tap, part in zip(_PREFILTER, parts, strict=True)), start=0.0 * parts[0])
    return total


def add_warped_standard(
    sums: Array, images: Array, warps: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], margin: tuple[int, int]
) -> Array:
    """The twin of `add_warped` by gathers: 16 for every frame, each px with a shift of its own."""
    xp = namespace(images)
    canvas = (int(sums.shape[1]), int(sums.shape[2]))
    y, x = np.arange(canvas[0])[:, None] - APRON_PX, np.arange(canvas[1])[None] - APRON_PX
    for t, warp in enumerate(warps):
        shift = _shifts(warp, y / (canvas[0] - 2 * APRON_PX) - 0.5, x / (canvas[1] - 2 * APRON_PX) - 0.5)
        at = [y - shift[0] + margin[0], x - shift[1] + margin[1]]
        limits = [int(n) for n in images.shape[1:]]
        first = [np.clip(np.floor(a).astype(np.int64) - 1, 0, n - 4) for a, n in zip(at, limits, strict=True)]
        taps = [_spline_taps(a - np.floor(a)) for a in at]
        flat = xp.reshape(images[t, ...], (-1,))
        warped = xp.zeros(canvas, dtype=xp.float32)
        for i in range(4):
            for j in range(4):
                positions = xp.asarray((first[0] + i) * limits[1] + first[1] + j)
                values = xp.reshape(xp.take(flat, xp.reshape(positions, (-1,))), canvas)
                warped = warped + values * xp.asarray(taps[0][i] * taps[1][j], dtype=xp.float32)
        sums = sums + warped[None, ...] * xp.asarray(weights[:, t, None, None], dtype=xp.float32)
    return sums


def _shifts(warp: np.ndarray[Any, Any], y: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the shifts, (2, y, x), of one warp."""
    terms = (1, x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3)
    shape = (y.shape[0], x.shape[1])
    return np.stack([sum(c * np.broadcast_to(term, shape) for c, term in zip(axis, terms, strict=True)) for axis in warp.T])


def _spline_taps(fraction: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the four values of the cubic B-spline kernel about a position `fraction` past its second knot."""
    f, g = fraction, 1 - fraction
    return g**3 / 6, (4 - 6 * f**2 + 3 * f**3) / 6, (4 - 6 * g**2 + 3 * g**3) / 6, f**3 / 6


def _slopes(warps: np.ndarray[Any, Any], shape: tuple[int, ...]) -> tuple[float, float]:
    """Return by how many px a shift changes per px along y and along x, in the steepest place and frame."""
    y, x = (axis.ravel() for axis in np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 2, indexing="ij"))
    one = np.ones_like(x)
    along_x = np.einsum("tba,bp->tpa", warps[:, [1, 3, 4, 6, 7, 8]], np.stack([one, 2 * x, y, 3 * x * x, 2 * x * y, y * y]))
    along_y = np.einsum("tba,bp->tpa", warps[:, [2, 4, 5, 7, 8, 9]], np.stack([one, x, 2 * y, x * x, 2 * x * y, 3 * y * y]))
    return float(np.abs(along_y).max(initial=0.0)) / shape[0], float(np.abs(along_x).max(initial=0.0)) / shape[1]


def _spread_of_rows(warps: np.ndarray[Any, Any]) -> int:
    """Return over how many rows of a frame one row of the field is spread at most."""
    half_powers = np.array([0.5, 0.25, 0.25, 0.125, 0.125, 0.125])  # of the terms in which x occurs
    return math.ceil(2 * float((np.abs(warps[:, [1, 3, 4, 6, 7, 8], 0]) * half_powers).sum(axis=1).max(initial=0.0)))


def _in_strips(work: Callable[[int, int], None], height: int) -> None:
    """Do work on strips of rows, from first to before last, in as many threads as there may be."""
    threads = thread_count()
    if threads == 1:
        work(0, height)
        return
    edges = [height * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for part in [pool.submit(work, a, b) for a, b in itertools.pairwise(edges)]:
            part.result()


def _add_cuda(sums: Any, images: Any, warps: Any, weights: Any, margin: tuple[int, int]) -> None:
    import cupy

    from frazil.kernels import class2d_cuda

    rank = sums.shape[0]
    height, width = (n - 2 * APRON_PX for n in sums.shape[1:])
    if rank > CUDA_RANK_MAX:
        raise ValueError(f"{rank} sums at once are more than the {CUDA_RANK_MAX} that the CUDA kernel holds")
    scalars = (len(warps), rank, height, width, margin[0], margin[1], APRON_PX)
    class2d_cuda.function("warp.cu", "add_warped")(
        (math.ceil(sums.shape[2] / 32), math.ceil(sums.shape[1] / 8)),
        (32, 8),
        (
            images,
            cupy.asarray(np.ascontiguousarray(warps, np.float32)),
            cupy.asarray(np.ascontiguousarray(weights, np.float32)),
            sums,
            *(np.int32(v) for v in scalars),
        ),
    )
