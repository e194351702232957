"""One model's answers and errors on what the search never saw, and those of others beside it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from tune_search.engine_pool import make_clients, stop_engines
from tune_search.payload import SEARCH, Answers, DataSet, StudyInputs, error_of
from tune_search.phases import PhaseTimer
from tune_search.preparation import RunInputs
from ztom.engines.protocol import Capability, Engine
from ztom.errors import VariantError, ZtomError
from ztom.evaluation.runs.results import SuiteRun
from ztom.scoring.protocol import ErrorFunction, Need
from ztom.search.config import SearchConfig
from ztom.search.space import Factors
from ztom.statistics.scores import Scores

if TYPE_CHECKING:
    from tune_search.gate import AnswerSuites
    from tune_search.spare_engine import SpareEngine

logger = logging.getLogger(__name__)

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class HoldoutScores:
    """One model on the holdouts, and on the suites.

    Attributes:
        answers: Outputs of the model, by data set.
        scores: Errors by data set, one per stimulus.
        runs: Results of the suites, where there are any.
        others: Errors by data set of further blends of the same engine, by their factors; where one
            could not be evaluated, the reason.
    """

    answers: Answers
    scores: Mapping[str, Scores]
    runs: tuple[SuiteRun, ...] = ()
    others: Mapping[Factors, Mapping[str, Scores] | str] = field(default_factory=dict)


def holdout_inputs(inputs: RunInputs) -> StudyInputs:
    """The search's holdout with the holdouts in place of the data it saw."""
    holdouts = {SEARCH: inputs.holdout, **inputs.guardrail_holdouts}
    data = tuple(replace(entry, stimuli=holdouts[entry.name]) for entry in inputs.study.data)
    return replace(inputs.study, data=data, gradients=None)


def score_model(
    holdout: StudyInputs,
    make_engine: Callable[[], Engine],
    factors: tuple[float, ...],
    config: SearchConfig,
    timer: PhaseTimer,
    answer_suites: AnswerSuites | None,
    spare: SpareEngine | None = None,
    others: Sequence[Factors] = (),
) -> HoldoutScores:
    """Have one model answer everything, and score it.

    Args:
        holdout: The data sets of the holdouts.
        make_engine: Factory of the engine, called in a process of its own.
        factors: Scaling factors of the blend, one per transition of the engine's chain.
        config: Configuration of the search, with its deadlines in seconds.
        timer: Timer that counts the seconds of scoring.
        answer_suites: Callable that runs the suites too; None where there are none.
        spare: Place of an engine that ``make_engine`` made before, to be used instead of a new one.
        others: Further blends that the same engine answers with, for their errors alone: texts are
            generated only where an error needs them.
    """
    errors = {data.name: data.error() for data in holdout.data}
    client = None if spare is None else spare.take(holdout)
    if client is None:
        [client] = make_clients(
            replace(holdout, engine=make_engine),
            replicas=1,
            deadline_s=config.generation_deadline_s,
            start_deadline_s=config.engine_start_deadline_s,
        )
    try:
        info = client.start()
        # Texts are generated even where the error does not need them: the engine has to be able
        # to generate from these weights, and the report shows what changed.
        texts = {Need.TEXT} if Capability.GENERATE in info.capabilities else set()
        needs = {name: frozenset(error.needs | texts) for name, error in errors.items()}
        answers = client.answer(factors, needs)
        runs = answer_suites(client, info) if answer_suites is not None else ()
        plain = {name: error.needs for name, error in errors.items()}
        beside = {other: _or_reason(partial(client.answer, other, plain)) for other in others}
    finally:
        stop_engines((client,))
    _check_alive(holdout.data, answers)
    began = time.perf_counter()
    scores = _score(holdout.data, errors, answers)
    compared = {
        other: given
        if isinstance(given, str)
        else _or_reason(partial(_finite_scores, holdout.data, errors, given))
        for other, given in beside.items()
    }
    timer.add("score", time.perf_counter() - began)
    return HoldoutScores(answers, scores, runs, compared)


def _score(
    data: Sequence[DataSet], errors: Mapping[str, ErrorFunction], answers: Answers
) -> Mapping[str, Scores]:
    return {
        entry.name: errors[entry.name].score(entry.stimuli, answers.outputs[entry.name])
        for entry in data
    }


def _finite_scores(
    data: Sequence[DataSet], errors: Mapping[str, ErrorFunction], answers: Answers
) -> Mapping[str, Scores]:
    scores = _score(data, errors, answers)
    for name, theirs in scores.items():
        error_of(name, theirs)
    return scores


def _or_reason(call: Callable[[], _Value]) -> _Value | str:
    """What the call gives; the reason where it fails: no comparison ends a search."""
    try:
        return call()
    except ZtomError as error:
        return str(error)
    except Exception as error:  # of a user's error function
        logger.exception("a comparison failed in an unforeseen way")
        return f"{type(error).__name__}: {error}"


def _check_alive(data: Sequence[DataSet], answers: Answers) -> None:
    """A model that answers nothing at all is broken, whatever it scores."""
    texts = [output.text for entry in data for output in answers.outputs[entry.name]]
    if texts and all(text == "" for text in texts):
        raise VariantError(
            "the model answers every stimulus of the holdout with nothing",
            expected="at least one answer with text",
            fix="Check the chat template and the end-of-sequence tokens of the checkpoints.",
        )
