"""Correcting a frame while it is in cache: gain, stray counts, running total."""

from __future__ import annotations

from frazil.array import Array, is_numpy, namespace


def correct_frame(frame: Array, gain: Array, limit: float, fill: float) -> Array:
    """Multiply a frame by the gain; values beyond `limit` in size, or no numbers, count as `fill`.

    Parameters
    ----------
    frame: `(y, x)`, any real dtype, as recorded.
    gain: `(y, x)` float32; 0 where a pixel is bad.
    limit, fill: in recorded units.

    Returns
    -------
    `(y, x)` float32.
    """
    if is_numpy(frame):
        from frazil.kernels._gain_numba import correct

        return correct(frame, gain, limit, fill)
    return correct_frame_standard(frame, gain, limit, fill)


def add_corrected_frame(total: Array, frame: Array, gain: Array, limit: float, fill: float) -> Array:
    """Correct a frame as `correct_frame` does and add it to `total`, `(y, x)` float32, on numpy in place.

    Returns the total.
    """
    if is_numpy(frame):
        from frazil.kernels._gain_numba import add_corrected

        return add_corrected(total, frame, gain, limit, fill)
    return total + correct_frame_standard(frame, gain, limit, fill)


def correct_frame_standard(frame: Array, gain: Array, limit: float, fill: float) -> Array:
    """The twin of `correct_frame` in array-standard functions."""
    xp = namespace(frame)
    values = xp.astype(frame, xp.float32)
    plausible = (values <= limit) & (values >= -limit)  # false for what is not a number
    return xp.where(plausible, values, xp.asarray(fill, dtype=xp.float32)) * gain
