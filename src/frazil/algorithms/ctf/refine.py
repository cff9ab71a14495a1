"""Refinement of a CTF: damped Gauss-Newton on the logarithm of the spectrum.

Model: smooth background + amplitude(s) x visibility(s) x (-cos 2 chi), the amplitude exp(c0 + c1 x + c2 x²), x = s / s_max.
Astigmatism is Cartesian, `mean + cosine cos 2a + sine sin 2a`, which is smooth where U = V. Weak priors keep astigmatism and
amplitude sane where there are no rings to see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frazil.algorithms.ctf.model import wavelength_angstrom
from frazil.algorithms.ctf.rings import Background, Floats, Samples, hann_visibility, inner
from frazil.algorithms.ctf.search import Start, thon_rings
from frazil.model.optics import Optics

PIXEL_CORRELATION = 3.78  # pixels of a Hann-windowed spectrum per independent one: (1 + 2 x 4/9 + 2 x 1/36)²
_ASTIGMATISM_SIGMA = 250.0  # prior of half of U - V, Å
_PHASE_SIGMA_DEGREES = 90.0
_SHAPE_SIGMA = 3.0  # prior of c1, c2
_ITERATIONS = 25
_SMALL_STEP_ANGSTROM = 0.05


@dataclass(frozen=True, slots=True)
class Refined:
    """A refined CTF; the amplitude's coefficients, the noise's variance per pixel, the squared signal over noise of the
    rings as a whole, and the standard deviation of the mean defocus, Å."""

    at: Start
    amplitude: Floats
    noise_variance: float
    significance: float
    mean_sigma: float


class _Problem:
    def __init__(self, samples: Samples, optics: Optics, tile_angstrom: float, with_phase: bool) -> None:
        self.samples, self.optics, self.tile, self.with_phase = samples, optics, tile_angstrom, with_phase
        self.background = Background(samples)
        s = samples.s
        self.x = s / float(s.max())
        factor = 2.0 * np.pi * wavelength_angstrom(optics.voltage_kv)
        self._towards = (factor * s**2, factor * (samples.sx**2 - samples.sy**2), factor * 2.0 * samples.sx * samples.sy)
        self.data = self.background.removed(samples.value)
        self.visibility = np.ones_like(s)
        self.sigma = np.array([np.inf, _ASTIGMATISM_SIGMA, _ASTIGMATISM_SIGMA, np.inf, np.inf, _SHAPE_SIGMA, _SHAPE_SIGMA])
        if with_phase:
            self.sigma[3] = _PHASE_SIGMA_DEGREES
        self.free = np.array([True, True, True, with_phase, True, True, True])

    def see(self, mean: float) -> None:
        """Set the visibility of rings for a mean defocus."""
        self.visibility = hann_visibility(self.samples.s, mean, self.optics, self.tile)

    def start_amplitude(self, start: Start) -> tuple[float, Floats]:
        rings, _ = thon_rings(self.samples, start, self.optics)
        rings = self.background.removed(rings * self.visibility * np.exp(-(self.x**2)))
        scale = float(rings @ self.data) / max(float(rings @ rings), 1e-12)
        return scale, np.array([np.log(max(scale, 1e-3)), 0.0, -1.0])

    def evaluate(self, p: Floats) -> tuple[Floats, Floats]:
        """Return the residual (n,) and the Jacobian of the model (n, 7)."""
        rings, chi = thon_rings(self.samples, Start(p[0], p[1], p[2], p[3]), self.optics)
        amplitude = np.exp(np.clip(p[4] + p[5] * self.x + p[6] * self.x**2, -12.0, 4.0)) * self.visibility
        value = amplitude * rings
        slope = amplitude * np.sin(2.0 * chi)
        columns = [slope * t for t in self._towards]
        columns += [slope * (2.0 * np.pi / 180.0), value, value * self.x, value * self.x**2]
        return self.data - self.background.removed(value), self.background.removed(np.stack(columns))


def refine(samples: Samples, start: Start, optics: Optics, tile_angstrom: float, *, with_phase: bool = False) -> Refined:
    """Refine a CTF from a start that is right to half a ring within the samples' range.

    Parameters
    ----------
    samples: pixels or sectors.
    start: where to start.
    optics, tile_angstrom: of the spectrum.
    with_phase: refine the phase shift too.
    """
    problem = _Problem(samples, optics, tile_angstrom, with_phase)
    problem.see(start.mean)
    _, shape = problem.start_amplitude(start)
    p = np.array([start.mean, start.cosine, start.sine, start.phase_shift, *shape])
    centre = np.array([0.0, 0.0, 0.0, p[3], 0.0, 0.0, -1.0])
    freedom = max(1, samples.value.size - 14)
    residual, jacobian = problem.evaluate(p)
    noise = float(residual @ residual) / freedom
    prior = np.where(np.isfinite(problem.sigma), noise * PIXEL_CORRELATION / problem.sigma**2, 0.0)
    cost = float(residual @ residual + prior @ (p - centre) ** 2)
    damping = 1e-3
    for _ in range(_ITERATIONS):
        step = _step(jacobian, residual, prior, p - centre, problem.free, damping)
        trial = p + step
        new_residual, new_jacobian = problem.evaluate(trial)
        new_cost = float(new_residual @ new_residual + prior @ (trial - centre) ** 2)
        if new_cost > cost:
            damping *= 8.0
            if damping > 1e6:
                break
            continue
        p, residual, jacobian = trial, new_residual, new_jacobian
        done = np.abs(step[:3]).max() < _SMALL_STEP_ANGSTROM and cost - new_cost < 1e-6 * cost
        cost, damping = new_cost, max(damping / 8.0, 1e-9)
        if done:
            break
    return _result(problem, p, residual, jacobian, prior)


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


def _result(problem: _Problem, p: Floats, residual: Floats, jacobian: Floats, prior: Floats) -> Refined:
    noise = float(residual @ residual) / max(1, residual.size - 14)
    explained = float(problem.data @ problem.data - residual @ residual)
    j = jacobian[problem.free]
    covariance = np.linalg.pinv(inner(j, j) + np.diag(prior[problem.free])) * noise * PIXEL_CORRELATION
    significance = explained / max(noise * PIXEL_CORRELATION, 1e-30)
    at = Start(float(p[0]), float(p[1]), float(p[2]), float(p[3]), significance)
    return Refined(at, p[4:7].copy(), noise, significance, float(np.sqrt(max(covariance[0, 0], 0.0))))
