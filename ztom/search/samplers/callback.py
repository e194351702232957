"""COBYQA (SciPy) and COBYLA (NLopt), which call an objective, turned into ask/tell.

The method runs in a thread of its own. Its objective hands the point over and sleeps until the
answer comes; guardrails are its inequality constraints. Both start from the trained model and are
deterministic, so they take no seed. Powell 1994 (COBYLA), Ragonneau & Zhang 2022 (COBYQA).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ztom.errors import SearchError
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import Factors, SearchSpace

logger = logging.getLogger(__name__)

_MOST_EVALUATIONS = 1_000_000
_JOIN_S = 10.0


class _ClosedError(Exception):
    """Raised inside the method's thread to end it."""


@dataclass(frozen=True)
class _Evaluation:
    error: float
    violations: NDArray[np.float64]


class _PointExchange:
    """Passes points from the method to the sampler and answers back, one at a time."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._points: queue.Queue[Factors | BaseException | None] = queue.Queue()
        self._answers: queue.Queue[_Evaluation | None] = queue.Queue()
        self._known: dict[Factors, _Evaluation] = {}

    def evaluate(self, point: NDArray[np.float64]) -> _Evaluation:
        """Called by the method, with a point in units of the bounds, -1 to 1.

        A point is asked for once: the methods come back to points for their constraints.
        """
        scaled = self._space.from_unit((np.asarray(point, dtype=np.float64) + 1.0) / 2.0)
        factors = tuple(float(value) for value in scaled)
        if factors not in self._known:
            self._points.put(factors)
            answer = self._answers.get()
            if answer is None:
                raise _ClosedError
            self._known[factors] = answer
        return self._known[factors]

    def know(self, factors: Factors, answer: _Evaluation) -> None:
        """Called by the sampler: a point that was evaluated already need not be asked for."""
        self._known[factors] = answer

    def end(self, error: BaseException | None) -> None:
        """End the exchange, when the method has returned or failed."""
        self._points.put(error)

    def next_point(self) -> Factors | BaseException | None:
        """Wait, on the sampler's side, for the method's next point or its end."""
        return self._points.get()

    def answer(self, answer: _Evaluation | None) -> None:
        """Called by the sampler; None ends the method."""
        self._answers.put(answer)


class CallbackSampler:
    """Runs the method in a thread, one point at a time.

    Args:
        config: ``cobyqa`` or ``cobyla`` with tolerances.
        space: Bounds of the factors.
    """

    sequential = True

    def __init__(self, config: SamplerConfig, space: SearchSpace) -> None:
        self._config = config
        self._space = space
        self._exchange = _PointExchange(space)
        self._thread: threading.Thread | None = None
        self._pending: int | None = None
        self._worst: float | None = None
        self._guardrails = 0
        self._ended = False

    def warm_up(self) -> None:
        """Import nothing: nothing takes long."""

    def ask(self, number: int) -> Factors | None:
        """The method's next point; None once it has converged.

        Raises:
            SearchError: The method failed, or the point before was not answered.
        """
        if self._ended:
            return None
        if self._pending is not None:
            raise SearchError("asked again before an answer", got=f"trial {self._pending} open")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._config.name, daemon=True)
            self._thread.start()
        point = self._exchange.next_point()
        if isinstance(point, BaseException):
            self._ended = True
            raise SearchError(f"{self._config.name} failed", got=point) from point
        if point is None:
            self._ended = True
            return None
        self._pending = number
        return point

    def tell(
        self,
        number: int,
        factors: Factors,
        *,
        error: float | None,
        violations: tuple[float, ...],
    ) -> None:
        """Answer the open point, or take a trial of the protocol for known.

        That is the trained model, which the methods start from. A failed trial is answered with the
        worst error so far: the methods need a number.
        """
        self._guardrails = len(violations)
        if error is not None:
            self._worst = error if self._worst is None else max(self._worst, error)
        value = error if error is not None else (self._worst if self._worst is not None else 1.0)
        answer = _Evaluation(value, np.array(violations, dtype=np.float64))
        if number == self._pending:
            self._pending = None
            self._exchange.answer(answer)
        elif error is not None and self._thread is None:
            self._exchange.know(factors, answer)

    def close(self) -> None:
        """End the thread."""
        if self._thread is None:
            return
        self._exchange.answer(None)
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            logger.warning("the %s thread did not end", self._config.name)
        self._thread, self._ended = None, True

    def _run(self) -> None:
        method: Callable[[_PointExchange, SearchSpace, SamplerConfig, int], None]
        method = _cobyla if self._config.name == "cobyla" else _cobyqa
        try:
            method(self._exchange, self._space, self._config, self._guardrails)
        except _ClosedError:
            return
        except Exception as error:  # whatever the library raises is reported by ask()
            self._exchange.end(error)
        else:
            self._exchange.end(None)


def _start(space: SearchSpace) -> NDArray[np.float64]:
    """The trained model, or the nearest point of the space, in units of the bounds."""
    nearest = np.clip(np.zeros(space.dimensions), space.lower, space.upper)
    return np.clip(2.0 * space.to_unit(nearest) - 1.0, -1.0, 1.0)


def _cobyla(
    exchange: _PointExchange, space: SearchSpace, config: SamplerConfig, guardrails: int
) -> None:
    import nlopt

    closed = False
    method = nlopt.opt(nlopt.LN_COBYLA, space.dimensions)

    def evaluate(point: NDArray[np.float64]) -> _Evaluation:
        nonlocal closed
        try:
            return exchange.evaluate(point)
        except _ClosedError:
            closed = True
            method.force_stop()
            raise nlopt.ForcedStop from None

    def objective(point: NDArray[np.float64], _gradient: NDArray[np.float64]) -> float:
        return evaluate(point).error

    def constraints(
        result: NDArray[np.float64], point: NDArray[np.float64], _gradient: NDArray[np.float64]
    ) -> None:
        result[:] = evaluate(point).violations

    method.set_lower_bounds(-np.ones(space.dimensions))
    method.set_upper_bounds(np.ones(space.dimensions))
    method.set_min_objective(objective)
    if guardrails:
        method.add_inequality_mconstraint(constraints, np.zeros(guardrails))
    method.set_xtol_rel(config.xtol_rel)
    method.set_ftol_rel(config.ftol_rel)
    try:
        method.optimize(_start(space))
    except nlopt.RoundoffLimited:
        logger.info("cobyla stopped at the limit of rounding")
    except nlopt.ForcedStop:
        pass
    if closed:
        raise _ClosedError


def _cobyqa(
    exchange: _PointExchange, space: SearchSpace, config: SamplerConfig, guardrails: int
) -> None:
    from scipy.optimize import Bounds, NonlinearConstraint, minimize

    def violations(point: NDArray[np.float64]) -> NDArray[np.float64]:
        return exchange.evaluate(point).violations

    constraints = [NonlinearConstraint(violations, -np.inf, 0.0)] if guardrails else []
    # Not with the option "scale": in SciPy 1.17 it evaluates constraints at points that are not
    # scaled back (COBYQA is given units of the bounds here instead).
    minimize(
        lambda point: exchange.evaluate(point).error,
        _start(space),
        method="COBYQA",
        bounds=Bounds(-np.ones(space.dimensions), np.ones(space.dimensions)),
        constraints=constraints,
        options={
            "initial_tr_radius": 0.5,
            "final_tr_radius": min(config.xtol_rel, 0.5),
            "maxfev": _MOST_EVALUATIONS,
            "maxiter": _MOST_EVALUATIONS,
        },
    )
