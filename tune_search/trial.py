"""One trial: blend, load and generate in the engine's process, score in the one beside it.

The trial's own process only waits for both, so there may be one trial more than engines: while one
is scored, the engine answers the next. Whatever goes wrong becomes part of the report: Ray Tune
gives up on a whole experiment over a single result that is not a number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray import tune

from tune_search.engine_client import EngineClient, EngineLostError
from tune_search.payload import SEARCH, Needs, TrialReport
from tune_search.racing import Heat
from tune_search.score_actor import ScoreClient, ScorerGoneError
from ztom.errors import ScoringError, ZtomError
from ztom.ledger import TrialOutcome
from ztom.search.racing import Incumbent, Race
from ztom.search.space import Factors

logger = logging.getLogger(__name__)

#: Key of the report in what Tune calls a result; taken out before Tune stores it.
REPORT = "report"


class Evaluator:
    """Evaluates factors with an engine and what scores its answers; knows nothing of Tune.

    Args:
        detailed: Whether reports carry the outputs.
        race: Blocks that the stimuli are answered in; None answers all at once.
    """

    def __init__(self, *, detailed: bool = False, race: Race | None = None) -> None:
        self._detailed = detailed
        self._race = race
        self._needs: Needs | None = None

    def evaluate(
        self,
        engine: EngineClient,
        scorer: ScoreClient,
        factors: Factors,
        *,
        incumbent: Incumbent | None = None,
        derivatives: bool = False,
    ) -> TrialReport:
        """Never raises: a failure is a report with its reason.

        Args:
            engine: Engine that answers.
            scorer: Process that scores its answers.
            factors: Factors of the blend.
            incumbent: The best blend so far, where the trial may be stopped for being worse.
            derivatives: Whether errors are taken with their derivatives, by the engine itself.
        """
        started = time.perf_counter()
        is_lost = False
        try:
            if derivatives:
                report = _differentiate(engine, factors)
            else:
                report = self._evaluate(engine, scorer, factors, incumbent)
            reason = None
        except ZtomError as error:
            reason = str(error)
            is_lost = isinstance(error, EngineLostError | ScorerGoneError) and not engine.is_alone
        except Exception as error:
            logger.exception("a trial failed in an unforeseen way")
            reason = f"{type(error).__name__}: {error}"
        total = {"total": time.perf_counter() - started}
        if reason is not None:
            return TrialReport(TrialOutcome(reason=reason, seconds=total), engine_lost=is_lost)
        return _with_seconds(report, total)

    def _evaluate(
        self,
        engine: EngineClient,
        scorer: ScoreClient,
        factors: Factors,
        incumbent: Incumbent | None,
    ) -> TrialReport:
        if self._needs is None:
            self._needs = scorer.needs()
        if self._race is not None:
            heat = Heat(self._race, incumbent)
            outcome = heat.run(engine, scorer, factors, self._needs)
            if outcome is not None:
                return TrialReport(outcome, heat.outputs if self._detailed else ())
            self._race = None  # of this error no part says anything
        answers = engine.answer(factors, self._needs)  # blend, load and generate: one call
        outcome = scorer.score(answers)
        return TrialReport(outcome, tuple(answers.outputs[SEARCH]) if self._detailed else ())


class SearchTrial(tune.Trainable):  # type: ignore[misc]  # Ray is not typed
    """Tune's side of a trial; its parameters are put in once by ``tune.with_parameters``."""

    def setup(
        self,
        config: dict[str, Any],
        engines: Sequence[EngineClient] = (),
        scorers: Sequence[ScoreClient] = (),
        detailed: bool = False,
        race: Race | None = None,
    ) -> None:
        """Prepare the process for its trials; called once per process."""
        self._engines = engines
        self._scorers = scorers
        self._evaluator = Evaluator(detailed=detailed, race=race)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another trial; Ray has set ``self.config`` already."""
        return True

    def step(self) -> dict[str, Any]:
        """Evaluate the factors of this trial."""
        place = self.config["slot"]
        report = self._evaluator.evaluate(
            self._engines[place],
            self._scorers[place],
            tuple(self.config["factors"]),
            incumbent=self.config.get("incumbent"),
            derivatives=self.config["derivatives"],
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


def _with_seconds(report: TrialReport, more: dict[str, float]) -> TrialReport:
    outcome = replace(report.outcome, seconds={**report.outcome.seconds, **more})
    return replace(report, outcome=outcome)
