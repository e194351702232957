"""Whole searches on a local Ray, over the fake engine; processes are really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import fake_search
import psutil
import pytest
from fake_search import OPTIMUM, make_config, make_inputs, stimuli

from tune_search.holdout import score_model
from tune_search.payload import SEARCH
from tune_search.phases import PhaseTimer
from tune_search.session import ray_for_search
from tune_search.spare_engine import spare_engine
from tune_search.study import run_search
from ztom.errors import EngineError, LedgerError, SearchError
from ztom.ledger import Ledger, StudyStatus, TrialKind, TrialStatus
from ztom.search.events import EnginesReady, Event, StudyEnded, TrialEnded, TrialStarted
from ztom.testing.fake_engine import FakeEngine


def test_finds_the_optimum_and_repeats_itself(local_ray, tmp_path):
    outcomes = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        events: list[Event] = []
        config = make_config(folder, 20)
        outcomes.append(run_search(config, inputs=make_inputs(folder), on_event=events.append))
        assert isinstance(events[-1], StudyEnded)
    first, second = outcomes
    assert [t.factors for t in first.trials] == [t.factors for t in second.trials]
    assert first.optimized_scaling_factors == pytest.approx(OPTIMUM, abs=0.01)
    assert first.improvement > 0.05
    assert first.noise_floor == 0.0
    confirmations = [t.kind for t in first.trials].count(TrialKind.CONFIRM)
    assert confirmations <= 3
    assert first.number_of_inferences == 2 + 20 + confirmations
    assert first.stop_reason == "budget"
    assert len(first.trials[0].outcome.per_stimulus) == 6
    assert len(first.sensitivity) == 3
    assert {"blend", "generate", "score", "overhead", "sampler"} <= first.seconds.keys()


def test_trials_are_spread_over_several_engines(tmp_path):
    config = make_config(tmp_path, 7, engine={"replicas": 2})
    events: list[Event] = []
    with ray_for_search(2):
        outcome = run_search(config, inputs=make_inputs(tmp_path), on_event=events.append)
    assert outcome.number_of_inferences == len(outcome.trials) > 2 + 7 - 1
    ready = next(event for event in events if isinstance(event, EnginesReady))
    assert ready.replicas == 2
    processes = (tmp_path / "processes").read_text().split()
    assert len(processes) == outcome.number_of_inferences
    assert min(map(processes.count, set(processes))) >= 2
    assert len(set(processes)) == 2


def test_guardrail_is_kept(local_ray, tmp_path):
    guardrail = {"name": "tight", "stimuli": "x", "error": "token_f1", "max_increase": 0.0}
    config = make_config(tmp_path, 8, guardrails=[guardrail], detailed_output=True)
    outcome = run_search(config, inputs=make_inputs(tmp_path, guardrails=["tight"]))
    best = [t for t in outcome.trials if t.factors == outcome.optimized_scaling_factors][-1]
    before = outcome.trials[0].outcome.guardrails["tight"]
    assert best.outcome.guardrails["tight"] <= before
    assert 0 < len(outcome.feasible) <= outcome.number_of_inferences
    assert len(list((tmp_path / "out" / "outputs").iterdir())) == outcome.number_of_inferences


@pytest.mark.abuse(45)
def test_a_failing_function_fails_trials_and_not_the_study(local_ray, tmp_path):
    outcome = run_search(make_config(tmp_path, 10), inputs=make_inputs(tmp_path, limit=2.5))
    failed = [t for t in outcome.trials if t.status is TrialStatus.FAILED]
    assert failed
    assert all("the user's function gave NaN" in t.outcome.reason for t in failed)
    assert outcome.improvement > 0


@pytest.mark.abuse(51)
def test_all_trials_failing_fails_the_study(local_ray, tmp_path):
    config = make_config(tmp_path, 10)
    with pytest.raises(SearchError, match="could not be evaluated.*gave NaN"):
        run_search(config, inputs=make_inputs(tmp_path, limit=-1.0))
    with Ledger.open(config.ledger_address) as ledger:
        study = ledger.studies.latest("fake")
        assert study.status is StudyStatus.FAILED
        assert len(ledger.studies.trials(study.id)) == 2


def test_an_engine_that_cannot_be_made_says_why(local_ray, tmp_path):
    inputs = make_inputs(tmp_path)
    broken = replace(inputs, engine=refuse_to_load)
    with pytest.raises(EngineError, match="no such GPU"):
        run_search(make_config(tmp_path, 5), inputs=broken)


def refuse_to_load() -> FakeEngine:
    raise EngineError("no such GPU")


def test_a_proof_begins_on_the_engine_that_the_study_ends_with(local_ray, tmp_path):
    config, inputs = make_config(tmp_path, 2), make_inputs(tmp_path)
    holdout = replace(inputs, data=(replace(inputs.data[0], stimuli=stimuli(4)),))
    ask = partial(score_model, holdout, refuse_to_load, (0.0,) * 3, config)
    with spare_engine() as spare:
        run_search(config, inputs=inputs, spare=spare)
        others = ((-1.0,) * 3, (0.5,))
        scored = ask(PhaseTimer(lambda event: None), None, spare, others)
        with pytest.raises(EngineError, match="no such GPU"):  # it is taken once
            ask(PhaseTimer(lambda event: None), None, spare)
    assert len(scored.scores[SEARCH].per_stimulus) == 4
    assert len(set((tmp_path / "processes").read_text().split())) == 1
    base, broken = (scored.others[factors] for factors in others)  # on the same engine
    assert base[SEARCH].aggregate() > scored.scores[SEARCH].aggregate()
    assert broken == "wrong number of factors: got 1, expected 3"


@pytest.mark.abuse(53, 54)
def test_killed_processes_are_replaced(local_ray, tmp_path):
    kill_engine = _while_held(tmp_path, 3, lambda: _kill(tmp_path / "engine.pid"))
    kill_scorer = _while_held(tmp_path, 5, lambda: _kill(tmp_path / "scorer.pid"))
    kill_trial = _while_held(tmp_path, 7, _kill_a_trial)

    def on_event(event: Event) -> None:
        kill_engine(event)
        kill_scorer(event)
        kill_trial(event)

    config = make_config(tmp_path, 6)
    outcome = run_search(config, inputs=make_inputs(tmp_path), on_event=on_event)
    assert all(t.status is TrialStatus.FINISHED for t in outcome.trials)
    attempts = [t.outcome.attempts for t in outcome.trials]
    assert sorted(attempts) == [1] * (len(attempts) - 1) + [2]
    assert attempts.index(2) in (6, 7, 8)  # those that may be under way beside the held one


def test_a_scorer_that_kills_its_process_fails_its_trials_and_not_the_study(local_ray, tmp_path):
    inputs = make_inputs(tmp_path)
    deadly = replace(inputs.data[0], error=partial(fake_search.deadly, tmp_path, 2.5))
    outcome = run_search(make_config(tmp_path, 5), inputs=replace(inputs, data=(deadly,)))
    dead = [t for t in outcome.trials if t.status is TrialStatus.FAILED]
    assert 0 < len(dead) < 8
    assert all("the process that scores died" in t.outcome.reason for t in dead)


def test_without_overlap_a_trial_is_asked_for_when_all_are_answered(local_ray, tmp_path):
    config = make_config(tmp_path, 6, overlap_scoring=False)
    run_search(config, inputs=make_inputs(tmp_path))
    with Ledger.open(config.ledger_address) as ledger:
        events = ledger.studies.events(ledger.studies.latest("fake").id)
    assert [event.action for event in events] == ["ask", "tell"] * (len(events) // 2)


@pytest.mark.abuse(55)
def test_stuck_engine_is_replaced(local_ray, tmp_path):
    stop = _while_held(tmp_path, 3, lambda: _kill(tmp_path / "engine.pid", signal.SIGSTOP))
    config = make_config(tmp_path, 2, generation_deadline_s=10.0)
    outcome = run_search(config, inputs=make_inputs(tmp_path), on_event=stop)
    assert all(t.status is TrialStatus.FINISHED for t in outcome.trials)


def test_time_limit_ends_the_study_with_its_best(local_ray, tmp_path):
    budget = {"evaluations": 5000, "seconds": 4}
    config = make_config(tmp_path, 5000, budget=budget, sampler="random")
    outcome = run_search(config, inputs=make_inputs(tmp_path))
    assert outcome.stop_reason == "time"
    assert 5 < outcome.number_of_inferences < 5000
    assert outcome.improvement > 0


def test_two_drivers_on_one_study_are_refused(tmp_path):
    config = make_config(tmp_path, 2)
    refused = pytest.raises(LedgerError, match="being run by another process")
    with Ledger.open(config.ledger_address) as ledger, ledger.studies.lock("fake"), refused:
        run_search(config, inputs=make_inputs(tmp_path))


@pytest.mark.abuse(56)
def test_driver_killed_and_resumed_ends_with_the_same_trials(local_ray, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = run_search(make_config(whole, 12), inputs=make_inputs(whole))
    driver = _start_driver(killed, 12, "fresh")
    _await_trials(killed, 6)
    (killed / "hold").touch()
    time.sleep(0.3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (killed / "hold").unlink()
    config = make_config(killed, 12)
    with Ledger.open(config.ledger_address) as ledger:
        before = ledger.studies.trials(ledger.studies.latest("fake").id)
    outcome = run_search(config, resume=True, inputs=make_inputs(killed))
    assert [t.factors for t in outcome.trials] == [t.factors for t in expected.trials]
    assert [t.number for t in outcome.trials] == list(range(len(expected.trials)))
    finished = [t for t in before if t.status is TrialStatus.FINISHED]
    assert 6 <= len(finished) < len(outcome.trials)
    assert list(outcome.trials[: len(finished)]) == finished
    # Every trial was evaluated once, but for those that were under way.
    blends = (killed / "blends").read_text().splitlines()
    assert len(blends) <= len(outcome.trials) + 2
    again = run_search(config, resume=True, inputs=make_inputs(killed))
    assert again.trials == outcome.trials
    assert len((killed / "blends").read_text().splitlines()) == len(blends)


def test_interrupt_keeps_the_best(tmp_path):
    driver = _start_driver(tmp_path, 500, "fresh")
    _await_trials(tmp_path, 9)
    os.killpg(driver.pid, signal.SIGINT)
    out, _ = driver.communicate(timeout=600)
    assert out.startswith("interrupted ")
    config = make_config(tmp_path, 500)
    with Ledger.open(config.ledger_address) as ledger:
        study = ledger.studies.latest("fake")
        assert study.status is StudyStatus.INTERRUPTED
        trials = ledger.studies.trials(study.id)
    assert len(trials) < 500
    assert all(t.status is TrialStatus.FINISHED for t in trials)


def test_resume_with_another_configuration_is_refused(local_ray, tmp_path):
    run_search(make_config(tmp_path, 2), inputs=make_inputs(tmp_path))
    with pytest.raises(SearchError, match="different: seed"):
        run_search(make_config(tmp_path, 2, seed=7), resume=True, inputs=make_inputs(tmp_path))


def _while_held(folder: Path, number: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """When a trial starts, hold the engine at it, or at the one before, act, and let go."""

    def meanwhile() -> None:
        deadline = time.monotonic() + 600
        while not (folder / "held").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            act()
        finally:  # else the engine is held for ever
            (folder / "held").unlink()
            (folder / "hold").unlink()

    def on_event(event: Event) -> None:
        if isinstance(event, TrialStarted) and event.number == number:
            (folder / "hold").touch()
            threading.Thread(target=meanwhile).start()
        if isinstance(event, TrialEnded):
            assert event.ended <= event.number + 1

    return on_event


def _kill_a_trial() -> None:
    """Kill a process, below this one, that is in a trial: Ray names them by what they are at."""
    below = psutil.Process().children(recursive=True)
    trials = [p for p in below if " ".join(p.cmdline()).strip().endswith(".train")]
    min(trials, key=lambda process: process.create_time()).kill()


def _kill(pid_file: Path, number: int = signal.SIGKILL) -> None:
    os.kill(int(pid_file.read_text()), number)


def _start_driver(folder: Path, evaluations: int, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, fake_search.__file__, str(folder), str(evaluations), how]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _await_trials(folder: Path, count: int) -> None:
    config = make_config(folder, 1)
    deadline = time.monotonic() + 600  # where cores are scarce
    while time.monotonic() < deadline:
        if Path(config.ledger_address).exists():
            with Ledger.open(config.ledger_address) as ledger:
                study = ledger.studies.latest("fake")
                trials = () if study is None else ledger.studies.trials(study.id)
            if sum(t.told is not None for t in trials) >= count:
                return
        time.sleep(0.1)
    pytest.fail("the driver made no progress")
