"""The process that scores what an engine answered, beside the engine's own.

It loads what error functions need (an embedding model takes seconds) while the engine loads its
model, and scores one trial's answers while the engine answers the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup

from tune_search.payload import SEARCH, Answers, DataSet, Needs, error_of
from tune_search.slots import WAITING_CPUS, in_slot
from ztom.engines.collector import collection_paused
from ztom.errors import EngineTimeoutError, ScoringError, ZtomError
from ztom.ledger import TrialOutcome
from ztom.scoring.protocol import ErrorFunction, WarmsUp
from ztom.statistics.scores import Scores

logger = logging.getLogger(__name__)

#: Seconds between two looks whether Ray has started the process again.
_LOOK_S = 0.2


class ScorerGoneError(ScoringError):
    """The process that scores ended."""


@dataclass(frozen=True)
class BlockScores:
    """Scores of a part of a trial.

    Attributes:
        search: Scores of some stimuli of the search set.
        guardrails: Scores of the other data sets, by name; empty where they were not answered.
        seconds: Seconds of scoring.
    """

    search: Scores
    guardrails: Mapping[str, Scores]
    seconds: float


class TrialScorer:
    """Makes the error functions once and scores with them.

    Args:
        data: The search set first, then the guardrails.
    """

    def __init__(self, data: Sequence[DataSet]) -> None:
        self._data = tuple(data)

    @cached_property
    def _errors(self) -> dict[str, ErrorFunction]:
        """Made at the first trial at the latest: what fails here is that trial's reason."""
        return {entry.name: entry.error() for entry in self._data}

    def warm_up(self) -> None:
        """Load what scoring needs. What fails is left to the first trial, which says why."""
        try:
            with collection_paused():
                for error in self._errors.values():
                    if isinstance(error, WarmsUp):
                        error.warm_up()
        except Exception as error:
            logger.debug("what scores could not be loaded ahead: %s", error)

    def needs(self) -> Needs:
        """What the error functions of each data set need of the engine.

        Raises:
            ZtomError: An error function cannot be made.
        """
        return {name: error.needs for name, error in self._errors.items()}

    def score(self, answers: Answers) -> TrialOutcome:
        """Errors and seconds of one trial that answered everything at once.

        Raises:
            ZtomError: A function failed, or an error is not a finite number.
        """
        started = time.perf_counter()
        search = self._score(self._data[0], answers)
        guardrails = {entry.name: self._score(entry, answers) for entry in self._data[1:]}
        seconds = {**answers.seconds, "score": time.perf_counter() - started}
        return whole_outcome(search, guardrails, seconds, generated_tokens(answers))

    def score_block(self, answers: Answers, places: Sequence[int]) -> BlockScores:
        """Scores of some stimuli of the search set, and of the other sets that were answered.

        Args:
            answers: What the engine gave for them.
            places: Their places in the search set.

        Raises:
            ZtomError: A function failed.
        """
        started = time.perf_counter()
        data = self._data[0]
        block = replace(data, stimuli=tuple(data.stimuli[place] for place in places))
        return BlockScores(
            self._score(block, answers),
            {e.name: self._score(e, answers) for e in self._data[1:] if e.name in answers.outputs},
            time.perf_counter() - started,
        )

    def _score(self, data: DataSet, answers: Answers) -> Scores:
        return self._errors[data.name].score(data.stimuli, answers.outputs[data.name])


@dataclass(frozen=True)
class ScoreClient:
    """A way to one score actor.

    Attributes:
        actor: Handle of the score actor.
        data: Reference into Ray's object store, in a list, so that it travels as it is: the data.
    """

    actor: ActorHandle
    data: Sequence[ObjectRef]

    def start(self, *, deadline_s: float = 60.0) -> None:
        """Wait until there is a process, after the last one has died.

        Args:
            deadline_s: Seconds to wait.

        Raises:
            EngineTimeoutError: There was none in time.
        """
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                _result(self.actor.__ray_ready__.remote())
                return
            except ScorerGoneError as error:
                if time.monotonic() > deadline:
                    raise EngineTimeoutError(
                        "the process that scores did not start in time",
                        expected=f"one within {deadline_s:g} s",
                    ) from error
            time.sleep(_LOOK_S)

    def needs(self) -> Needs:
        """What the error functions need; raises as `TrialScorer.needs` does."""
        needs: Needs = _result(self.actor.needs.remote(self.data))
        return needs

    def score_block(self, answers: Answers, places: Sequence[int]) -> BlockScores:
        """Scores of a part of a trial; raises as `score` does."""
        scores: BlockScores = _result(self.actor.score_block.remote(self.data, answers, places))
        return scores

    def score(self, answers: Answers) -> TrialOutcome:
        """Errors of one trial; raises as `TrialScorer.score` does.

        Raises:
            ScoringError: The process died as often as it may.
        """
        outcome: TrialOutcome = _result(self.actor.score.remote(self.data, answers))
        return outcome


class ScoreActor:
    """Runs in a process of its own and holds one scorer.

    A process that Ray has started again knows nothing, so every call brings the reference of the
    data, which is only looked at by the first.
    """

    def __init__(self) -> None:
        self._scorer: TrialScorer | None = None

    def warm_up(self, data: Sequence[ObjectRef]) -> None:
        """See `TrialScorer.warm_up`; so the others."""
        self._made(data).warm_up()

    def needs(self, data: Sequence[ObjectRef]) -> Needs:
        """See `TrialScorer.needs`."""
        return self._made(data).needs()

    def score(self, data: Sequence[ObjectRef], answers: Answers) -> TrialOutcome:
        """See `TrialScorer.score`."""
        return self._made(data).score(answers)

    def score_block(
        self, data: Sequence[ObjectRef], answers: Answers, places: Sequence[int]
    ) -> BlockScores:
        """See `TrialScorer.score_block`."""
        return self._made(data).score_block(answers, places)

    def _made(self, data: Sequence[ObjectRef]) -> TrialScorer:
        if self._scorer is None:
            self._scorer = TrialScorer(ray.get(data[0]))
        return self._scorer


def whole_outcome(
    search: Scores, guardrails: Mapping[str, Scores], seconds: Mapping[str, float], tokens: int
) -> TrialOutcome:
    """What a trial that answered everything leaves in the ledger.

    Args:
        search: Scores of the search set.
        guardrails: Scores of each guardrail's data, by its name.
        seconds: Seconds by phase.
        tokens: Number of generated tokens.

    Raises:
        ScoringError: An error is not a finite number.
    """
    return TrialOutcome(
        error=error_of(SEARCH, search),
        per_stimulus=tuple(map(float, search.per_stimulus)),
        guardrails={name: error_of(name, scores) for name, scores in guardrails.items()},
        seconds=seconds,
        generated_tokens=tokens,
    )


def make_scorers(
    data: Sequence[DataSet], *, slots: Sequence[PlacementGroup | None], retries: int
) -> tuple[ScoreClient, ...]:
    """Start the processes, which load what they need meanwhile.

    Args:
        data: The search set first, then the guardrails.
        slots: Places of the engines, whose answers they score: one process in each.
        retries: Number of times that scoring is tried again when its process died.
    """
    stored = [ray.put(tuple(data))]
    clients = []
    for slot in slots:
        actor = ray.remote(ScoreActor).options(
            num_cpus=WAITING_CPUS,
            max_restarts=-1,
            # beside others its trial goes to one of them, and this one is waited for elsewhere
            max_task_retries=retries if len(slots) == 1 else 0,
            scheduling_strategy="DEFAULT" if slot is None else in_slot(slot),
        )
        clients.append(ScoreClient(actor.remote(), stored))
    for client in clients:
        client.actor.warm_up.remote(stored)
    return tuple(clients)


def stop_scorers(clients: Sequence[ScoreClient]) -> None:
    """End the actors and their processes."""
    for client in clients:
        ray.kill(client.actor, no_restart=True)


def _result(call: Any) -> Any:
    """The call's value, or the error behind whatever Ray raises."""
    try:
        return ray.get(call)
    except RayTaskError as error:
        if isinstance(error.cause, ZtomError):
            raise error.cause from None
        logger.exception("a trial failed in an unforeseen way")
        cause = error.cause
        raise ScoringError(f"{type(cause).__name__}: {cause}") from error
    except RayActorError as error:
        reason = str(error).partition("\n")[0]
        raise ScorerGoneError("the process that scores died", reason=reason) from error


def generated_tokens(answers: Answers) -> int:
    """Number of generated tokens over all data sets."""
    return sum(
        output.generated_tokens for outputs in answers.outputs.values() for output in outputs
    )
