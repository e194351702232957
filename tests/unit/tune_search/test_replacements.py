"""Engines that die beside others, and the trials that they were in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from search_helpers import make_plan, new_study

from tune_search.engine_client import EngineLostError
from tune_search.payload import TrialReport
from tune_search.replacements import Replacements
from tune_search.score_actor import ScorerGoneError
from tune_search.searcher import ProtocolSearcher
from tune_search.trial import Evaluator
from ztom.errors import EngineError, EngineTimeoutError
from ztom.ledger import Ledger, TrialOutcome, TrialStatus
from ztom.search.conductor import Conductor
from ztom.search.samplers.build import build_sampler
from ztom.search.samplers.protocol import SamplerConfig

LOST = TrialReport(TrialOutcome(reason="the engine is gone"), engine_lost=True)


class Beside:
    """What was to run beside, and runs when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield ledger


def searcher(ledger: Ledger, engines: Replacements, *, slots: int) -> ProtocolSearcher:
    plan = make_plan()
    sampler = build_sampler(SamplerConfig(name="random"), plan.space, seed=0)
    study = new_study(ledger)
    conductor = Conductor(plan, ledger, study, sampler=sampler, on_event=lambda event: None)
    return ProtocolSearcher(
        conductor, slots=slots, engines=engines, retries=0, on_report=lambda number, report: None
    )


def test_a_trial_of_a_dead_engine_goes_to_another_and_its_place_is_filled_later(ledger):
    beside = Beside()
    engines = Replacements([lambda: None, lambda: None], start=beside.waiting.append)
    search = searcher(ledger, engines, slots=2)
    first, second = search.suggest("a"), search.suggest("b")
    assert (first["slot"], second["slot"]) == (0, 1)
    search.receive("b", LOST)
    search.on_trial_complete("b", {})
    assert engines.live == (0,)
    assert search.suggest("c") is None  # the one that lives has a trial
    search.receive("a", TrialReport(TrialOutcome(error=1.0, seconds={"total": 1.0})))
    search.on_trial_complete("a", {})
    again = search.suggest("d")
    assert (again["number"], again["slot"]) == (second["number"], 0)
    beside.run()
    search.receive("d", TrialReport(TrialOutcome(error=1.0, seconds={"total": 1.0})))
    search.on_trial_complete("d", {})
    assert {search.suggest("e")["slot"], search.suggest("f")["slot"]} == {0, 1}


def test_a_trial_that_two_engines_died_of_has_failed(ledger):
    beside = Beside()
    engines = Replacements([lambda: None, lambda: None], start=beside.waiting.append)
    search = searcher(ledger, engines, slots=2)
    number = search.suggest("a")["number"]
    for name in ("a", "b"):
        search.receive(name, LOST)
        search.on_trial_complete(name, {})
        beside.run()
        if name == "a":
            assert search.suggest("b")["number"] == number
    (trial,) = search._conductor.trials
    assert trial.status is TrialStatus.FAILED
    assert trial.outcome.reason == "the engine is gone"


def test_without_any_engine_that_may_come_the_search_ends_with_the_reason(ledger):
    def broken() -> None:
        raise EngineError("no such GPU")

    engines = Replacements([broken, broken], start=lambda run: run())
    search = searcher(ledger, engines, slots=2)
    engines.lose(0)
    assert engines.failure is None
    engines.lose(1)
    assert search.suggest("a") == ProtocolSearcher.FINISHED
    assert "no such GPU" in str(search.failure)


def test_a_node_that_is_long_in_coming_is_waited_for():
    answers = [EngineTimeoutError("no node"), EngineTimeoutError("no node"), None]

    def restart() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    engines = Replacements([restart, restart], start=lambda run: run())
    engines.lose(0)
    assert engines.live == (0, 1)
    assert answers == []


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("error", [EngineLostError, ScorerGoneError])
def test_only_beside_others_is_an_engine_reported_as_lost(alone: bool, error: type):
    class Gone:
        is_alone = alone

        def needs(self) -> None:
            raise error("it is gone")

    report = Evaluator().evaluate(Gone(), Gone(), (0.0,))
    assert report.engine_lost is not alone
    assert "it is gone" in report.outcome.reason
