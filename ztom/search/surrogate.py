"""A smooth model of the error over the factors, fitted to the trials of a study.

A Gaussian process (`ztom.search.gaussian_process`) smooths out the noise of single evaluations. Its
minimiser over the box is the best guess at the best factors; it ranks trials, gives the default
sampler its points, and draws the error along each factor for the report. Guardrails have a process
each and keep the minimiser where they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ztom.search.compression import Compression
from ztom.search.gaussian_process import (
    QUADRATIC,
    Array,
    Differentiable,
    GaussianProcess,
    fit_process,
    minimise,
)
from ztom.search.gradient_information import most_informative
from ztom.search.samplers.threads import one_thread
from ztom.search.space import Factors, SearchSpace

#: Fitting takes cubic time, so of a long study only the best trials, and some others, take part.
_MOST_POINTS = 300
_CURVE_POINTS = 25
#: Weights of the squared violations, in turn, in the search for the best feasible point.
_PENALTIES = (10.0, 1000.0)
_BEST_STARTS, _RANDOM_STARTS = 2, 2
_SAFETY = 0.01  # what guardrails are kept by, in standard deviations of their errors
_MINIMISER = 1  # tells the minimiser's random starts from those of draws


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


@dataclass(frozen=True)
class PosteriorDraw:
    """The least point of a draw of the posterior.

    Attributes:
        factors: The point.
        gain: How far the draw lies below its value at the posterior mean's minimiser, at least 0.
    """

    factors: Factors
    gain: float


class Surrogate:
    """The fitted model.

    Args:
        space: Search space to whose bounds factors are scaled.
        factors: Points that were evaluated, shape (points, factors); repeats are fine, and points
            outside the space are left out.
        errors: Error of each point, finite, shape (points,).
        violations: Excess of each guardrail's error over what is allowed, shape (points,
            guardrails); None without guardrails.
        seed: Seeds what is drawn.
        like: Surrogate of a few points less, whose form is taken and which makes the fit faster;
            None compares the forms.
    """

    def __init__(
        self,
        space: SearchSpace,
        factors: Sequence[Factors],
        errors: Sequence[float],
        *,
        violations: Sequence[Sequence[float]] | None = None,
        seed: int,
        like: Surrogate | None = None,
    ) -> None:
        points: Array = np.array(factors, dtype=np.float64).reshape(len(factors), -1)
        targets: Array = np.array(errors, dtype=np.float64)
        limits = np.array(violations or [()] * len(targets), dtype=np.float64)
        inside = np.array([space.contains(point) for point in factors])
        if inside.any():
            points, targets, limits = points[inside], targets[inside], limits[inside]
        if len(targets) > _MOST_POINTS:
            kept = _thin(targets, seed)
            points, targets, limits = points[kept], targets[kept], limits[kept]
        self._space, self._seed = space, seed
        self._points, self._errors = self._to_box(points), targets
        self._compression = Compression.of(targets)
        self._process: GaussianProcess | None = None
        self._guardrails: list[GaussianProcess] = []
        if targets.std() > 0:
            with one_thread():
                values = self._compression.apply(targets)
                before = None if like is None else like._process
                self._process = fit_process(self._points, values, like=before)
                self._guardrails = [self._fit_guardrail(column) for column in limits.T]

    def _fit_guardrail(self, violations: Array) -> GaussianProcess:
        compression = Compression.of(violations)
        above_limit = Compression(max(compression.knee, 0.0), compression.scale)
        return GaussianProcess(self._points, above_limit.apply(violations))

    @property
    def misfits(self) -> bool:
        """Whether the errors are no quadratic: the Matern form predicts left-out points better."""
        return self._process is not None and self._process.form is not QUADRATIC

    def posterior(
        self, factors: Sequence[Factors]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the error without noise, each of shape (points,)."""
        points = np.array(factors, dtype=np.float64).reshape(len(factors), self._space.dimensions)
        if self._process is None:
            return np.full(len(points), self._errors[0]), np.zeros(len(points))
        mean, spread = self._process.posterior(self._to_box(points))
        low, high = (self._compression.undo(mean + side * spread) for side in (-1.0, 1.0))
        return self._compression.undo(mean), (high - low) / 2.0

    @cached_property
    def _minimiser(self) -> Array:
        if self._process is None:
            return np.asarray(self._points[0])
        limits = [_tightened(p.mean, p.noise + _SAFETY * p.spread) for p in self._guardrails]
        best = self._points[np.argsort(self._errors, kind="stable")[:_BEST_STARTS]]
        rng = np.random.default_rng((self._seed, _MINIMISER))
        return self._least(self._process.mean, limits, best, rng)

    def minimiser(self) -> Factors:
        """Factors at which the posterior mean is least, of those that should keep guardrails.

        Should means that the posterior mean of each violation is below zero by the noise of an
        evaluation.
        """
        return self._from_box(self._minimiser)

    def draw(self, seed: Sequence[int]) -> PosteriorDraw:
        """The least point of one draw of the posterior: Thompson sampling.

        Args:
            seed: Seed of the draw.
        """
        rng = np.random.default_rng(tuple(seed))
        if self._process is None:
            anywhere = rng.uniform(-1.0, 1.0, size=self._points.shape[1:])
            return PosteriorDraw(self._from_box(anywhere), 0.0)
        path = self._process.draw(rng)
        limits = [process.draw(rng) for process in self._guardrails]
        starts = [self._minimiser, self._points[np.argmin(self._errors)]]
        point = self._least(path, limits, np.array(starts), rng)
        gain = path(self._minimiser)[0] - path(point)[0]
        return PosteriorDraw(self._from_box(point), max(gain, 0.0))

    def informative(self, seed: Sequence[int]) -> Factors | None:
        """Factors whose evaluation tells most about the minimum.

        None where errors are no quadratic, or guardrails bound the minimum.

        Args:
            seed: Seed of the candidates.
        """
        if self._process is None or self.misfits or self._guardrails:
            return None
        rng = np.random.default_rng(tuple(seed))
        with one_thread():
            return self._from_box(most_informative(self._process, self._minimiser, rng))

    def _least(
        self,
        objective: Differentiable,
        limits: Sequence[Differentiable],
        starts: Array,
        rng: np.random.Generator,
    ) -> Array:
        """The least point of an objective in the box, as far as limits stay below zero."""
        process = self._process
        scale = 1.0 if process is None else process.spread
        with one_thread():
            begin: list[Array] = [
                *starts,
                *rng.uniform(-1.0, 1.0, (_RANDOM_STARTS, starts.shape[1])),
            ]
            if not limits:
                return minimise(objective, begin)
            for weight in _PENALTIES:
                spreads = [p.spread for p in self._guardrails]
                penalised = _penalised(objective, limits, spreads, scale * weight)
                begin = [minimise(penalised, begin), *begin]
            return begin[0]

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

    def _to_box(self, points: Array) -> Array:
        return np.asarray(2.0 * self._space.to_unit(points) - 1.0)

    def _from_box(self, point: Array) -> Factors:
        unit = self._space.from_unit((point + 1.0) / 2.0)
        return tuple(map(float, unit))


def _tightened(limit: Differentiable, margin: float) -> Differentiable:
    """The limit, moved so that it is kept by a margin."""

    def tightened(point: Array) -> tuple[float, Array]:
        value, gradient = limit(point)
        return value + margin, gradient

    return tightened


def _penalised(
    objective: Differentiable,
    limits: Sequence[Differentiable],
    spreads: Sequence[float],
    weight: float,
) -> Differentiable:
    """The objective plus the squares of what exceeds the limits, in units of their spreads."""

    def penalised(point: Array) -> tuple[float, Array]:
        value, gradient = objective(point)
        for limit, spread in zip(limits, spreads, strict=True):
            excess, slope = limit(point)
            excess = max(excess, 0.0) / spread
            value += weight * excess**2
            gradient = gradient + 2.0 * weight * excess / spread * slope
        return value, gradient

    return penalised


def _thin(targets: Array, seed: int) -> NDArray[np.int64]:
    """Indices of the best half of the places for the best trials, the other half drawn."""
    order = np.argsort(targets, kind="stable")
    best, rest = order[: _MOST_POINTS // 2], order[_MOST_POINTS // 2 :]
    drawn = np.random.default_rng(seed).choice(rest, _MOST_POINTS - len(best), replace=False)
    return np.sort(np.concatenate([best, drawn]))
