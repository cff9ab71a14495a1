"""Refinement of a CTF: damped Gauss-Newton on the logarithm of the spectrum.

Model: smooth background + amplitude(s) x visibility(s) x (-cos 2 chi), the amplitude exp(c0 + c1 x + c2 x²), x = s / s_max.
Astigmatism is Cartesian, `mean + cosine cos 2a + sine sin 2a`, which is smooth where U = V. Weak priors keep astigmatism and
amplitude sane where there are no rings to see; that of astigmatism is a Cauchy distribution in the plane, which holds back
what noise makes of none and leaves alone what is large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frazil.algorithms.ctf.model import wavelength_angstrom
from frazil.algorithms.ctf.rings import Background, Samples, inner, ring_visibility
from frazil.algorithms.ctf.search import Start, thon_rings
from frazil.algorithms.ctf.window import Floats, Window
from frazil.model.optics import Optics

_ASTIGMATISM_SCALE = 170.0  # of the prior of half of U - V, Å; its median is 1.7 times that
_PHASE_SIGMA_DEGREES = 90.0
_SHAPE_SIGMA = 3.0  # prior of c1, c2
_FREEDOM = 14  # parameters of the model, those of the background among them
_ITERATIONS = 25
_POLISH_ITERATIONS = 2
_SMALL_STEP_ANGSTROM = 0.05


@dataclass(frozen=True, slots=True)
class Refined:
    """A refined CTF; squared signal over noise of its rings, less what the priors hold against it; sigma of the defocus, Å."""

    at: Start
    significance: float
    mean_sigma: float
    log_amplitude: tuple[float, float, float]  # of the rings, c0 + c1 x + c2 x², x = s / s_max
    s_max: float

    def amplitude(self, s: Floats) -> Floats:
        """Return the amplitude of the rings in the logarithm of the power, before the windows weaken them."""
        return _amplitude(self.log_amplitude, s / self.s_max)


class _Problem:
    def __init__(self, samples: Samples, optics: Optics, window: Window, with_phase: bool) -> None:
        self.samples, self.optics, self.window, self.with_phase = samples, optics, window, with_phase
        self.background = Background(samples)
        s = samples.s
        self.x = s / float(s.max())
        factor = 2.0 * np.pi * wavelength_angstrom(optics.voltage_kv)
        self._towards = (factor * s**2, factor * (samples.sx**2 - samples.sy**2), factor * 2.0 * samples.sx * samples.sy)
        self.data = self.background.removed(samples.value)
        self.visibility = np.ones_like(s)
        self.sigma = np.array([np.inf, np.inf, np.inf, np.inf, np.inf, _SHAPE_SIGMA, _SHAPE_SIGMA])
        if with_phase:
            self.sigma[3] = _PHASE_SIGMA_DEGREES
        self.centre = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
        self.free = np.array([True, True, True, with_phase, True, True, True])

    def begin(self, start: Start) -> Floats:
        """Return the parameters to start from; sets the visibility of rings and the centre of the phase shift's prior."""
        self.visibility = ring_visibility(self.samples.s, start.mean, self.optics, self.window)
        self.centre[3] = start.phase_shift
        rings, _ = thon_rings(self.samples, start, self.optics)
        rings = self.background.removed(rings * self.visibility * np.exp(-(self.x**2)))
        scale = float(rings @ self.data) / max(float(rings @ rings), 1e-12)
        return np.array([start.mean, start.cosine, start.sine, start.phase_shift, np.log(max(scale, 1e-3)), 0.0, -1.0])

    def prior(self, p: Floats) -> tuple[float, Floats]:
        """Return minus twice the log prior of parameters, and half its derivative over the distance from the centre (7,)."""
        precision = 1.0 / self.sigma**2
        away = p - self.centre
        square = _ASTIGMATISM_SCALE**2 + p[1] ** 2 + p[2] ** 2
        cost = float(precision @ away**2) + 3.0 * float(np.log(square / _ASTIGMATISM_SCALE**2))
        precision[1:3] = 3.0 / square
        return cost, precision

    def evaluate(self, p: Floats) -> tuple[Floats, Floats]:
        """Return the residual (n,) and the Jacobian of the model (n, 7)."""
        rings, chi = thon_rings(self.samples, Start(p[0], p[1], p[2], p[3]), self.optics)
        amplitude = _amplitude((p[4], p[5], p[6]), self.x) * self.visibility
        value = amplitude * rings
        slope = amplitude * np.sin(2.0 * chi)
        columns = [slope * t for t in self._towards]
        columns += [slope * (2.0 * np.pi / 180.0), value, value * self.x, value * self.x**2]
        return self.data - self.background.removed(value), self.background.removed(np.stack(columns))


def refine(
    samples: Samples,
    start: Start,
    optics: Optics,
    window: Window,
    *,
    with_phase: bool = False,
    polish: Refined | None = None,
) -> Refined:
    """Refine a CTF from a start that is right to half a ring within the samples' range.

    Parameters
    ----------
    samples: pixels or sectors.
    start: where to start.
    optics, window: of the spectrum.
    with_phase: refine the phase shift too.
    polish: a fit to the same samples averaged, which a step or two of few remain to be made from.
    """
    problem = _Problem(samples, optics, window, with_phase)
    p = problem.begin(start)
    if polish is not None:
        p[4:] = polish.log_amplitude
    residual, jacobian = problem.evaluate(p)
    unit = window.correlation * float(residual @ residual) / max(1, residual.size - _FREEDOM)  # variance of independent noise
    prior_cost, precision = problem.prior(p)
    cost = float(residual @ residual) + unit * prior_cost
    damping = 1e-3
    for _ in range(_ITERATIONS if polish is None else _POLISH_ITERATIONS):
        step = _step(jacobian, residual, unit * precision, p - problem.centre, problem.free, damping)
        trial = p + step
        new_residual, new_jacobian = problem.evaluate(trial)
        prior_cost, new_precision = problem.prior(trial)
        new_cost = float(new_residual @ new_residual) + unit * prior_cost
        if new_cost > cost:
            damping *= 8.0
            if damping > 1e6:
                break
            continue
        done = np.abs(step[:3]).max() < _SMALL_STEP_ANGSTROM and cost - new_cost < 1e-6 * cost
        p, residual, jacobian, precision, cost = trial, new_residual, new_jacobian, new_precision, new_cost
        damping = max(damping / 8.0, 1e-9)
        if done:
            break
    return _result(problem, p, residual, jacobian, precision)


def _step(jacobian: Floats, residual: Floats, prior: Floats, away: Floats, free: Floats, damping: float) -> Floats:
    j = jacobian[free]
    normal = inner(j, j) + np.diag(prior[free])
    gradient = inner(residual, j) - prior[free] * away[free]
    scale = np.diag(normal) + 1e-20
    step = np.zeros(free.size)
    step[free] = np.linalg.solve(normal + damping * np.diag(scale), gradient)
    step[:3] = np.clip(step[:3], -300.0, 300.0)
    step[4:] = np.clip(step[4:], -1.0, 1.0)
    return step


def _result(problem: _Problem, p: Floats, residual: Floats, jacobian: Floats, precision: Floats) -> Refined:
    unit = problem.window.correlation * float(residual @ residual) / max(1, residual.size - _FREEDOM)
    explained = float(problem.data @ problem.data - residual @ residual)
    j = jacobian[problem.free]
    covariance = np.linalg.pinv(inner(j, j) + unit * np.diag(precision[problem.free])) * unit
    significance = explained / max(unit, 1e-30) - problem.prior(p)[0]
    at = Start(float(p[0]), float(p[1]), float(p[2]), float(p[3]), significance)
    sigma = float(np.sqrt(max(covariance[0, 0], 0.0)))
    return Refined(at, significance, sigma, (float(p[4]), float(p[5]), float(p[6])), float(problem.samples.s.max()))


def _amplitude(coefficients: tuple[float, float, float], x: Floats) -> Floats:
    c0, c1, c2 = coefficients
    return np.asarray(np.exp(np.clip(c0 + c1 * x + c2 * x**2, -12.0, 4.0)))
