"""The last pass over a movie: aligned frames are added up in Fourier space, plainly and with dose weights."""

from __future__ import annotations

from dataclasses import dataclass

from frazil.array import Array, is_numpy


@dataclass(slots=True)
class FourierSums:
    """Running sums of half transforms; on numpy they are added to in place.

    Attributes
    ----------
    plain, weighted: `(y, x // 2 + 1)` complex64.
    weight: `(y, x // 2 + 1)` float32, the dose weight of the next frame.
    decay: `(y, x // 2 + 1)` float32, the factor from one frame's weight to the next's.
    """

    plain: Array
    weighted: Array
    weight: Array
    decay: Array


def add_frames(sums: FourierSums, transforms: Array, phases_y: Array, phases_x: Array) -> None:
    """Add frames to the sums, in order of exposure: each is shifted by its phases, weighted, and the weight decays.

    Parameters
    ----------
    transforms: (frame, y, x // 2 + 1) complex64.
    phases_y: (frame, y) complex64. phases_x: (frame, x // 2 + 1) complex64. Factors of `fourier.shift_phases`.
    """
    if is_numpy(transforms):
        from frazil.kernels._accumulate_numba import add_frames as add_compiled

        add_compiled(sums.plain, sums.weighted, sums.weight, sums.decay, transforms, phases_y, phases_x)
    else:
        add_frames_standard(sums, transforms, phases_y, phases_x)


def add_frames_standard(sums: FourierSums, transforms: Array, phases_y: Array, phases_x: Array) -> None:
    """The twin of `add_frames` in array-standard functions."""
    for t in range(transforms.shape[0]):
        aligned = transforms[t, ...] * phases_y[t, :, None] * phases_x[t, None, :]
        sums.plain = sums.plain + aligned
        sums.weighted = sums.weighted + aligned * sums.weight
        sums.weight = sums.weight * sums.decay
