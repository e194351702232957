"""Trackers as Ray Tune's callbacks: Ray's own for MLflow and W&B, an adapter for the others.

What a tracker fails at never ends a search: it is said once, and the tracker is left out from then
on. The ledger has everything.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from ray.tune import Callback

from ztom.io.places import StoreAddress
from ztom.search.config import SearchConfig
from ztom.search.space import SearchSpace
from ztom.search.trackers.config import TrackerConfig, TrackerName
from ztom.search.trackers.optuna_storage import OptunaTracker
from ztom.search.trackers.protocol import TrackedTrial, TrialTracker, is_metric
from ztom.search.trackers.tensorboard import TensorBoardTracker

logger = logging.getLogger(__name__)


def make_callbacks(config: SearchConfig, study_id: int, space: SearchSpace) -> list[Callback]:
    """A callback for each tracker that the configuration names.

    Raises:
        ConfigError: A store cannot be opened.
    """
    study = f"{config.name}-{study_id}"
    return [
        GuardedCallback(tracker.name, _make(tracker, config, study, space))
        for tracker in config.trackers
    ]


def _local_output(config: SearchConfig) -> Path:
    """The output's folder; W&B's own files of a search in a store go into a temporary one."""
    if isinstance(config.output, StoreAddress):
        return Path(tempfile.mkdtemp(prefix="ztom-trackers-"))
    output = config.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    return output


def _make(tracker: TrackerConfig, config: SearchConfig, study: str, space: SearchSpace) -> Callback:
    output = _local_output(config)
    match tracker.name:
        case TrackerName.MLFLOW:
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            address = tracker.address or os.environ.get("MLFLOW_TRACKING_URI")
            return MLflowLoggerCallback(
                tracking_uri=address or f"sqlite:///{output / 'mlflow.db'}",
                experiment_name=tracker.project or config.name,
                tags={"ztom.study": study},
            )
        case TrackerName.WANDB:
            from ray.air.integrations.wandb import WandbLoggerCallback

            return WandbLoggerCallback(
                project=tracker.project or os.environ.get("WANDB_PROJECT") or "ztom",
                group=study,
                dir=str(output),
                mode=os.environ.get("WANDB_MODE") or "online",
            )
        case TrackerName.TENSORBOARD:
            folder = Path(tracker.address) if tracker.address else output / "tensorboard"
            return TrackerCallback(TensorBoardTracker(folder), space)
        case TrackerName.OPTUNA:
            bounds = dict(zip(space.names, zip(space.lower, space.upper, strict=True), strict=True))
            storage = tracker.address or f"sqlite:///{output / 'optuna.db'}"
            return TrackerCallback(OptunaTracker(storage, study, bounds), space)


class TrackerCallback(Callback):  # type: ignore[misc]  # Ray is not typed
    """Gives a tracker the trials that Tune has results of, after their reports were taken out."""

    def __init__(self, tracker: TrialTracker, space: SearchSpace) -> None:
        self._tracker = tracker
        self._names = space.names

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Record the trial."""
        factors = dict(zip(self._names, trial.config["factors"], strict=True))
        metrics = {name: value for name, value in result.items() if is_metric(name)}
        self._tracker.record(TrackedTrial(trial.config["number"], factors, metrics))

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """Close the tracker."""
        self._tracker.close()


class GuardedCallback(Callback):  # type: ignore[misc]  # Ray is not typed
    """A callback that is left out once it has failed.

    Args:
        name: Name of the tracker, for the log.
        inner: Callback that is guarded.
    """

    def __init__(self, name: str, inner: Callback) -> None:
        self._name = name
        self._inner: Callback | None = inner

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: nothing of it is Tune's to keep."""
        return {}

    def setup(self, **info: Any) -> None:
        """Pass on; see Ray's ``Callback``."""
        self._pass("setup", info)

    def on_trial_start(self, **info: Any) -> None:
        """Pass on."""
        self._pass("on_trial_start", info)

    def on_trial_result(self, **info: Any) -> None:
        """Pass on."""
        self._pass("on_trial_result", info)

    def on_trial_complete(self, **info: Any) -> None:
        """Pass on."""
        self._pass("on_trial_complete", info)

    def on_trial_error(self, **info: Any) -> None:
        """Pass on."""
        self._pass("on_trial_error", info)

    def on_experiment_end(self, **info: Any) -> None:
        """Pass on."""
        self._pass("on_experiment_end", info)

    def _pass(self, method: str, info: dict[str, Any]) -> None:
        if self._inner is None:
            return
        try:
            getattr(self._inner, method)(**info)
        except Exception as error:
            self._inner = None
            logger.warning(
                "the tracker %s failed and is left out from now on: %s: %s",
                self._name,
                type(error).__name__,
                error,
            )
