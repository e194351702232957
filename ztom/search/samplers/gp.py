"""The default sampler: Thompson sampling with a Gaussian process that knows quadratics.

Every other point is the minimiser of a draw of the posterior (Thompson 1933; Russo & Van Roy 2014),
so that points are tried as often as they are likely to be the best, and trials that run side by
side get different ones; the points between are those that tell most about the minimum of a
quadratic. It has converged when what the posterior promises beyond its own minimiser is a
small share of the gain. A point depends on the seed, the trial's number and what was told before
it, on nothing else.
"""

from __future__ import annotations

import numpy as np

from ztom.search.space import Factors, SearchSpace
from ztom.search.surrogate import Surrogate

#: Share of the bounds that start-up points are within: in the corners blends explode.
STARTUP_SCALE = 0.4
_DRAWS = 24  # whose mean gain decides whether to stop
_TRIES = 8
_COMPARE_AFTER = 8  # forms are compared when an eighth more points are there
_FEWEST_POINTS = 4  # besides one a factor, before the posterior is asked whether to stop


class GPSampler:
    """Thompson sampling over factors.

    Args:
        space: Bounds of the factors.
        seed: Seed of everything that is drawn.
        tolerance: Share of the gain below which what is left to gain ends the search; 0 never
            does.
    """

    sequential = False

    def __init__(self, space: SearchSpace, *, seed: int, tolerance: float = 0.0) -> None:
        self._space, self._seed, self._tolerance = space, seed, tolerance
        self._factors: list[Factors] = []
        self._errors: list[float] = []
        self._violations: list[tuple[float, ...]] = []
        self._trained: list[float] = []
        self._open: dict[int, Factors] = {}
        self._compared = 0
        self._surrogate: Surrogate | None = None
        self._fitted_to = 0

    def warm_up(self) -> None:
        """Import what takes a moment."""
        import scipy.optimize  # noqa: F401

    def ask(self, number: int) -> Factors | None:
        """A draw's minimiser that was not evaluated yet, or None when little is left to gain."""
        if len(set(self._factors)) < 2:
            return self._random(number)
        surrogate = self._fitted()
        taken = {*self._factors, *self._open.values()}
        for attempt in range(_TRIES):
            draw = surrogate.draw((self._seed, number, attempt))
            if attempt == 0 and self._has_converged(surrogate, number, draw.gain):
                return None
            point = None if number % 2 else surrogate.informative((self._seed, number, attempt))
            point = point or draw.factors
            if point not in taken:
                self._open[number] = point
                return point
        return self._random(number)

    def tell(
        self,
        number: int,
        factors: Factors,
        *,
        error: float | None,
        violations: tuple[float, ...],
    ) -> None:
        """Learn from a trial; a failed one counts as the worst so far, so that it is left alone."""
        self._open.pop(number, None)
        if error is not None and factors == self._space.trained:
            self._trained.append(error)
        if error is None and self._errors:
            error = max(self._errors)
            violations = tuple(map(max, zip(*self._violations, strict=True)))
        if error is None or not self._space.contains(factors):
            return
        self._factors.append(factors)
        self._errors.append(error)
        self._violations.append(violations)

    def close(self) -> None:
        """End nothing: there is no process."""

    def _fitted(self) -> Surrogate:
        """The surrogate of all that was told; whether it misfits is looked at now and then."""
        count = len(self._factors)
        if self._surrogate is None or self._fitted_to != count:
            due = count > self._compared + self._compared // _COMPARE_AFTER
            self._surrogate = Surrogate(
                self._space,
                self._factors,
                self._errors,
                violations=self._violations,
                seed=self._seed,
                like=None if due else self._surrogate,
            )
            self._compared = count if due else self._compared
            self._fitted_to = count
        return self._surrogate

    def _has_converged(self, surrogate: Surrogate, number: int, gain: float) -> bool:
        """Whether the expected gain beyond the posterior's minimiser is below the tolerance.

        The draw at hand is looked at first: where it promises much there is no need of the others.
        """
        if len(set(self._factors)) < self._space.dimensions + _FEWEST_POINTS or not self._trained:
            return False
        best = float(surrogate.posterior([surrogate.minimiser()])[0][0])
        enough = self._tolerance * (float(np.mean(self._trained)) - best)
        if gain > 2.0 * enough or enough <= 0:
            return False
        draws = [surrogate.draw((self._seed, number, _TRIES + i)).gain for i in range(_DRAWS)]
        return float(np.mean(draws)) < enough

    def _random(self, number: int) -> Factors:
        rng = np.random.default_rng((self._seed, number))
        unit = 0.5 + STARTUP_SCALE * rng.uniform(-0.5, 0.5, self._space.dimensions)
        point = tuple(map(float, self._space.from_unit(unit)))
        self._open[number] = point
        return point
