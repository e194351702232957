"""One model's answers and errors on what the search never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tune_search.engine_pool import make_clients, stop_engines
from tune_search.payload import SEARCH, Answers, DataSet, StudyInputs
from tune_search.phases import PhaseTimer
from tune_search.preparation import RunInputs
from ztom.engines.protocol import Capability, Engine
from ztom.errors import VariantError
from ztom.evaluation.runs.results import SuiteRun
from ztom.scoring.protocol import Need
from ztom.search.config import SearchConfig
from ztom.statistics.scores import Scores

if TYPE_CHECKING:
    from tune_search.gate import AnswerSuites
    from tune_search.spare_engine import SpareEngine


@dataclass(frozen=True)
class HoldoutScores:
    """One model on the holdouts, and on the suites.

    Attributes:
        answers: Outputs of the model, by data set.
        scores: Errors by data set, one per stimulus.
        runs: Results of the suites, where there are any.
    """

    answers: Answers
    scores: Mapping[str, Scores]
    runs: tuple[SuiteRun, ...] = ()


def holdout_inputs(inputs: RunInputs) -> StudyInputs:
    """The search's holdout with the holdouts in place of the data it saw."""
    holdouts = {SEARCH: inputs.holdout, **inputs.guardrail_holdouts}
    data = tuple(replace(entry, stimuli=holdouts[entry.name]) for entry in inputs.study.data)
    return replace(inputs.study, data=data)


def score_model(
    holdout: StudyInputs,
    make_engine: Callable[[], Engine],
    factors: tuple[float, ...],
    config: SearchConfig,
    timer: PhaseTimer,
    answer_suites: AnswerSuites | None,
    spare: SpareEngine | None = None,
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
    finally:
        stop_engines((client,))
    _check_alive(holdout.data, answers)
    began = time.perf_counter()
    scores = {
        data.name: errors[data.name].score(data.stimuli, answers.outputs[data.name])
        for data in holdout.data
    }
    timer.add("score", time.perf_counter() - began)
    return HoldoutScores(answers, scores, runs)


def _check_alive(data: Sequence[DataSet], answers: Answers) -> None:
    """A model that answers nothing at all is broken, whatever it scores."""
    texts = [output.text for entry in data for output in answers.outputs[entry.name]]
    if texts and all(text == "" for text in texts):
        raise VariantError(
            "the model answers every stimulus of the holdout with nothing",
            expected="at least one answer with text",
            fix="Check the chat template and the end-of-sequence tokens of the checkpoints.",
        )
