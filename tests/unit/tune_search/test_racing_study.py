"""Whole studies that race, without Ray: engine and scorer are the actors' own classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from search_helpers import new_study, open_ledger

from tune_search.display import event_line
from tune_search.engine_actor import EngineActor
from tune_search.payload import SEARCH, DataSet, Questions, StudyInputs
from tune_search.score_actor import TrialScorer
from tune_search.trial import Evaluator
from ztom.engines.protocol import Engine
from ztom.ledger import Ledger, TrialKind, TrialOutcome, TrialStatus
from ztom.scoring.build import ErrorSpec, build_error
from ztom.search.conductor import Conductor
from ztom.search.events import Event, TrialEnded
from ztom.search.outcome import SearchOutcome, build_outcome
from ztom.search.protocol import Plan
from ztom.search.racing import Race, RacingConfig, make_race
from ztom.search.samplers.build import build_sampler
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import SearchSpace
from ztom.stimuli.records import Stimulus
from ztom.testing.fake_engine import FakeEngine

SPACE = SearchSpace(("one", "two"), (-0.1, -0.1), (0.1, 0.1))
PLAN = Plan(space=SPACE, evaluations=14, startup=6, seed=0)
STIMULI = tuple(
    Stimulus(
        str(i), f"item {i} of the list {'again ' * (i % 7)}", f"item {i} {'x ' * (i % 5)}", "g"
    )
    for i in range(300)
)


class LocalEngine:
    """Calls an engine actor's class as `EngineClient` calls its process."""

    def __init__(self, inputs: StudyInputs) -> None:
        self.asked = 0
        actor = EngineActor()
        actor.start(inputs.engine, Questions.of(inputs))
        self.answer = actor.evaluate
        self._block = actor.evaluate_block

    def answer_block(self, factors, needs, places, *, others):
        self.asked += len(places)
        return self._block(factors, needs, places, others=others)


def make_inputs(error: ErrorSpec = "cross_entropy") -> StudyInputs:
    def engine() -> Engine:
        return FakeEngine(2, optimum=(0.05, -0.03))

    data = [
        DataSet(SEARCH, STIMULI, partial(build_error, error)),
        DataSet("guardrail", STIMULI[:4], partial(build_error, "token_f1")),
    ]
    return StudyInputs(space=SPACE, data=tuple(data), engine=engine)


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as opened:
        yield opened


def search(
    ledger: Ledger,
    study: int,
    race: Race | None,
    *,
    error: ErrorSpec = "cross_entropy",
    stop_after: int = 1000,
    on_event: Callable[[Event], None] = lambda event: None,
) -> tuple[SearchOutcome, LocalEngine]:
    inputs = make_inputs(error)
    sampler = build_sampler(SamplerConfig(name="random"), SPACE, seed=0)
    conductor = Conductor(
        PLAN, ledger, study, sampler=sampler, on_event=on_event, window=1, racing=race is not None
    )
    engine, scorer = LocalEngine(inputs), TrialScorer(inputs.data)
    evaluator = Evaluator(race=race)
    for _ in range(stop_after):
        assignment = conductor.next()
        if assignment is None:
            break
        report = evaluator.evaluate(
            engine, scorer, assignment.factors, incumbent=assignment.incumbent
        )
        conductor.complete(assignment.number, report.outcome)
    else:
        conductor.next()  # written down, never answered
    reason = conductor.stop_reason or "interrupted"
    return build_outcome(PLAN, study, conductor.trials, stop_reason=reason, seconds={}), engine


def without_seconds(outcome: TrialOutcome) -> tuple[object, ...]:
    return outcome.error, outcome.per_stimulus, dict(outcome.guardrails), outcome.answered


def test_a_race_comes_to_the_same_with_fewer_answers(ledger):
    race = make_race(RacingConfig(), len(STIMULI), seed=0)
    lines: list[str] = []

    def take(event: Event) -> None:
        if isinstance(event, TrialEnded):
            lines.append(event_line(event))

    plain, _ = search(ledger, new_study(ledger, "plain"), None)
    raced, engine = search(ledger, new_study(ledger, "raced"), race, on_event=take)
    answer = pytest.approx(plain.optimized_scaling_factors, abs=1e-3)
    assert raced.optimized_scaling_factors == answer
    assert raced.optimized_model_error == pytest.approx(plain.optimized_model_error, abs=1e-3)
    assert plain.partial_evaluations == 0 < raced.partial_evaluations
    assert engine.asked < 0.6 * len(STIMULI) * raced.number_of_inferences
    for with_race, without in zip(raced.trials, plain.trials, strict=False):
        if with_race.kind is TrialKind.CONFIRM:  # of fewer candidates
            continue
        assert with_race.factors == without.factors
        if with_race.outcome.answered is None:
            assert without_seconds(with_race.outcome) == without_seconds(without.outcome)
            continue
        # an estimate: near what it would have been, and no candidate for the answer
        assert with_race.status is TrialStatus.FINISHED
        assert with_race.outcome.error == pytest.approx(without.outcome.error, rel=0.02)
        assert with_race.outcome.error > raced.optimized_model_error
        assert with_race.outcome.answered < len(STIMULI)
        assert not with_race.outcome.per_stimulus
        assert with_race.number not in raced.feasible
        assert "stopped after" in lines[with_race.number]
        assert "guardrail" not in lines[with_race.number]


def test_a_race_that_was_killed_goes_on_with_the_same_trials(ledger):
    race = make_race(RacingConfig(), len(STIMULI), seed=0)
    whole, _ = search(ledger, new_study(ledger, "whole"), race)
    study = new_study(ledger, "killed")
    for count in (2, 5, 8):
        search(ledger, study, race, stop_after=count)
    resumed, _ = search(ledger, study, race)
    told = [(t.kind, t.factors, without_seconds(t.outcome)) for t in whole.trials]
    assert [(t.kind, t.factors, without_seconds(t.outcome)) for t in resumed.trials] == told


def test_an_error_of_the_whole_set_does_not_race(ledger):
    race = make_race(RacingConfig(), len(STIMULI), seed=0)
    mixed = ["cross_entropy", "token_f1"]  # a ratio of sums and a mean: no weights in common
    outcome, engine = search(ledger, new_study(ledger), race, error=mixed)
    assert outcome.partial_evaluations == 0
    assert engine.asked == len(race.blocks[0])  # once, to see that it cannot
    assert all(t.outcome.per_stimulus for t in outcome.trials)


def test_the_result_of_a_race_is_plain_json(ledger):
    from ztom.search.result import search_fields

    race = make_race(RacingConfig(), len(STIMULI), seed=0)
    outcome, _ = search(ledger, new_study(ledger), race)
    fields = search_fields(outcome)
    assert fields["partial_evaluations"] == outcome.partial_evaluations
    entries = [entry.model_dump(mode="json") for entry in fields["trials"]]
    assert sum(entry["answered"] is not None for entry in entries) == outcome.partial_evaluations
    assert json.loads(json.dumps(entries)) == entries
