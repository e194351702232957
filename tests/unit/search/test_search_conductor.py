from __future__ import annotations

import logging

import pytest
from search_helpers import ScriptedSampler, bowl, make_plan, new_study, open_ledger

from ztom.errors import FactorError, SearchError
from ztom.ledger import Ledger, TrialKind, TrialOutcome, TrialStatus
from ztom.search.conductor import Assignment, Conductor
from ztom.search.events import Stopping, TrialEnded, TrialStarted
from ztom.search.outcome import build_outcome
from ztom.search.samplers.build import build_sampler
from ztom.search.samplers.gp import GPSampler
from ztom.search.samplers.protocol import SamplerConfig

NAMES = ["gp", "tpe", "cmaes", "random", "cobyla", "cobyqa"]


def make_conductor(ledger: Ledger, study: int, sampler, *, events=None, **plan) -> Conductor:
    return Conductor(
        make_plan(**plan),
        ledger,
        study,
        sampler=sampler,
        on_event=(events if events is not None else []).append,
    )


def run(conductor: Conductor, *, most: int = 10_000) -> None:
    for _ in range(most):
        assignment = conductor.next()
        if assignment is None:
            return
        conductor.complete(assignment.number, TrialOutcome(error=bowl(assignment.factors)))


def gp(name: str = "gp"):
    return build_sampler(SamplerConfig(name=name), make_plan().space, seed=0)


def test_a_whole_study(tmp_path):
    events = []
    with open_ledger(tmp_path) as ledger:
        conductor = make_conductor(ledger, new_study(ledger), gp(), events=events)
        run(conductor)
        assert conductor.stop_reason == "budget"
        assert conductor.is_over
        assert ledger.studies.trials(1) == conductor.trials
    assert [t.number for t in conductor.trials] == list(range(2 + 6 + 3))
    assert isinstance(events[0], TrialStarted)
    assert events[-1] == Stopping("budget")
    ends = [e for e in events if isinstance(e, TrialEnded)]
    assert [e.ended for e in ends] == list(range(1, 12))
    assert ends[-1].best_error == min(bowl(t.factors) for t in conductor.trials)


@pytest.mark.parametrize("name", NAMES)
def test_killed_anywhere_it_goes_on_with_the_same_trials(tmp_path, name):
    with open_ledger(tmp_path) as ledger:
        whole = new_study(ledger, "whole")
        first = gp(name)
        run(make_conductor(ledger, whole, first, evaluations=8, startup=2))
        first.close()
        expected = [(t.kind, t.factors) for t in ledger.studies.trials(whole)]
        study = new_study(ledger, "killed")
        for finished in (1, 3, 5, 11):
            sampler = gp(name)
            conductor = make_conductor(ledger, study, sampler, evaluations=8, startup=2)
            while sum(t.told is not None for t in conductor.trials) < finished:
                assignment = conductor.next()
                conductor.complete(assignment.number, TrialOutcome(error=bowl(assignment.factors)))
            conductor.next()  # written down, never answered
            sampler.close()
        before = {t.number: t for t in ledger.studies.trials(study) if t.told is not None}
        sampler = gp(name)
        conductor = make_conductor(ledger, study, sampler, evaluations=8, startup=2)
        run(conductor)
        sampler.close()
        assert [(t.kind, t.factors) for t in conductor.trials] == expected
        assert {n: conductor.trials[n] for n in before} == before


def test_unanswered_trials_are_given_out_first(tmp_path):
    with open_ledger(tmp_path) as ledger:
        study = new_study(ledger)
        conductor = make_conductor(ledger, study, ScriptedSampler([]))
        conductor.next()
        again = make_conductor(ledger, study, ScriptedSampler([]))
        assert not again.is_over
        assert again.next() == Assignment(0, TrialKind.BASELINE, (0.0, 0.0))
        assert again.next().number == 1
        assert again.next() is None
        assert again.stop_reason is None


def test_the_record_wins_over_a_sampler_that_changed_its_mind(tmp_path, caplog):
    with open_ledger(tmp_path) as ledger:
        study = new_study(ledger)
        plan = {"evaluations": 2, "startup": 0}
        run(make_conductor(ledger, study, ScriptedSampler([(0.01, 0.02)] * 2), **plan), most=3)
        changed = ScriptedSampler([(0.09, 0.09), (0.05, 0.05)])
        with caplog.at_level(logging.WARNING):
            conductor = make_conductor(ledger, study, changed, **plan)
        assert "the ledger's counts" in caplog.text
        assert conductor.trials[2].factors == (0.01, 0.02)
        assert [number for number, _, _ in changed.told] == [0, 1, 2]


def test_early_convergence_is_said(tmp_path):
    with open_ledger(tmp_path) as ledger:
        sampler = ScriptedSampler([(0.05, -0.03), (0.01, 0.01)])
        conductor = make_conductor(ledger, new_study(ledger), sampler, evaluations=99, startup=0)
        run(conductor)
        assert conductor.stop_reason == "converged"
        outcome = build_outcome(
            make_plan(), 1, conductor.trials, stop_reason="converged", seconds={}
        )
    assert outcome.converged
    assert outcome.optimized_scaling_factors == (0.05, -0.03)


def test_convergence_is_said_after_a_resume_as_well(tmp_path):
    def start(ledger, study):
        plan = make_plan(evaluations=40, startup=4, startup_scale=0.4)
        sampler = GPSampler(plan.space, seed=0, tolerance=0.01)
        return Conductor(plan, ledger, study, sampler=sampler, on_event=lambda event: None)

    with open_ledger(tmp_path) as ledger:
        study = new_study(ledger)
        first = start(ledger, study)
        while not any(t.kind is TrialKind.CONFIRM for t in first.trials):
            assignment = first.next()
            first.complete(assignment.number, TrialOutcome(error=bowl(assignment.factors)))
        again = start(ledger, study)
        run(again)
        assert again.stop_reason == "converged"
        assert len(again.trials) < 25


def test_a_point_outside_the_space_is_an_error(tmp_path):
    with open_ledger(tmp_path) as ledger:
        sampler = ScriptedSampler([(0.2, 0.0)])
        conductor = make_conductor(ledger, new_study(ledger), sampler, startup=0)
        with pytest.raises(FactorError):
            run(conductor)
        assert len(ledger.studies.trials(1)) == 2


def test_failed_trials_are_recorded_and_the_study_goes_on(tmp_path):
    with open_ledger(tmp_path) as ledger:
        conductor = make_conductor(ledger, new_study(ledger), gp(), startup=2)
        while (assignment := conductor.next()) is not None:
            bad = assignment.number % 3 == 2
            outcome = TrialOutcome(reason="NaN") if bad else TrialOutcome(error=1.0)
            conductor.complete(assignment.number, outcome)
        failed = [t for t in ledger.studies.trials(1) if t.status is TrialStatus.FAILED]
    assert {t.outcome.reason for t in failed} == {"NaN"}
    assert conductor.stop_reason == "budget"


def test_guardrails_reach_the_sampler(tmp_path):
    sampler = ScriptedSampler([(0.01, 0.0)])
    with open_ledger(tmp_path) as ledger:
        plan = {"evaluations": 1, "startup": 0, "max_increases": (("g", 0.1),)}
        conductor = make_conductor(ledger, new_study(ledger), sampler, **plan)
        for error in (1.0, 1.0, 1.5):
            number = conductor.next().number
            conductor.complete(number, TrialOutcome(error=0.5, guardrails={"g": error}))
        assert sampler.told[-1] == (2, 0.5, pytest.approx((0.4,)))
        assert conductor.next() is None  # nothing feasible is left to confirm
        assert conductor.stop_reason == "budget"


def test_interrupt_gives_out_nothing_more(tmp_path):
    with open_ledger(tmp_path) as ledger:
        conductor = make_conductor(ledger, new_study(ledger), gp())
        running = conductor.next()
        conductor.interrupt()
        assert conductor.next() is None
        assert conductor.stop_reason == "interrupted"
        conductor.complete(running.number, TrialOutcome(error=1.0))
        assert ledger.studies.trials(1)[0].status is TrialStatus.FINISHED


def test_time_runs_from_the_first_evaluation_and_over_runs(tmp_path):
    now = [100.0]
    with open_ledger(tmp_path) as ledger:
        study = new_study(ledger)

        def start() -> Conductor:
            plan, sampler = make_plan(seconds=60.0), ScriptedSampler([])
            return Conductor(
                plan, ledger, study, sampler=sampler, on_event=lambda e: None, clock=lambda: now[0]
            )

        conductor = start()
        number = conductor.next().number
        now[0] += 1000.0  # the model is loading
        assert conductor.elapsed_s == 0.0
        conductor.complete(number, TrialOutcome(error=1.0, seconds={"total": 5.0}))
        now[0] += 2.0
        assert conductor.elapsed_s == 7.0
        assert start().elapsed_s == 5.0
        now[0] += 60.0
        conductor.next()
        conductor.complete(1, TrialOutcome(error=1.0))
        assert conductor.next() is None
        assert conductor.stop_reason == "time"


@pytest.mark.abuse(51)
def test_all_blends_failing_is_an_error(tmp_path):
    with open_ledger(tmp_path) as ledger:
        conductor = make_conductor(ledger, new_study(ledger), gp())
        while (assignment := conductor.next()) is not None:
            trained = assignment.kind is TrialKind.BASELINE
            outcome = TrialOutcome(error=1.0) if trained else TrialOutcome(reason="overflow")
            conductor.complete(assignment.number, outcome)
    with pytest.raises(SearchError, match="all 6 blends failed.*overflow"):
        build_outcome(make_plan(), 1, conductor.trials, stop_reason="budget", seconds={})


def test_outcome_adds_up(tmp_path):
    with open_ledger(tmp_path) as ledger:
        conductor = make_conductor(ledger, new_study(ledger), gp())
        while (assignment := conductor.next()) is not None:
            outcome = TrialOutcome(
                error=bowl(assignment.factors), seconds={"blend": 0.5}, generated_tokens=3
            )
            conductor.complete(assignment.number, outcome)
    outcome = build_outcome(
        make_plan(), 1, conductor.trials, stop_reason="budget", seconds={"total": 9.0}
    )
    assert outcome.improvement == outcome.trained_model_error - outcome.optimized_model_error > 0
    assert outcome.number_of_inferences == 11
    assert outcome.generated_tokens == 33
    assert outcome.seconds == {"blend": 5.5, "generate": 0, "score": 0, "total": 9.0}
    at_best = [t for t in outcome.trials if t.factors == outcome.optimized_scaling_factors]
    assert at_best[-1].kind is TrialKind.CONFIRM
    assert at_best[-1].outcome.error == outcome.optimized_model_error
    assert outcome.trials[0].kind is TrialKind.BASELINE
    assert outcome.trials[0].outcome.error == outcome.trained_model_error
    assert outcome.noise_floor == 0.0


def in_window(ledger, study, sampler, pick, *, stop_after=None) -> Conductor:
    """Two trials under way; `pick` says which of those under way is ready first."""
    conductor = Conductor(
        make_plan(evaluations=8, startup=2),
        ledger,
        study,
        sampler=sampler,
        on_event=lambda event: None,
        window=2,
    )
    busy: list[Assignment] = []
    for _ in range(10_000):
        while len(busy) < 2 and (assignment := conductor.next()) is not None:
            busy.append(assignment)
        if not busy or sum(t.told is not None for t in conductor.trials) == stop_after:
            return conductor
        ready = busy.pop(pick(len(busy)))
        conductor.complete(ready.number, TrialOutcome(error=bowl(ready.factors)))
    raise AssertionError("it never ends")


def test_in_a_window_the_order_of_answers_changes_nothing(tmp_path):
    trials, orders = [], []
    picks = (lambda n: 0, lambda n: n - 1, lambda n: next(coins) % n)
    coins = iter([1, 0, 0, 1, 1, 0, 1, 1, 1, 0] * 10)
    with open_ledger(tmp_path) as ledger:
        for pick in picks:
            study = new_study(ledger, f"study {len(trials)}")
            conductor = in_window(ledger, study, gp(), pick)
            assert conductor.stop_reason == "budget"
            trials.append([(t.kind, t.factors) for t in conductor.trials])
            events = ledger.studies.events(study)
            orders.append([(e.action, e.trial.number) for e in events])
    assert trials[0] == trials[1] == trials[2]
    assert len(trials[0]) == 2 + 8 + 3
    assert orders[0] == orders[1] == orders[2]
    # a search trial is asked for when all but the one before it have been answered
    asks = [
        i for i, (action, number) in enumerate(orders[0]) if action == "ask" and 5 <= number < 10
    ]
    assert asks
    for i in asks:
        number = orders[0][i][1]
        answered = {n for action, n in orders[0][:i] if action == "tell"}
        assert answered == set(range(number - 1))


def test_in_a_window_a_study_killed_anywhere_goes_on_with_the_same_trials(tmp_path):
    with open_ledger(tmp_path) as ledger:
        whole = in_window(ledger, new_study(ledger, "whole"), gp(), lambda n: n - 1)
        study = new_study(ledger, "killed")
        for answered in (1, 4, 7, 10, 12):
            in_window(ledger, study, gp(), lambda n: n - 1, stop_after=answered)
        resumed = in_window(ledger, study, gp(), lambda n: 0)
    expected = [(t.kind, t.factors) for t in whole.trials]
    assert [(t.kind, t.factors) for t in resumed.trials] == expected


def test_in_a_window_an_interrupt_keeps_every_answer(tmp_path):
    with open_ledger(tmp_path) as ledger:
        conductor = Conductor(
            make_plan(),
            ledger,
            new_study(ledger),
            sampler=gp(),
            on_event=lambda event: None,
            window=2,
        )
        first, second = conductor.next(), conductor.next()
        conductor.interrupt()
        conductor.complete(second.number, TrialOutcome(error=2.0))
        conductor.complete(first.number, TrialOutcome(error=1.0))
        assert conductor.next() is None
        assert [t.outcome.error for t in conductor.trials] == [1.0, 2.0]
