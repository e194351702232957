"""A search that is shown elsewhere: MLflow, W&B offline, TensorBoard and Optuna, all read back."""

from __future__ import annotations

from pathlib import Path

import mlflow
import optuna
import pytest
from fake_search import make_config, make_inputs

from tune_search.study import run_search
from ztom.search.trackers.optuna_storage import NUMBER

TRACKERS = ("mlflow", "wandb", "tensorboard", "optuna")


def test_a_search_is_shown_by_every_tracker(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = make_config(tmp_path, 1, trackers=TRACKERS)
    outcome = run_search(config, inputs=make_inputs(tmp_path))
    errors = sorted(trial.outcome.error or 0.0 for trial in outcome.trials)
    study = f"{config.name}-{outcome.study_id}"
    out = config.output

    client = mlflow.MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(config.name)
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["error"] for run in runs) == pytest.approx(errors)
    assert {run.data.tags["ztom.study"] for run in runs} == {study}
    assert {run.info.run_name for run in runs} >= {"trial-00000", "trial-00001"}
    assert all("alpha_1" in run.data.params for run in runs)

    stored = optuna.load_study(study_name=study, storage=f"sqlite:///{out / 'optuna.db'}")
    assert sorted(trial.value for trial in stored.trials) == pytest.approx(errors)
    assert {trial.user_attrs[NUMBER] for trial in stored.trials} == set(range(len(errors)))

    assert list((out / "tensorboard").rglob("events.out.tfevents.*"))
    offline = list((out / "wandb").glob("offline-run-*"))
    assert len(offline) == len(errors)
    assert all(list(run.glob("*.wandb")) for run in offline)
