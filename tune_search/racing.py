"""One trial in blocks, against the best so far: see `ztom.search.racing`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tune_search.engine_client import EngineClient
from tune_search.payload import SEARCH, Answers, Needs
from tune_search.score_actor import ScoreClient, generated_tokens, whole_outcome
from ztom.ledger import TrialOutcome
from ztom.search.racing import Incumbent, Margin, Race, margin_to
from ztom.search.space import Factors
from ztom.statistics.blocks import joined, stimulus_weights
from ztom.statistics.scores import Floats, Scores
from ztom.stimuli.records import Output


class Heat:
    """One trial's way through the blocks.

    Args:
        race: Blocks, and how sure a stop has to be.
        incumbent: The best so far; None lets the trial through to the end.
    """

    def __init__(self, race: Race, incumbent: Incumbent | None) -> None:
        self._race = race
        self._incumbent = incumbent
        self._blocks: list[Scores] = []
        self._weights: list[Floats] = []
        self._seconds: dict[str, float] = {}
        self._tokens = 0
        self._outputs: dict[int, Output] = {}

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One output for each stimulus, in their order; empty where the trial was stopped."""
        if len(self._outputs) < sum(map(len, self._race.blocks)):
            return ()
        return tuple(self._outputs[place] for place in sorted(self._outputs))

    def run(
        self, engine: EngineClient, scorer: ScoreClient, factors: Factors, needs: Needs
    ) -> TrialOutcome | None:
        """Answer and score block after block; None where the error does not allow to race.

        Raises:
            ZtomError: The engine or an error function failed.
        """
        guardrails: Mapping[str, Scores] = {}
        for number, places in enumerate(self._race.blocks):
            is_last = number == len(self._race.blocks) - 1
            answers = engine.answer_block(factors, needs, places, others=is_last)
            scores = scorer.score_block(answers, places)
            self._count(answers, places, scores.seconds)
            weights = stimulus_weights(scores.search)
            if weights is None:
                return None
            self._blocks.append(scores.search)
            self._weights.append(weights)
            guardrails = scores.guardrails
            now = None if is_last else self._margin()
            if now is not None and now.is_worse(self._race.standard_errors):
                return self._stopped(now)
        search = joined(self._blocks, self._race.blocks)
        return whole_outcome(search, guardrails, self._seconds, self._tokens)

    def _count(self, answers: Answers, places: tuple[int, ...], score_s: float) -> None:
        for phase, seconds in {**answers.seconds, "score": score_s}.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
        self._tokens += generated_tokens(answers)
        self._outputs |= zip(places, answers.outputs[SEARCH], strict=True)

    def _margin(self) -> Margin | None:
        if self._incumbent is None:
            return None
        answered = self._race.blocks[: len(self._blocks)]
        errors = np.concatenate([scores.per_stimulus for scores in self._blocks])
        places = [place for block in answered for place in block]
        return margin_to(errors, places, self._incumbent, weights=np.concatenate(self._weights))

    def _stopped(self, now: Margin) -> TrialOutcome:
        if self._incumbent is None:
            raise ValueError("without an incumbent nothing is worse")
        answered, total = len(self._outputs), len(self._incumbent.per_stimulus)
        return TrialOutcome(
            error=self._incumbent.error + now.difference,
            reason=f"stopped after {answered} of {total} stimuli: worse than {self._incumbent} by "
            f"{now.difference:.4g} (standard error {now.standard_error:.2g})",
            seconds=self._seconds,
            generated_tokens=self._tokens,
            answered=answered,
        )
