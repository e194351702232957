"""Errors whose optimum is known, for `benchmarks.samplers`: five families over factors in a box.

``q(a) = (a - a*)' H (a - a*)`` is drawn first, a in units of the limit: H has a random rotation and
eigenvalues spread evenly in the logarithm over a condition number of 5, the optimum a* is drawn
evenly from within the bounds. With ``r = q(a) / q(0)`` the families are

* quadratic: r;
* saturating: ``1 - exp(-r)``, flat where the blend is broken anyway;
* exploding: ``exp(min(r, 6)) - 1``, up to 400 in the corners;
* ripple: r plus ripples of 15 % of the gain, three to the width of the box, which vanish at a*;
* cubic: ``-sum c_i (s_i a_i)^3``, c_i spread over a factor of 5: flat around the trained model, the
  optimum in the corner s.

Each error is 0 at its optimum, and the gain is what the trained model, a = 0, has above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONDITION = 5.0
RIPPLE, RIPPLES = 0.15, 3.0

Point = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One error function.

    Attributes:
        factors: Number of factors.
        error: Error without noise of a point, shape (factors,), in units of the limit.
        trained: Error of the trained model.
        gain: That minus the least error.
    """

    factors: int
    error: Callable[[Point], float]
    trained: float
    gain: float


@dataclass(frozen=True)
class _Bowl:
    hessian: NDArray[np.float64]
    optimum: Point

    def ratio(self, point: Point) -> float:
        """The quadratic, 1 at the trained model."""
        step = point - self.optimum
        whole = self.optimum @ self.hessian @ self.optimum
        return float(step @ self.hessian @ step / whole)


def _quadratic(bowl: _Bowl) -> Callable[[Point], float]:
    return bowl.ratio


def _saturating(bowl: _Bowl) -> Callable[[Point], float]:
    return lambda point: float(-np.expm1(-bowl.ratio(point)))


def _exploding(bowl: _Bowl) -> Callable[[Point], float]:
    return lambda point: float(np.expm1(min(bowl.ratio(point), 6.0)))


def _ripple(bowl: _Bowl) -> Callable[[Point], float]:
    def error(point: Point) -> float:
        waves = 1.0 - np.cos(RIPPLES * np.pi * (point - bowl.optimum))
        return bowl.ratio(point) + RIPPLE * float(waves.mean())

    return error


_OF_BOWLS = {
    "quadratic": _quadratic,
    "saturating": _saturating,
    "exploding": _exploding,
    "ripple": _ripple,
}
FAMILIES = (*_OF_BOWLS, "cubic")


def make_problem(family: str, factors: int, seed: int) -> Problem:
    """Draw a problem of a family."""
    rng = np.random.default_rng((factors, seed))
    if family == "cubic":
        return _cubic(factors, rng)
    rotation, _ = np.linalg.qr(rng.standard_normal((factors, factors)))
    scales = CONDITION ** np.linspace(0.0, 1.0, factors)
    bowl = _Bowl(rotation @ np.diag(scales) @ rotation.T, rng.uniform(-1.0, 1.0, factors))
    error = _OF_BOWLS[family](bowl)
    trained = error(np.zeros(factors))
    return Problem(factors, error, trained, trained)


def _cubic(factors: int, rng: np.random.Generator) -> Problem:
    sizes = rng.permutation(CONDITION ** np.linspace(0.0, 1.0, factors))
    corner = rng.choice([-1.0, 1.0], size=factors)
    sizes /= sizes.sum()
    return Problem(factors, lambda point: float(1.0 - sizes @ (corner * point) ** 3), 1.0, 1.0)
