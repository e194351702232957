"""One Ray Tune experiment: the trials that a searcher suggests, on the engines there are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import ray
from ray import tune
from ray.tune import Callback

from tune_search.engine_client import EngineClient
from tune_search.score_actor import ScoreClient
from tune_search.searcher import ProtocolSearcher, ReportCarrier
from tune_search.slots import driver_labels, driver_resources
from tune_search.trial import SearchTrial
from ztom.search.racing import Race


def prepare_processes(count: int) -> None:
    """Have Ray start processes that import what a trial's process needs; does not wait for them.

    Tune starts its own only when the engines are loaded, and then takes these.

    Args:
        count: Number of trials that run at once.
    """
    task = ray.remote(num_cpus=0, resources=driver_resources(), label_selector=driver_labels())(
        _import_trial
    )
    for _ in range(count):
        task.remote()


def _import_trial() -> None:
    import_module("tune_search.trial")


def run_trials(
    searcher: ProtocolSearcher,
    engines: Sequence[EngineClient],
    *,
    scorers: Sequence[ScoreClient],
    detailed: bool,
    race: Race | None,
    limit_s: float | None,
    trackers: Sequence[Callback] = (),
) -> None:
    """Let Tune run trials until the searcher has no more, or the time is up.

    Args:
        searcher: Searcher that suggests trials and takes their reports.
        engines: The engines.
        scorers: Processes that score, one for each engine.
        detailed: Whether reports carry the outputs.
        race: Blocks that the stimuli are answered in; None answers all at once.
        limit_s: Seconds after which Tune ends even a trial that hangs; None for no limit.
        trackers: Callbacks that show the trials elsewhere.
    """
    trial = tune.with_parameters(
        SearchTrial, engines=engines, scorers=scorers, detailed=detailed, race=race
    )
    with _short_folder() as folder:
        tune.Tuner(
            tune.with_resources(
                trial,
                tune.PlacementGroupFactory(
                    [driver_resources()], bundle_label_selector=[driver_labels()]
                ),
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                time_budget_s=limit_s,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_folder,
            ),
            run_config=tune.RunConfig(
                name="s",
                storage_path=folder,
                verbose=0,
                callbacks=[ReportCarrier(searcher), *trackers],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:05d}"


def _trial_folder(trial: Any) -> str:
    return str(trial.trial_id)


@contextmanager
def _short_folder() -> Iterator[str]:
    """Tune's state, which nobody reads, under a short path (sockets and long trial names)."""
    folder = tempfile.mkdtemp(prefix="zt")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
