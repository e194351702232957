"""One trial: blend, load, generate, score.

The process of a trial is used again for the next one, so error functions (and the models inside
them) are made once. Whatever goes wrong becomes part of the report: Ray Tune gives up on a whole
experiment over a single result that is not a number.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from ray import tune

from tune_search.engine_client import EngineClient
from tune_search.payload import SEARCH, Answers, DataSet, TrialReport
from ztom.errors import ScoringError, ZtomError
from ztom.ledger import TrialOutcome
from ztom.scoring.protocol import ErrorFunction
from ztom.search.space import Factors
from ztom.statistics.scores import Scores

logger = logging.getLogger(__name__)

#: Key of the report in what Tune calls a result; taken out before Tune stores it.
REPORT = "report"


class Evaluator:
    """Evaluates factors with an engine and error functions; knows nothing of Tune.

    Args:
        data: The search set first, then the guardrails.
        detailed: Whether reports carry the outputs.
    """

    def __init__(self, data: Sequence[DataSet], *, detailed: bool = False) -> None:
        self._data = tuple(data)
        self._detailed = detailed

    @cached_property
    def _errors(self) -> dict[str, ErrorFunction]:
        """Made at the first trial and not before, so that what fails here is that trial's
        reason.
        """
        return {entry.name: entry.error() for entry in self._data}

    def evaluate(
        self, engine: EngineClient, factors: Factors, *, derivatives: bool = False
    ) -> TrialReport:
        """Never raises: a failure is a report with its reason.

        Args:
            engine: Engine that answers.
            factors: Factors of the blend.
            derivatives: Whether errors are taken with their derivatives, by the engine itself.
        """
        started = time.perf_counter()
        try:
            way = _differentiate if derivatives else self._evaluate
            report = way(engine, factors)
            reason = None
        except ZtomError as error:
            reason = str(error)
        except Exception as error:
            logger.exception("a trial failed in an unforeseen way")
            reason = f"{type(error).__name__}: {error}"
        total = {"total": time.perf_counter() - started}
        if reason is not None:
            return TrialReport(TrialOutcome(reason=reason, seconds=total))
        return _with_seconds(report, total)

    def _evaluate(self, engine: EngineClient, factors: Factors) -> TrialReport:
        needs = {name: error.needs for name, error in self._errors.items()}
        answers = engine.answer(factors, needs)  # blend, load and generate: one call
        started = time.perf_counter()
        scores = self._score(answers)
        seconds = {**answers.seconds, "score": time.perf_counter() - started}
        outcome = TrialOutcome(
            error=_aggregate(SEARCH, scores[SEARCH]),
            per_stimulus=tuple(map(float, scores[SEARCH].per_stimulus)),
            guardrails={n: _aggregate(n, s) for n, s in scores.items() if n != SEARCH},
            seconds=seconds,
            generated_tokens=_tokens(answers),
        )
        outputs = tuple(answers.outputs[SEARCH]) if self._detailed else ()
        return TrialReport(outcome, outputs)

    def _score(self, answers: Answers) -> dict[str, Scores]:
        return {
            entry.name: self._errors[entry.name].score(entry.stimuli, answers.outputs[entry.name])
            for entry in self._data
        }


class SearchTrial(tune.Trainable):  # type: ignore[misc]  # Ray is not typed
    """Tune's side of a trial; its parameters are put in once by ``tune.with_parameters``."""

    def setup(
        self,
        config: dict[str, Any],
        data: Sequence[DataSet] = (),
        engines: Sequence[EngineClient] = (),
        detailed: bool = False,
    ) -> None:
        """Prepare the process for its trials; called once per process."""
        self._engines = engines
        self._evaluator = Evaluator(data, detailed=detailed)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another trial; Ray has set ``self.config`` already."""
        return True

    def step(self) -> dict[str, Any]:
        """Evaluate the factors of this trial."""
        engine = self._engines[self.config["slot"]]
        report = self._evaluator.evaluate(
            engine, tuple(self.config["factors"]), derivatives=self.config["derivatives"]
        )
        return {"done": True, "number": self.config["number"], REPORT: report}


def _differentiate(engine: EngineClient, factors: Factors) -> TrialReport:
    slopes = engine.differentiate(factors)
    for name, values in slopes.sets.items():
        if not np.isfinite([values.error, *values.gradient, *values.per_stimulus]).all():
            raise ScoringError(f"the error of {name!r} or a derivative is not a finite number")
    search = slopes.sets[SEARCH]
    guardrails = {name: values for name, values in slopes.sets.items() if name != SEARCH}
    return TrialReport(
        TrialOutcome(
            error=search.error,
            per_stimulus=search.per_stimulus,
            guardrails={name: values.error for name, values in guardrails.items()},
            seconds=slopes.seconds,
            gradient=search.gradient,
            guardrail_gradients={name: values.gradient for name, values in guardrails.items()},
        )
    )


def _aggregate(name: str, scores: Scores) -> float:
    """The error of a data set, checked once more: everything downstream trusts it."""
    values = np.asarray(scores.aggregate(), dtype=np.float64)
    if values.shape != (1,) or not math.isfinite(values[0]):
        raise ScoringError(f"the error of {name!r} is not a finite number", got=values.tolist())
    return float(values[0])


def _tokens(answers: Answers) -> int:
    return sum(
        output.generated_tokens for outputs in answers.outputs.values() for output in outputs
    )


def _with_seconds(report: TrialReport, more: dict[str, float]) -> TrialReport:
    outcome = replace(report.outcome, seconds={**report.outcome.seconds, **more})
    return replace(report, outcome=outcome)
