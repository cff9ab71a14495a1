"""When a refinement goes on, how, and when it stops: by what its passes changed, not by a fixed number of them."""

from __future__ import annotations

from frazil.algorithms.refine3d.parameters import Refine3dParameters
from frazil.algorithms.refine3d.state import HISTORY, Kind, Refine3dState

GAIN = 1.01  # a resolution that improves by less counts as the same
_SETTLED = 0.03  # share of particles that turn by more than 10 degrees in a global pass once poses are found
_STALLED = 0.9  # of the share before: less of a fall is no progress
_UNSUPPORTED_PASSES = 5
_CLEAR = 0.3  # median probability of the best orientation of the grid from which on peaks stand for all
_QUIET_PASSES = 2
_PASS_GROWTH = 1.3
_IDLE_UNITS = 3
_REMOVED_WEIGHT = 2  # one removed particle counts as this many new ones
_KIND, _RADIUS, _JUMPED, _PROBABILITY = (HISTORY.index(name) for name in ("kind", "radius", "jumped", "probability"))


def next_kind(state: Refine3dState, parameters: Refine3dParameters, resolved_before: float, grid_radius: float) -> Kind | None:
    """Return how the next pass over all particles searches, or None when the refinement is done.

    As long as a grid's orientations cannot be told apart all of them count, by their weight: to insert only the best few would
    let each half set settle on its own noise. Then come global passes, as long as finer detail brings particles out of wrong
    poses; then local ones, until two in a row gain nothing.

    grid_radius: finest detail that the grid can compare, Fourier pixels.
    """
    counters = state.counters
    counters.quiet = 0 if state.resolved > resolved_before * GAIN else counters.quiet + 1
    if counters.passes >= parameters.max_passes:
        return None
    if counters.passes == 1 and counters.kind == Kind.DENSE:
        return Kind.DENSE
    if not counters.supported:
        return None if counters.passes > _UNSUPPORTED_PASSES else Kind.GLOBAL
    if not _told_apart(state, grid_radius):
        return Kind.DENSE
    if counters.kind != Kind.LOCAL and not _poses_found(state):
        return Kind.GLOBAL
    if counters.kind == Kind.LOCAL and counters.quiet >= _QUIET_PASSES:
        return None
    return Kind.LOCAL


def pass_is_due(state: Refine3dState) -> bool:
    """Say whether a run that took new particles in, or lost some, needs a pass over all."""
    counters, live = state.counters, state.live().size
    changed = live - counters.pass_images + (1 + _REMOVED_WEIGHT) * counters.removed_since_pass
    return live > 0 and (changed >= (_PASS_GROWTH - 1) * counters.pass_images or counters.idle_units >= _IDLE_UNITS)


def _poses_found(state: Refine3dState) -> bool:
    """Say whether global passes have done their work: few particles still turn, or no fewer than before at the same detail."""
    rows = state.history[-state.counters.passes :]
    rows = rows[rows[:, _KIND] == Kind.GLOBAL]
    if len(rows) == 0:
        return False
    jumped = rows[-1, _JUMPED]
    if jumped < _SETTLED:
        return True
    if len(rows) < 3:
        return False
    same_detail = rows[-1, _RADIUS] < 1.05 * rows[-2, _RADIUS]
    return bool(same_detail and jumped > _STALLED * rows[-2, _JUMPED])


def _told_apart(state: Refine3dState, grid_radius: float) -> bool:
    """Say whether the last dense pass knew most orientations, or went as far as its grid can."""
    last = state.history[state.history[:, _KIND] == Kind.DENSE][-1]
    return bool(last[_PROBABILITY] > _CLEAR or last[_RADIUS] > 0.95 * grid_radius)
