"""Tasks of EleutherAI's lm-evaluation-harness on our engines: its public ones, and the user's own.

A task is a name that lm-eval knows or a YAML file. Public tasks fetch their data from the Hugging
Face hub unless ``HF_DATASETS_OFFLINE`` forbids it; a file with local data (``dataset_path: json``)
needs no network. A YAML file may name Python functions, which are run: use files that you trust.
Tasks that run what a model wrote are refused.

The numbers are lm-eval's own and are for orientation: the gate decides on suites. Here an engine
that fails ends the run, since these tasks know no answer that is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ztom.engines.protocol import Engine
from ztom.errors import EvaluationError, ZtomError
from ztom.evaluation.runs.harness import Progress
from ztom.evaluation.runs.results import ModelRef
from ztom.extras import require_extra

_BATCH = 128
#: What lm-eval seeds the choice of few-shot examples with.
_FEWSHOT_SEED = 1234
_BOOTSTRAPS = 1000


class TaskResult(BaseModel):
    """What lm-eval says about one task, or a group of them.

    Attributes:
        name: Name of the task.
        version: Version of the task, as its file says.
        n: Number of documents that were evaluated; 0 for a group without a count of its own.
        metrics: Metrics by lm-eval's names: metric, comma, filter; standard errors as
            ``..._stderr``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    n: int
    metrics: dict[str, float]


class TasksRun(BaseModel):
    """A model's results on tasks of lm-eval.

    Attributes:
        model: Name and digest of the model.
        engine: Name, version, dtype and device of the engine.
        lm_eval: Version of lm-eval.
        limit: Number of documents of each task that were used; None for all.
        tasks: Results in lm-eval's order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelRef
    engine: tuple[str, ...]
    lm_eval: str
    limit: int | None
    tasks: tuple[TaskResult, ...]


def run_tasks(
    engine: Engine,
    tasks: Sequence[str],
    model: ModelRef,
    *,
    limit: int | None = None,
    batch_size: int = _BATCH,
    progress: Progress | None = None,
) -> TasksRun:
    """Run tasks of lm-eval.

    Args:
        engine: Engine with the model loaded.
        tasks: Names, or paths of YAML files.
        model: Name and digest of the model.
        limit: Number of documents of each task that are used, the first ones; None for all.
        batch_size: Number of requests that the engine gets at once.
        progress: Callback with how many requests of one kind are done, and of how many.

    Raises:
        CapabilityError: A task needs something that engines do not offer.
        EngineError: The engine failed.
        EvaluationError: A task is unknown or malformed, or its data cannot be had.
    """
    require_lm_eval()
    # In this process: forking with an engine loaded is asking for trouble. Read at the import.
    os.environ.setdefault("LMEVAL_DISABLE_MULTIPROC", "1")
    from lm_eval import evaluate

    from ztom.evaluation.runs.engine_lm import EngineLM

    loaded = _load(tasks)
    greedy = [name for name, task in loaded["tasks"].items() if _looks_at_greedy(task)]
    lm = EngineLM(engine, batch_size=batch_size, greedy_tasks=greedy, progress=progress)
    try:
        results = evaluate(
            lm=lm,
            task_dict=loaded,
            limit=limit,
            bootstrap_iters=_BOOTSTRAPS,
            cache_requests=False,
            log_samples=False,
        )
    except ZtomError:
        raise
    except Exception as error:  # a task is a program: it may raise anything
        raise _failed("lm-eval cannot run the tasks", tasks, error) from error
    info = engine.info
    return TasksRun(
        model=model,
        engine=(info.name, info.version, info.dtype, info.device),
        lm_eval=version("lm-eval"),
        limit=limit,
        tasks=tuple(_result(name, values, results) for name, values in results["results"].items()),
    )


def require_lm_eval() -> None:
    """Look whether tasks can be run at all.

    Raises:
        ConfigError: lm-eval is not installed.
    """
    require_extra("lm_eval", extra="lm-eval", purpose="running tasks of lm-evaluation-harness")


def is_file(task: str) -> bool:
    """Whether a task is meant to be a YAML file, not a name."""
    return task.endswith((".yaml", ".yml"))


def _load(tasks: Sequence[str]) -> Any:
    from lm_eval.tasks import TaskManager

    missing = [task for task in tasks if is_file(task) and not Path(task).is_file()]
    if missing or not tasks:
        raise EvaluationError("there is no such task file", got=", ".join(missing) or "none")
    try:
        # Reading the index of all public tasks takes long: only where one is asked for by name.
        manager = TaskManager(include_defaults=not all(is_file(task) for task in tasks))
        loaded = manager.load(list(tasks))
    except Exception as error:  # a task is a program, and fetches data
        raise _failed("lm-eval cannot load the tasks", tasks, error) from error
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    return loaded


def _failed(what: str, tasks: Sequence[str], error: Exception) -> EvaluationError:
    return EvaluationError(
        f"{what} {', '.join(tasks)}",
        reason=f"{type(error).__name__}: {error}",
        fix="`lm-eval ls tasks` lists the names; public tasks need their data on this machine or "
        "the Hugging Face hub.",
    )


def _looks_at_greedy(task: Any) -> bool:
    metrics = set(task.aggregation())
    return (task.OUTPUT_TYPE == "loglikelihood" and "acc" in metrics) or (
        task.OUTPUT_TYPE == "multiple_choice" and "exact_match" in metrics
    )


def _result(name: str, values: dict[str, Any], results: Any) -> TaskResult:
    return TaskResult(
        name=name,
        version=str(results["versions"].get(name, "")),
        n=int(values.get("sample_len") or 0),
        metrics={
            key: float(value)
            for key, value in values.items()
            if key != "sample_len" and isinstance(value, int | float)
        },
    )
