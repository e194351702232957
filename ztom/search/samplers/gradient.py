"""The sampler ``gradient``: L-BFGS-B on exact derivatives, SLSQP where there are guardrails.

Both come from SciPy and go downhill inside the bounds, from the trained model or the best of the
models that were compared with it there (L-BFGS-B: Byrd, Lu, Nocedal & Zhu 1995; SLSQP: Kraft 1988,
which takes the guardrails and their derivatives as constraints). They are deterministic, and cheap
beside one gradient: at each ask the method is run again from the start over the answers so far,
until it wants a point that has none. No state is kept but the answers, so that a resumed study goes
on as if it had never stopped.

It finds the bottom of the valley that it begins in, not the lowest of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztom.errors import SearchError
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import Factors, SearchSpace

Floats = NDArray[np.float64]

_MOST_ITERATIONS = 100_000
#: The first step along the steepest factor, as a share of half its interval.
_FIRST_STEP = 0.5
#: Ends where no factor's slope is above this share of the first one's.
_FLAT = 1e-3
#: Share of a guardrail's allowance that is kept in hand for rounding to the deployed dtype.
_MARGIN = 0.05


class _MissingPointError(Exception):
    """Raised inside the method: it wants a point that was not evaluated yet."""

    def __init__(self, factors: Factors) -> None:
        super().__init__(factors)
        self.factors = factors


@dataclass(frozen=True)
class _Answer:
    """What one point gave, with derivatives in units of half the bounds.

    Attributes:
        error: Error of the blend.
        slope: Derivative of the error, shape (factors,).
        violations: Rise of each guardrail above what is allowed, shape (guardrails,).
        violation_slopes: Derivative of each violation, shape (guardrails, factors).
    """

    error: float
    slope: Floats
    violations: Floats
    violation_slopes: Floats


class GradientSampler:
    """Asks for errors with derivatives, one point at a time.

    Args:
        config: ``ftol_rel`` ends it.
        space: Bounds of the factors.
    """

    sequential = True

    def __init__(self, config: SamplerConfig, space: SearchSpace) -> None:
        self._tolerance = config.ftol_rel
        self._space = space
        self._half = (np.array(space.upper) - np.array(space.lower)) / 2.0
        self._answers: dict[Factors, _Answer] = {}
        self._gradients: dict[int, tuple[Factors, tuple[Factors, ...]]] = {}
        self._allowed: Floats | None = None
        self._worst: float | None = None
        self._pending: int | None = None
        self._begin = tuple(np.clip(0.0, space.lower, space.upper).tolist())
        self._begin_error = np.inf
        self._has_begun = False

    def warm_up(self) -> None:
        """Import SciPy's methods."""
        import scipy.optimize  # noqa: F401

    def ask(self, number: int) -> Factors | None:
        """The method's next point; None once it has converged.

        Raises:
            SearchError: The point before was not answered.
        """
        if self._pending is not None:
            raise SearchError("asked again before an answer", got=f"trial {self._pending} open")
        self._has_begun = True
        try:
            self._minimise()
        except _MissingPointError as missing:
            self._pending = number
            return missing.factors
        return None

    def take_gradients(self, number: int, error: Factors, violations: tuple[Factors, ...]) -> None:
        """The derivatives of a trial, before it is told.

        Args:
            number: Number of the trial.
            error: Derivative of the error by each factor.
            violations: Derivative of each guardrail's error by each factor.
        """
        self._gradients[number] = (error, violations)

    def tell(
        self,
        number: int,
        factors: Factors,
        *,
        error: float | None,
        violations: tuple[float, ...],
    ) -> None:
        """Answer the open point.

        A failed trial is answered as a flat place with the worst error so far, from which the
        methods turn back. Trials without derivatives only say how bad errors are.
        """
        if number == self._pending:
            self._pending = None
        slopes = self._gradients.pop(number, None)
        if error is not None:
            self._worst = error if self._worst is None else max(self._worst, error)
            if self._allowed is None and slopes is None:
                self._allowed = -np.array(violations)  # the trained model rises by nothing
            is_start = error < self._begin_error and all(excess <= 0 for excess in violations)
            if is_start and not self._has_begun and self._space.contains(factors):
                self._begin, self._begin_error = factors, error
        if slopes is not None and error is not None:
            self._answers[factors] = self._answer(error, slopes[0], violations, slopes[1])
        elif error is None and self._space.contains(factors):
            flat = (0.0,) * len(factors)
            worst = 1.0 if self._worst is None else self._worst + abs(self._worst)
            self._answers.setdefault(
                factors, self._answer(worst, flat, violations, (flat,) * len(violations))
            )

    def close(self) -> None:
        """End nothing: there is no thread and no process."""

    def _answer(
        self,
        error: float,
        slope: Factors,
        violations: tuple[float, ...],
        violation_slopes: tuple[Factors, ...],
    ) -> _Answer:
        count = len(slope)
        return _Answer(
            error,
            np.array(slope) * self._half,
            np.array(violations, dtype=np.float64),
            np.array(violation_slopes, dtype=np.float64).reshape(-1, count) * self._half,
        )

    def _at(self, point: Floats) -> _Answer:
        """The answer at a point in units of the bounds, -1 to 1."""
        factors = tuple(float(value) for value in self._factors_at(point))
        if factors not in self._answers:
            raise _MissingPointError(factors)
        return self._answers[factors]

    def _factors_at(self, point: Floats) -> Floats:
        return self._space.from_unit((np.asarray(point, dtype=np.float64) + 1.0) / 2.0)

    def _minimise(self) -> None:
        """Run the method; ends when it has converged.

        Raises:
            _MissingPointError: It wants a point that has no answer.
        """
        from scipy.optimize import minimize

        begin = np.array(self._begin)
        start: Floats = np.clip(2.0 * self._space.to_unit(begin) - 1.0, -1.0, 1.0)
        first = self._at(start)
        scale = _scale(first, start)

        def objective(point: Floats) -> tuple[float, Floats]:
            answer = self._at(point)
            return (answer.error - first.error) * scale, answer.slope * scale

        count = self._space.dimensions
        common: dict[str, Any] = {"jac": True, "bounds": [(-1.0, 1.0)] * count}
        if first.violations.size == 0:
            options: Mapping[str, float] = {
                "ftol": self._tolerance,
                "gtol": _FLAT * _FIRST_STEP,
                "maxiter": _MOST_ITERATIONS,
                "maxfun": _MOST_ITERATIONS,
            }
            minimize(objective, start, method="L-BFGS-B", options=options, **common)
            return
        allowed = np.zeros(first.violations.size) if self._allowed is None else self._allowed
        # A rise is measured from the trained model at the same dtype, which is the first point.
        start_is_trained = self._allowed is not None and not begin.any()
        offset = first.violations + allowed if start_is_trained else np.zeros(allowed.size)
        constraint = {
            "type": "ineq",
            "fun": lambda point: offset - self._at(point).violations - _MARGIN * allowed,
            "jac": lambda point: -self._at(point).violation_slopes,
        }
        options = {"ftol": self._tolerance, "maxiter": _MOST_ITERATIONS}
        minimize(
            objective, start, method="SLSQP", constraints=[constraint], options=options, **common
        )


def _scale(first: _Answer, start: Floats) -> float:
    """What errors are multiplied by: the first step then is a fair one, whatever their unit."""
    downhill = np.clip(start - first.slope, -1.0, 1.0) - start
    inside = np.abs(first.slope)[np.abs(downhill) > 0]
    steepest = float(inside.max()) if inside.size else 0.0
    return _FIRST_STEP / steepest if steepest > 0 else 1.0
