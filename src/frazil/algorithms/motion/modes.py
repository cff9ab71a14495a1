"""The Fourier coefficients that motion is read from, and their statistics over frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from frazil.algorithms.gain import FrameLevels
from frazil.algorithms.motion.frames import CorrectedFrames
from frazil.array import Array, namespace, to_host
from frazil.primitives.filters import edge_taper, local_mean
from frazil.primitives.fourier import crop_transform, frequencies, friendly_size, rfft2_low

GROUPS_MAX = 75
COARSE_ANGSTROM = 20.0
_BACKGROUND_BLOCK_PX = 32
_CHUNK = 8192
_SHELLS_MIN, _EVIDENCE_PER_SHELL = 8, 400_000  # modes times pairs of frames that make a shell's covariance sound
_NYQUIST_MARGIN = 0.47
_DIMMEST, _NOISIEST, _ABOUT_ZERO = 0.05, 3.0, 0.05


@dataclass(frozen=True, slots=True)
class ModeLayout:
    """Which coefficients of a frame's transform are kept, and in what order.

    Attributes
    ----------
    shape: `(y, x)` px of the movie that are transformed: friendly to the FFT, from pixel 0 on.
    columns: how many of the lowest x frequencies hold all that is kept.
    positions: (mode,) flat positions in these columns of the half transform; a half plane without mates, sorted by shell.
    ky, kx: (mode,) float32, cycles per px of the movie.
    chunks: (shell, start, stop) pieces of the modes, each within a shell, low frequencies first.
    shell_counts: (shell,) host, modes per shell. shell_frequencies: (shell,) host, mean |k| in cycles per px.
    low_shape: `(y, x)` of the small image that holds the coarse detail.
    """

    shape: tuple[int, int]
    columns: int
    positions: Array
    ky: Array
    kx: Array
    chunks: tuple[tuple[int, int, int], ...]
    shell_counts: np.ndarray[Any, Any]
    shell_frequencies: np.ndarray[Any, Any]
    low_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Modes:
    """Coefficients of every group of frames, background taken away.

    Attributes
    ----------
    layout: what the coefficients are.
    real, imaginary: (group, mode) float32; 0 for groups that cannot be used.
    low: (group, y, x // 2 + 1) complex64, transforms cropped to coarse detail, for correlation images.
    group_size: frames per group; the last may hold fewer.
    brightness: (group,) host, electrons relative to the mean; 0 for groups that cannot be used.
    """

    layout: ModeLayout
    real: Array
    imaginary: Array
    low: Array
    group_size: int
    brightness: np.ndarray[Any, Any]


def mode_layout(
    movie_shape: tuple[int, ...], pixel_size_angstrom: float, band_angstrom: tuple[float, float], shells_max: int, xp: Any
) -> ModeLayout:
    """Choose the coefficients for frames of a shape.

    Parameters
    ----------
    movie_shape: `(frame, y, x)`.
    pixel_size_angstrom: of the movie.
    band_angstrom: coarsest and finest detail; nothing beyond 0.94 of Nyquist is used.
    shells_max: shells of equal width in the band; fewer for little data, so that each shell's statistics are sound.
    """
    height, width = (friendly_size(n, at_most=True) for n in movie_shape[1:])
    low_k, high_k = pixel_size_angstrom / band_angstrom[0], min(pixel_size_angstrom / band_angstrom[1], _NYQUIST_MARGIN)
    low = [min(n, friendly_size(int(2 * n * pixel_size_angstrom / COARSE_ANGSTROM) + 4)) for n in (height, width)]
    columns = max(int(high_k * width) + 1, low[1] // 2 + 1)
    ky, kx = (to_host(k) for k in frequencies((height, width), xp))
    kx = kx[:, :columns]
    radius = np.hypot(ky, kx)
    positions = np.flatnonzero((radius >= low_k) & (radius < high_k) & ~((kx == 0) & (ky < 0)))
    radius = radius.ravel()[positions]
    shell_count = max(_SHELLS_MIN, min(shells_max, int(len(positions) * movie_shape[0] ** 2 / _EVIDENCE_PER_SHELL)))
    shells = np.minimum(((radius - low_k) * (shell_count / (high_k - low_k))).astype(np.int64), shell_count - 1)
    order = np.argsort(shells, kind="stable")
    positions = positions[order]
    counts = np.bincount(shells, minlength=shell_count)
    mean_k = np.bincount(shells, radius, shell_count) / np.maximum(counts, 1)
    return ModeLayout(
        shape=(height, width),
        columns=columns,
        positions=xp.asarray(positions),
        ky=xp.asarray(ky[positions // columns, 0]),
        kx=xp.asarray(kx[0, positions % columns]),
        chunks=tuple(_chunks(counts)),
        shell_counts=counts,
        shell_frequencies=mean_k,
        low_shape=(low[0], low[1]),
    )


def gather_modes(frames: CorrectedFrames, total: Array, layout: ModeLayout) -> Modes:
    """Transform every frame once and keep the coefficients of the layout.

    Whole frames, their edges tapered: what drifts out at one side and in at the other is the only loss. No binning:
    folded-back detail would move the wrong way. The background is illumination and thickness from the sum of all frames,
    scaled to each frame's brightness and subtracted, not divided by: noise and signal of counts both grow with the
    background, so a difference carries every region at its due weight.

    Parameters
    ----------
    frames: the movie.
    total: `(y, x)` float32, the unaligned sum of its frames.
    layout: what to keep.
    """
    xp = namespace(total)
    height, width = layout.shape
    taper_y, taper_x = edge_taper(layout.shape, min(layout.shape) // 40, xp)
    window = taper_y * taper_x

    def transform(image: Array) -> tuple[float, Array, Array]:
        low_columns = rfft2_low(image[:height, :width] * window, layout.columns)
        kept = xp.take(xp.reshape(low_columns, (-1,)), layout.positions)
        return float(xp.real(low_columns[0, 0])), kept, crop_transform(low_columns, width, layout.low_shape)

    size = -(-frames.frame_count // GROUPS_MAX)
    groups = [range(t, min(t + size, frames.frame_count)) for t in range(0, frames.frame_count, size)]
    brightness, about_zero = _brightness([[frames.levels[t] for t in group] for group in groups])
    background = transform(local_mean(total, xp.asarray(~frames.bad), _BACKGROUND_BLOCK_PX))
    real = xp.zeros((len(groups), layout.positions.shape[0]), dtype=xp.float32)
    imaginary = xp.zeros_like(real)
    low = xp.zeros((len(groups), *background[2].shape), dtype=xp.complex64)
    for g, group in enumerate(groups):
        if brightness[g] == 0:
            continue
        image = frames.frame(group[0])
        for t in group[1:]:
            image = image + frames.frame(t)
        zero, kept, cropped = transform(image)
        share = 1.0 / len(groups) if about_zero else zero / background[0]
        kept = kept - background[1] * share
        real[g, :], imaginary[g, :], low[g, ...] = xp.real(kept), xp.imag(kept), cropped - background[2] * share
    return Modes(layout, real, imaginary, low, size, brightness)


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
    turns = xp.asarray(shifts * (-2 * math.pi), dtype=xp.float32)
    angle = turns[:, :1] * modes.layout.ky[None, start:stop] + turns[:, 1:] * modes.layout.kx[None, start:stop]
    cosine, sine = xp.cos(angle), xp.sin(angle)
    real, imaginary = modes.real[:, start:stop], modes.imaginary[:, start:stop]
    return real * cosine - imaginary * sine, real * sine + imaginary * cosine


def _brightness(groups: list[list[FrameLevels]]) -> tuple[np.ndarray[Any, Any], bool]:
    """Return each group's brightness relative to the mean, 0 for groups beyond use, and whether frames are about zero.

    Blank frames and frames of rubbish (far wider spread than the others) are beyond use. Frames about zero, as some
    programs write them, are all taken as equally bright.
    """
    means = np.array([np.mean([levels.mean for levels in group]) for group in groups])
    spreads = np.array([np.max([levels.spread for levels in group]) for group in groups])
    usable = (spreads > 0) & (spreads < _NOISIEST * max(float(np.median(spreads)), 1e-30))
    if np.median(means) < _ABOUT_ZERO * np.median(spreads):
        return usable.astype(np.float64), True
    usable &= means > _DIMMEST * np.median(means)
    brightness = np.where(usable, means, 0.0)
    return brightness / (float(brightness[usable].mean()) if usable.any() else 1.0), False


def _chunks(counts: np.ndarray[Any, Any]) -> Iterator[tuple[int, int, int]]:
    start = 0
    for shell, count in enumerate(int(n) for n in counts):
        for piece in range(start, start + count, _CHUNK):
            yield shell, piece, min(piece + _CHUNK, start + count)
        start += count
