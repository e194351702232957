"""Trackers read back: what was written is what the trials gave."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from fake_search import make_config
from tensorboardX.proto.event_pb2 import Event

from tune_search.trackers import GuardedCallback, TrackerCallback, make_callbacks
from ztom.errors import ConfigError
from ztom.ledger import TrialOutcome
from ztom.search.space import SearchSpace
from ztom.search.trackers.config import TrackerConfig, TrackerName, require_trackers
from ztom.search.trackers.optuna_storage import NUMBER, OptunaTracker
from ztom.search.trackers.protocol import TrackedTrial, is_metric, metrics_of
from ztom.search.trackers.tensorboard import TensorBoardTracker

SPACE = SearchSpace(("base -> first", "first -> second"), (-0.1, 0.05), (0.1, 0.2))
OUTCOMES = (
    TrialOutcome(error=0.5, guardrails={"tight": 0.25}, seconds={"blend": 0.1}),
    TrialOutcome(error=0.25, generated_tokens=7),
    TrialOutcome(reason="it failed"),
)
FACTORS = ((0.0, 0.0), (0.05, 0.1), (-0.1, 0.2))


def tracked() -> Iterator[TrackedTrial]:
    for number, (values, outcome) in enumerate(zip(FACTORS, OUTCOMES, strict=True)):
        factors = dict(zip(SPACE.names, values, strict=True))
        yield TrackedTrial(number, factors, metrics_of(outcome))


def play(callback: Any) -> None:
    """What Tune calls of a callback, for three trials."""
    trials: list[Any] = []
    callback.setup()
    for number, (factors, outcome) in enumerate(zip(FACTORS, OUTCOMES, strict=True)):
        config = {"number": number, "factors": list(factors), "slot": 0, "alpha_1": factors[0]}
        trial = SimpleNamespace(config=config, trial_id=f"t{number}", local_path=None)
        trials.append(trial)
        common = {"iteration": number, "trials": trials, "trial": trial}
        callback.on_trial_start(**common)
        result = {"training_iteration": 1, "time_total_s": 1.0, **metrics_of(outcome)}
        callback.on_trial_result(**common, result=result)
        callback.on_trial_complete(**common)
    callback.on_experiment_end(trials=trials)


def test_only_finite_numbers_are_metrics() -> None:
    outcome = TrialOutcome(error=float("nan"), guardrails={"tight": 0.5}, seconds={"total": 2.0})
    numbers = {"generated_tokens": 0.0, "guardrail/tight": 0.5, "seconds/total": 2.0}
    assert metrics_of(outcome) == numbers
    assert all(map(is_metric, [*numbers, "error"]))
    assert not any(map(is_metric, ["training_iteration", "time_total_s", "config", "done"]))


@pytest.mark.parametrize("name", list(TrackerName))
def test_a_tracker_is_named_or_described(tmp_path: Path, name: str) -> None:
    named = make_config(tmp_path, 3, trackers=[name])
    described = make_config(tmp_path, 3, trackers=[{"name": name}])
    assert named.trackers == described.trackers == (TrackerConfig(name=TrackerName(name)),)
    assert named.digest == make_config(tmp_path, 3).digest  # a resume may have others
    with pytest.raises(ValueError, match="name"):
        make_config(tmp_path, 3, trackers=["sacred"])


def test_off_unless_named(tmp_path: Path) -> None:
    assert make_callbacks(make_config(tmp_path, 3), 1, SPACE) == []
    require_trackers(())


# TensorBoard


def events(folder: Path) -> Iterator[Event]:
    """The events of a folder's files, as their format has them: length, checksum, bytes."""
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4


def test_tensorboard_shows_the_curve_over_the_trials(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path)
    for trial in tracked():
        tracker.record(trial)
    tracker.close()
    points: dict[str, dict[int, float]] = {}
    for event in events(tmp_path):
        for value in event.summary.value:
            points.setdefault(value.tag, {})[event.step] = value.simple_value
    assert points["error"] == {0: 0.5, 1: 0.25}
    assert points["best_error"] == {0: 0.5, 1: 0.25}
    assert points["guardrail/tight"] == {0: 0.25}
    (name,) = [tag for tag in points if tag.startswith("factor/base")]
    assert points[name] == pytest.approx({0: 0.0, 1: 0.05, 2: -0.1})
    assert any("hparams" in tag for tag in points)


# Optuna


def test_a_study_is_opened_by_optuna(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    bounds = {"base -> first": (-0.1, 0.1), "first -> second": (0.05, 0.2)}
    for _ in ("at first", "in a resume, which replays nothing twice"):
        tracker = OptunaTracker(storage, "search-1", bounds)
        for trial in tracked():
            tracker.record(trial)
        tracker.close()
    study = optuna.load_study(study_name="search-1", storage=storage)
    assert study.best_value == 0.25
    assert study.best_params == {"base -> first": 0.05, "first -> second": 0.1}
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL"]
    assert [trial.user_attrs[NUMBER] for trial in study.trials] == [0, 1, 2]
    ranges = study.trials[0].distributions["first -> second"]
    assert (ranges.low, ranges.high) == (0.0, 0.2)  # the trained model is outside of the bounds


def test_a_study_is_opened_by_the_dashboard(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    tracker = OptunaTracker(f"sqlite:///{tmp_path / 'optuna.db'}", "search-1", {})
    for trial in tracked():
        tracker.record(trial)
    application = dashboard.wsgi(f"sqlite:///{tmp_path / 'optuna.db'}")
    status: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/api/studies",
        "SERVER_NAME": "x",
        "SERVER_PORT": "1",
        "wsgi.url_scheme": "http",
    }
    body = b"".join(application(environ, lambda line, headers, *_: status.append(line)))
    assert status == ["200 OK"]
    assert b"search-1" in body


def test_a_storage_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an address such as sqlite:///study.db"):
        OptunaTracker("nonsense://x", "search-1", {})


# W&B; of MLflow and W&B a whole search is looked at in tests/integration


def test_wandb_without_a_key_is_refused_before_an_engine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    trackers = [TrackerConfig(name=TrackerName.WANDB)]
    with pytest.raises(ConfigError, match="WANDB_MODE=offline"):
        require_trackers(trackers)
    monkeypatch.setenv("WANDB_MODE", "offline")
    require_trackers(trackers)


# A tracker that fails


class Failing:
    """A tracker whose server is gone."""

    calls = 0

    def record(self, trial: TrackedTrial) -> None:
        self.calls += 1
        raise ConnectionError("gone")

    def close(self) -> None:
        self.calls += 1


def test_a_tracker_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Failing()
    with caplog.at_level(logging.WARNING):
        play(GuardedCallback("tracker", TrackerCallback(tracker, SPACE)))
    assert tracker.calls == 1
    assert caplog.text.count("is left out from now on: ConnectionError: gone") == 1
