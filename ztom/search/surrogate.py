"""A smooth model of the error over the factors, fitted to every trial of a study.

A Gaussian process (Matern 5/2 with one length scale per factor, plus white noise, fitted by maximum
likelihood; Rasmussen & Williams 2006) smooths out the noise of single evaluations. It chooses which
trials are worth evaluating again and draws the error along each factor for the report. It does not
propose points: that is the sampler's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ztom.search.samplers.threads import one_thread
from ztom.search.space import Factors, SearchSpace

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

#: Fitting takes cubic time, so of a long study only the best trials, and some others, take part.
_MOST_POINTS = 400
_CURVE_POINTS = 25


@dataclass(frozen=True)
class FactorSensitivity:
    """How the error depends on one factor while the others stay at the best point.

    Attributes:
        name: What the factor scales.
        best: The factor's value at the best point.
        effect: Highest minus lowest point of the curve: what this factor alone can do.
        values: Values of the factor, shape (points,), from its lower to its upper bound.
        errors: Posterior mean of the error there.
        spreads: Posterior standard deviation of that mean, without the noise of an evaluation.
    """

    name: str
    best: float
    effect: float
    values: tuple[float, ...]
    errors: tuple[float, ...]
    spreads: tuple[float, ...]


class Surrogate:
    """The fitted model.

    Args:
        space: Search space to whose bounds factors are scaled.
        factors: Points that were evaluated, shape (points, factors); repeats are fine.
        errors: Error of each point, finite, shape (points,).
        seed: Seeds the restarts of the likelihood's maximisation.
    """

    def __init__(
        self, space: SearchSpace, factors: Sequence[Factors], errors: Sequence[float], *, seed: int
    ) -> None:
        points = np.array(factors, dtype=np.float64).reshape(len(factors), space.dimensions)
        targets = np.array(errors, dtype=np.float64)
        if len(targets) > _MOST_POINTS:
            points, targets = _thin(points, targets, seed)
        self._space = space
        self._mean = float(targets.mean())
        self._scale = float(targets.std())
        self._process = self._fit(points, targets, seed) if self._scale > 0 else None

    def _fit(
        self, points: NDArray[np.float64], targets: NDArray[np.float64], seed: int
    ) -> GaussianProcessRegressor:
        # Here and not at the top: a process that only reads results does not pay for scikit-learn.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        scales = np.full(self._space.dimensions, 0.5)
        kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(scales, (5e-2, 1e2), nu=2.5)
        kernel += WhiteKernel(1e-2, (1e-6, 1.0))
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=seed)
        with one_thread(), warnings.catch_warnings():
            # A length scale at its bound only says that the factor does not matter.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return process.fit(self._space.to_unit(points), (targets - self._mean) / self._scale)

    def posterior(
        self, factors: Sequence[Factors]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the error without noise, each of shape (points,)."""
        points = np.array(factors, dtype=np.float64).reshape(len(factors), self._space.dimensions)
        if self._process is None:
            return np.full(len(points), self._mean), np.zeros(len(points))
        mean, spread = self._process.predict(self._space.to_unit(points), return_std=True)
        noise = self._process.kernel_.k2.noise_level
        smooth = np.sqrt(np.maximum(spread**2 - noise, 0.0))
        return self._mean + self._scale * mean, self._scale * smooth

    def sensitivity(self, best: Factors) -> tuple[FactorSensitivity, ...]:
        """The error along each factor through ``best``."""
        return tuple(self._along(index, best) for index in range(self._space.dimensions))

    def _along(self, index: int, best: Factors) -> FactorSensitivity:
        low, high = self._space.lower[index], self._space.upper[index]
        values = np.linspace(low, high, _CURVE_POINTS)
        line = np.tile(np.array(best), (_CURVE_POINTS, 1))
        line[:, index] = values
        errors, spreads = self.posterior([tuple(map(float, point)) for point in line])
        return FactorSensitivity(
            name=self._space.names[index],
            best=best[index],
            effect=float(errors.max() - errors.min()),
            values=tuple(map(float, values)),
            errors=tuple(map(float, errors)),
            spreads=tuple(map(float, spreads)),
        )


def _thin(
    points: NDArray[np.float64], targets: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best half of the places for the best trials, the other half drawn from the rest."""
    order = np.argsort(targets, kind="stable")
    best, rest = order[: _MOST_POINTS // 2], order[_MOST_POINTS // 2 :]
    drawn = np.random.default_rng(seed).choice(rest, _MOST_POINTS - len(best), replace=False)
    kept = np.sort(np.concatenate([best, drawn]))
    return points[kept], targets[kept]
