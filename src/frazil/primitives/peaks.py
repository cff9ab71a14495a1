"""Peaks of a map: where they are, to a fraction of a pixel, and which of them to keep. On the host: lists, not pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Points = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


def local_maxima(score: Floats, edge_px: float = 1.0) -> Points:
    """Return the pixels no less than their 8 neighbours, highest first.

    Parameters
    ----------
    score: `(y, x)`.
    edge_px: least distance from the edge; at least 1.

    Returns
    -------
    (n, 2) as `(y, x)`. Of a flat top the first pixel in reading order counts; a constant map has no maxima.
    """
    middle = score[1:-1, 1:-1]
    top = np.isfinite(middle)
    for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        neighbour = score[1 + dy : score.shape[0] - 1 + dy, 1 + dx : score.shape[1] - 1 + dx]
        top &= middle > neighbour if (dy, dx) < (0, 0) else middle >= neighbour
    points = np.argwhere(top) + 1
    limit = np.array(score.shape) - 1 - edge_px
    points = points[((points >= edge_px) & (points <= limit)).all(axis=1)]
    return points[np.argsort(-score[points[:, 0], points[:, 1]], kind="stable")]


def separated(points: npt.NDArray[Any], distance_px: float) -> npt.NDArray[np.int64]:
    """Return the indices of the points to keep so that none is nearer than a distance to one that comes before it.

    Parameters
    ----------
    points: (n, 2), best first.
    distance_px: least distance.
    """
    if len(points) == 0 or distance_px <= 0.0:
        return np.arange(len(points))
    tree = cKDTree(points)
    free = np.ones(len(points), dtype=np.bool_)
    kept = []
    reach = float(np.nextafter(distance_px, 0.0))
    for i in range(len(points)):
        if free[i]:
            kept.append(i)
            free[tree.query_ball_point(points[i], reach)] = False
    return np.array(kept, dtype=np.int64)


def subpixel(score: Floats, points: Points) -> npt.NDArray[np.float64]:
    """Return peak positions (n, 2) as `(y, x)` from a parabola through each peak and its neighbours, along each axis.

    Parameters
    ----------
    score: `(y, x)`.
    points: local maxima (n, 2), none on the edge.
    """
    y, x = points[:, 0], points[:, 1]
    centre = score[y, x].astype(np.float64)
    positions = points.astype(np.float64)
    for axis, (low, high) in enumerate(((score[y - 1, x], score[y + 1, x]), (score[y, x - 1], score[y, x + 1]))):
        bend = low.astype(np.float64) - 2.0 * centre + high
        offset = 0.5 * (low.astype(np.float64) - high) / np.where(bend < 0.0, bend, 1.0)
        positions[:, axis] += np.where(bend < 0.0, np.clip(offset, -0.5, 0.5), 0.0)
    return positions
