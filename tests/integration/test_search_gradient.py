"""A whole search with derivatives on a local Ray, whose engine is killed in the middle of one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

from fake_search import OPTIMUM, make_config, make_inputs

from tune_search.payload import GradientInputs
from tune_search.study import run_search
from ztom.ledger import TrialKind, TrialStatus
from ztom.scoring.differentiable import LossTerm
from ztom.search.events import EnginesReady, Event, TrialStarted
from ztom.testing.fake_engine import FakeEngine


def refuse_to_load() -> FakeEngine:
    raise AssertionError("the study's own engine takes derivatives")


def test_gradients_survive_a_killed_engine_and_find_the_optimum(
    local_ray: None, tmp_path: Path
) -> None:
    inputs = make_inputs(tmp_path)
    inputs = replace(
        inputs,
        data=(replace(inputs.data[0], losses=(LossTerm("tokens"),)),),
        gradients=GradientInputs("forward", refuse_to_load),
    )
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialStarted) and event.number == 3:
            os.kill(int((tmp_path / "engine.pid").read_text()), signal.SIGKILL)

    config = make_config(tmp_path, 30, sampler="gradient")
    outcome = run_search(config, inputs=inputs, on_event=on_event)
    assert outcome.stop_reason == "converged"
    assert all(t.status is TrialStatus.FINISHED for t in outcome.trials)
    distances = zip(outcome.optimized_scaling_factors, OPTIMUM, strict=True)
    assert max(abs(a - b) for a, b in distances) < 1e-3
    kinds = [t.kind for t in outcome.trials]
    assert outcome.gradient_evaluations == kinds.count(TrialKind.SEARCH) <= 8
    assert outcome.number_of_inferences == 2 + kinds.count(TrialKind.CONFIRM)
    assert all(len(t.outcome.gradient) == 3 for t in outcome.trials if t.kind is TrialKind.SEARCH)
    [ready] = [event for event in events if isinstance(event, EnginesReady)]
    assert ready.engine.endswith("; derivatives in float32")
