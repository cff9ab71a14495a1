"""The Fourier coefficients that motion is read from, and their statistics over frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.motion.frames import CorrectedFrames, Survey
from frazil.array import Array, namespace, to_host
from frazil.kernels.gain import windowed_difference
from frazil.primitives.filters import edge_taper
from frazil.primitives.fourier import frequencies, friendly_size, rfft2

_CHUNK = 8192
_SHELLS_MIN, _EVIDENCE_PER_SHELL = 6, 1_000_000  # modes times pairs of frames that make a shell's covariance sound
_NYQUIST_MARGIN = 0.47


@dataclass(frozen=True, slots=True)
class ModeLayout:
    """Which coefficients of a frame's transform are kept, and in what order.

    Attributes
    ----------
    origin, shape: `(y, x)` px, the window in a frame of shift 0; its shape is friendly to the FFT.
    positions: (mode,) flat positions in the half transform; a half plane without mates, sorted by shell.
    ky, kx: (mode,) float32, cycles per px of the movie.
    chunks: (shell, start, stop) pieces of the modes, each within a shell, low frequencies first.
    shell_counts: (shell,) host, modes per shell. shell_frequencies: (shell,) host, mean |k| in cycles per px.
    """

    origin: tuple[int, int]
    shape: tuple[int, int]
    positions: Array
    ky: Array
    kx: Array
    chunks: tuple[tuple[int, int, int], ...]
    shell_counts: np.ndarray[Any, Any]
    shell_frequencies: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Modes:
    """Coefficients of every group of frames, background taken away, from a window that follows the specimen.

    Attributes
    ----------
    layout: what the coefficients are.
    real, imaginary: (group, mode) float32; 0 for groups that cannot be used.
    offsets: (group, 2) host, whole px (y, x): shifts that are already applied.
    """

    layout: ModeLayout
    real: Array
    imaginary: Array
    offsets: np.ndarray[Any, Any]


def mode_layout(
    frames: CorrectedFrames,
    offsets: np.ndarray[Any, Any],
    pixel_size_angstrom: float,
    band_angstrom: tuple[float, float],
    shells_max: int,
) -> ModeLayout:
    """Choose the window and the coefficients for a movie.

    Parameters
    ----------
    frames: the movie.
    offsets: (group, 2) whole shifts that will be applied: the window is what all frames have in common.
    pixel_size_angstrom: of the movie.
    band_angstrom: coarsest and finest detail; nothing beyond 0.94 of Nyquist is used.
    shells_max: shells of equal width in the band; fewer for little data, so that each shell's statistics are sound.
    """
    xp = namespace(frames.gain)
    origin, (height, width) = _common_area(frames.shape, offsets)
    low_k, high_k = pixel_size_angstrom / band_angstrom[0], min(pixel_size_angstrom / band_angstrom[1], _NYQUIST_MARGIN)
    ky, kx = (to_host(k) for k in frequencies((height, width), xp))
    columns = kx.shape[1]
    radius = np.hypot(ky, kx)
    positions = np.flatnonzero((radius >= low_k) & (radius < high_k) & ~((kx == 0) & (ky < 0)))
    radius = radius.ravel()[positions]
    shell_count = max(_SHELLS_MIN, min(shells_max, int(len(positions) * frames.frame_count**2 / _EVIDENCE_PER_SHELL)))
    shells = np.minimum(((radius - low_k) * (shell_count / (high_k - low_k))).astype(np.int64), shell_count - 1)
    positions = positions[np.argsort(shells, kind="stable")]
    counts = np.bincount(shells, minlength=shell_count)
    mean_k = np.bincount(shells, radius, shell_count) / np.maximum(counts, 1)
    return ModeLayout(
        origin=origin,
        shape=(height, width),
        positions=xp.asarray(positions),
        ky=xp.asarray(ky[positions // columns, 0]),
        kx=xp.asarray(kx[0, positions % columns]),
        chunks=tuple(_chunks(counts)),
        shell_counts=counts,
        shell_frequencies=mean_k,
    )


def gather_modes(seen: Survey, offsets: np.ndarray[Any, Any], layout: ModeLayout, background: Array) -> Modes:
    """Transform every frame once and keep the coefficients of the layout.

    The window follows the specimen by whole pixels: one that stands still would pull the shifts towards none by some tenths
    of a percent. Frames are not binned first: folded-back detail would move the wrong way.

    Parameters
    ----------
    seen: the movie.
    offsets: (group, 2) whole shifts to apply, (y, x) px.
    layout: what to keep.
    background: `(y, x)` float32 of the sum of all frames, see `background_of`.
    """
    xp = namespace(background)
    (height, width), (y0, x0) = layout.shape, layout.origin
    taper_y, taper_x = edge_taper(layout.shape, min(layout.shape) // 40, xp)
    real = xp.zeros((len(offsets), layout.positions.shape[0]), dtype=xp.float32)
    imaginary = xp.zeros_like(real)
    for g, (dy, dx) in enumerate(offsets):
        if seen.brightness[g] == 0:
            continue
        area = (slice(y0 - int(dy), y0 - int(dy) + height), slice(x0 - int(dx), x0 - int(dx) + width))
        first, *others = seen.group(g)
        image = seen.frames.frame(first)[area]
        for t in others:
            image += seen.frames.frame(t)[area]
        image = windowed_difference(image, background[area], float(seen.shares[g]), (taper_y, taper_x))
        kept = xp.take(xp.reshape(rfft2(image), (-1,)), layout.positions)
        real[g, :], imaginary[g, :] = xp.real(kept), xp.imag(kept)
    return Modes(layout, real, imaginary, offsets)


def covariances(modes: Modes, shifts: np.ndarray[Any, Any], highest_k: float) -> np.ndarray[Any, Any]:
    """Return the mean over the modes of each shell of Re(conj(G_t) G_u), G aligned by `shifts`: (shell, group, group).

    Shells beyond `highest_k`, cycles per px, are left at 0.
    """
    xp = namespace(modes.real)
    groups = modes.real.shape[0]
    sums = np.zeros((len(modes.layout.shell_counts), groups, groups))
    for shell, start, stop in modes.layout.chunks:
        if modes.layout.shell_frequencies[shell] > highest_k:
            break
        real, imaginary = _aligned(modes, shifts, start, stop)
        sums[shell] += to_host(real @ xp.matrix_transpose(real) + imaginary @ xp.matrix_transpose(imaginary))
    return np.asarray(sums / np.maximum(modes.layout.shell_counts, 1)[:, None, None])


def gradient(
    modes: Modes, shifts: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], highest_k: float
) -> np.ndarray[Any, Any]:
    """Return the derivative of sum over modes and pairs of groups of A_tu Re(conj(G_t) G_u) by the shift of each group.

    Parameters
    ----------
    shifts: (group, 2) to apply, (y, x) px. weights: A, (shell, group, group), zero diagonals.
    highest_k: shells beyond are left out, cycles per px.

    Returns
    -------
    (group, 2) float64 host, (y, x).
    """
    xp = namespace(modes.real)
    result = np.zeros((modes.real.shape[0], 2))
    on_device = xp.asarray(weights, dtype=xp.float32)
    for shell, start, stop in modes.layout.chunks:
        if modes.layout.shell_frequencies[shell] > highest_k:
            break
        real, imaginary = _aligned(modes, shifts, start, stop)
        slope = real * (on_device[shell, ...] @ imaginary) - imaginary * (on_device[shell, ...] @ real)
        k = xp.stack([modes.layout.ky[start:stop], modes.layout.kx[start:stop]], axis=1)
        result += to_host(slope @ k)
    return -4 * math.pi * result


def _aligned(modes: Modes, shifts: np.ndarray[Any, Any], start: int, stop: int) -> tuple[Array, Array]:
    """Return real and imaginary parts (group, mode of the chunk) after the shifts are applied as phases."""
    xp = namespace(modes.real)
    turns = xp.asarray((shifts - modes.offsets) * (-2 * math.pi), dtype=xp.float32)
    angle = turns[:, :1] * modes.layout.ky[None, start:stop] + turns[:, 1:] * modes.layout.kx[None, start:stop]
    cosine, sine = xp.cos(angle), xp.sin(angle)
    real, imaginary = modes.real[:, start:stop], modes.imaginary[:, start:stop]
    return real * cosine - imaginary * sine, real * sine + imaginary * cosine


def _common_area(shape: tuple[int, ...], offsets: np.ndarray[Any, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return origin (in a frame of shift 0) and friendly even shape of the area that all shifted frames have in common."""
    origin, sides = [], []
    for axis, size in enumerate(shape):
        low, high = max(int(offsets[:, axis].max()), 0), size + min(int(offsets[:, axis].min()), 0)
        side = friendly_size(high - low, at_most=True)
        origin.append(low + (high - low - side) // 2)
        sides.append(side)
    return (origin[0], origin[1]), (sides[0], sides[1])


def _chunks(counts: np.ndarray[Any, Any]) -> Iterator[tuple[int, int, int]]:
    start = 0
    for shell, count in enumerate(int(n) for n in counts):
        for piece in range(start, start + count, _CHUNK):
            yield shell, piece, min(piece + _CHUNK, start + count)
        start += count
