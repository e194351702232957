"""Running the models of ``ztom gate``, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from ztom.cli.actions.evaluation import engine_config, run_and_write
from ztom.cli.gate.request import WHO, GateRequest, Runs, Who
from ztom.errors import EvaluationError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.runs.models import OpenModel, open_model, setup_digest
from ztom.evaluation.runs.results import SuiteRun
from ztom.evaluation.suites.discover import FoundSuite
from ztom.io.progress import work_display
from ztom.settings import Settings


def run_models(request: GateRequest, suites: Sequence[FoundSuite]) -> Runs:
    """Results of the models that are named; all are found before the first one is loaded.

    Raises:
        ZtomError: A model is not there, does not load, or a suite's metric is wrong.
    """
    models = {who: _open(request, who) for who in WHO if request.models[who] is not None}
    for suite_files in suites:  # what is wrong with a metric shows now
        build_metric(suite_files.suite, import_paths=suite_files.import_paths).close()
    known: dict[str, list[SuiteRun]] = {}
    for who, model in models.items():
        if model.ref.digest not in known:
            known[model.ref.digest] = _evaluate(request, who, model, suites)
    return {
        who: [run.model_copy(update={"model": model.ref}) for run in known[model.ref.digest]]
        for who, model in models.items()
    }


def _open(request: GateRequest, who: Who) -> OpenModel:
    """A model; of an adapter, the base is what it belongs to."""
    reference, base = request.models[who] or "", request.models["base"]
    try:
        return open_model(reference, settings=Settings())
    except EvaluationError:
        if base is None or who == "base":
            raise
        return open_model(reference, base=base, settings=Settings())


def _evaluate(
    request: GateRequest, who: Who, model: OpenModel, suites: Sequence[FoundSuite]
) -> list[SuiteRun]:
    config = engine_config(request.engine)
    with work_display(f"loading the {who} with engine {config.name}") as display:
        engine = model.load(config, settings=Settings())
        try:
            return run_and_write(
                suites,
                model.ref,
                engine,
                setup=setup_digest(config),
                out=request.out / "runs" / who,
                use_cache=request.use_cache,
                display=display,
            )
        finally:
            engine.close()
