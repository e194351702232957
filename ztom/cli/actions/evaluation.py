"""What ``ztom eval`` does: run a model on suites, and on tasks of lm-eval."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from ztom.checkpoints.storage import require_reachable
from ztom.cli.console import plain_console, print_document
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine
from ztom.errors import EvaluationError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.runs.files import write_run
from ztom.evaluation.runs.harness import LEFT_OUT, run_suites
from ztom.evaluation.runs.lm_tasks import TasksRun, require_lm_eval, run_tasks
from ztom.evaluation.runs.results import ModelRef, SuiteRun
from ztom.evaluation.suites.discover import FoundSuite, read_suites
from ztom.evaluation.suites.read import load_suite
from ztom.evaluation.suites.suite import Suite
from ztom.io.disk import require_output_place
from ztom.io.files import write_document
from ztom.io.places import StoragePlace
from ztom.io.problems import check_model
from ztom.io.progress import WorkDisplay, work_display
from ztom.settings import Settings

if TYPE_CHECKING:
    from ztom.evaluation.runs.models import OpenModel

# On a terminal progress and results are to be seen, not what an engine says while it starts.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

#: Something could not be run or scored; the same status as of a gate that could not be asked.
HARNESS_ERROR = 3
TASKS_FILE = "tasks.json"


@dataclass(frozen=True)
class EvalRequest:
    """What was asked for on the command line.

    Attributes:
        model: A variant's folder or a checkpoint's reference.
        base: What an adapter belongs to.
        suites: Suites, or folders of suites.
        tasks: Names or YAML files of tasks of lm-eval.
        engine: Fields of `ztom.engines.config.EngineConfig`.
        out: Where results go.
        use_cache: Whether known answers are used and new ones kept.
        limit: Items of each suite and documents of each task; all when None.
    """

    model: str
    base: str | None
    suites: Sequence[Path]
    tasks: Sequence[str]
    engine: Mapping[str, object]
    out: StoragePlace
    use_cache: bool
    limit: int | None


def eval_command(request: EvalRequest, *, as_json: bool = False) -> int:
    """Run, write results, print a table; returns the exit status: 0, or 3 for harness errors.

    Raises:
        ZtomError: A model, a suite or an option is wrong.
    """
    settings = Settings()
    suites = read_suites(request.suites, read=load_suite)
    if not suites and not request.tasks:
        raise EvaluationError("there is nothing to run", fix="Give --suite or --tasks.")
    if request.tasks:
        require_lm_eval()
    config = engine_config(request.engine)
    require_output_place(request.out, what="--out")
    for reference in (request.model, request.base):
        if reference is not None:
            require_reachable(reference, settings=settings)
    for suite_files in suites:  # what is wrong with a metric shows before a model is loaded
        build_metric(suite_files.suite, import_paths=suite_files.import_paths).close()
    # Here and not at the top: it imports torch, which takes seconds.
    from ztom.evaluation.runs.models import open_model, setup_digest

    with work_display(f"reading {request.model}") as display:
        model = open_model(request.model, base=request.base, settings=settings)
        display.doing(f"loading {model.ref.name} with engine {config.name}")
        engine = model.load(config, settings=settings)
        try:
            runs = run_and_write(
                suites,
                model.ref,
                engine,
                setup=setup_digest(config),
                out=request.out,
                use_cache=request.use_cache,
                limit=request.limit,
                display=display,
            )
            tasks = _run_tasks(request, model, engine, display) if request.tasks else None
        finally:
            engine.close()
    results = [
        _suite_result(run, suite_files.suite, request.out)
        for run, suite_files in zip(runs, suites, strict=True)
    ]
    if as_json:
        print_document({"model": model.ref, "suites": results, "tasks": tasks})
    else:
        console = plain_console()
        console.print(f"{model.ref.name}, content {model.ref.digest[:12]}")
        if results:
            console.print(_suites_table(results))
        if tasks is not None:
            console.print(_tasks_table(tasks))
    return HARNESS_ERROR if any(_unscored(run) for run in runs) else 0


def engine_config(fields: Mapping[str, object]) -> EngineConfig:
    """The configuration, or an error that names the option."""
    return check_model(EngineConfig, dict(fields), wrong="the engine's options are wrong")


def run_and_write(
    suites: Sequence[FoundSuite],
    model: ModelRef,
    engine: Engine,
    *,
    setup: str,
    out: StoragePlace,
    use_cache: bool,
    limit: int | None = None,
    display: WorkDisplay,
) -> list[SuiteRun]:
    """Run a model on suites and write each result as soon as it is there."""
    runs = []
    answered = run_suites(
        engine,
        suites,
        model,
        setup=setup,
        use_cache=use_cache,
        limit=limit,
        progress=display.show,
    )
    for run in answered:
        write_run(run, out)
        runs.append(run)
    return runs


def _run_tasks(
    request: EvalRequest, model: OpenModel, engine: Engine, display: WorkDisplay
) -> TasksRun:
    run = run_tasks(
        engine,
        request.tasks,
        model.ref,
        limit=request.limit,
        progress=partial(display.show, "tasks"),
    )
    write_document(request.out / TASKS_FILE, run.model_dump_json(indent=1))
    return run


def _unscored(run: SuiteRun) -> int:
    """Items without a value, those aside that a limit left out."""
    return sum(item.value is None and item.problem != LEFT_OUT for item in run.items)


@dataclass(frozen=True)
class SuiteResult:
    """What one suite came to, in brief.

    Attributes:
        suite: Name of the suite.
        version: Version of the suite.
        metric: What answers were scored by.
        items: How many items it has.
        scored: How many of them have a value.
        value: The metric over those; None without any.
        problems: Why items have no value, a line for each; those a limit left out have none.
        seconds: How long it ran.
        path: Folder of its results.
    """

    suite: str
    version: str
    metric: str
    items: int
    scored: int
    value: float | None
    problems: tuple[str, ...]
    seconds: float
    path: StoragePlace


def _suite_result(run: SuiteRun, suite: Suite, out: StoragePlace) -> SuiteResult:
    from ztom.evaluation.gate.align import scores
    from ztom.statistics.resampling import metric

    scored = [item for item in run.items if item.value is not None]
    value = None
    if scored:
        each_its_own = np.arange(len(scored), dtype=np.intp)
        value = float(metric(scores(suite.config, scored, each_its_own))[0])
    return SuiteResult(
        suite=run.suite.name,
        version=run.suite.version,
        metric=str(run.suite.metric),
        items=len(run.items),
        scored=len(scored),
        value=value,
        problems=tuple(item.problem for item in run.items if item.problem not in (None, LEFT_OUT)),
        seconds=run.seconds,
        path=(out / run.suite.name).absolute(),
    )


def _suites_table(results: Sequence[SuiteResult]) -> Table:
    headers = ("suite", "version", "metric", "scored", "value", "not scored", "seconds", "")
    table = Table(*headers, box=None, pad_edge=False)
    for result in results:
        table.add_row(
            result.suite,
            result.version,
            result.metric,
            f"{result.scored} of {result.items}",
            "-" if result.value is None else f"{result.value:.4f}",
            str(len(result.problems)),
            f"{result.seconds:.1f}",
            result.problems[0][:100] if result.problems else "",
        )
    return table


def _tasks_table(run: TasksRun) -> Table:
    table = Table("task", "version", "documents", "metric", "value", box=None, pad_edge=False)
    for task in run.tasks:
        for name, value in task.metrics.items():
            error = task.metrics.get(name.replace(",", "_stderr,", 1))
            if "_stderr" not in name:
                shown = f"{value:.4f}" + ("" if error is None else f" +- {error:.4f}")
                table.add_row(task.name, task.version, str(task.n), name, shown)
    return table
