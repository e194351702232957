"""A whole run: search, proof, variant, ``result.json`` and ``report.html``."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tune_search.existing import ExistingProof
from tune_search.preparation import RunInputs, prepare
from tune_search.spare_engine import spare_engine
from tune_search.study import run_search
from ztom.io.files import write_whole
from ztom.io.places import StoragePlace
from ztom.ledger import Ledger
from ztom.search.config import SearchConfig
from ztom.search.events import Event, Preparing
from ztom.search.gradients import gradient_note
from ztom.search.outcome import SearchOutcome
from ztom.search.report.render import render_report
from ztom.search.result import Proof, SearchResult, data_file_entry, search_fields
from ztom.settings import Settings

logger = logging.getLogger(__name__)


def search_and_prove(
    config: SearchConfig,
    *,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    inputs: RunInputs | None = None,
) -> SearchResult:
    """Search, prove it on the holdout, and write what it came to into folder and ledger.

    Args:
        config: Configuration of the search.
        resume: Whether to go on with the newest study of this name.
        on_event: Callback that takes every event.
        inputs: Inputs of the run; read from the configuration when None.

    Raises:
        ZtomError: Whatever went wrong, with what to do about it.
    """
    from cluster.pools import cluster_capacity
    from tune_search.device import settle_device
    from tune_search.prove import prove
    from tune_search.session import ray_for_search
    from tune_search.shared_places import require_shared_places

    notify = on_event or (lambda event: None)
    notify(Preparing("reading the chain and the data"))
    inputs = inputs or prepare(config)
    notify(Preparing("starting Ray"))
    with ray_for_search(config.engine.replicas), spare_engine() as spare:
        require_shared_places(config, inputs.chain_config, Settings())
        config, inputs = settle_device(config, inputs, cluster_capacity())
        outcome = run_search(
            config, resume=resume, on_event=on_event, inputs=inputs.study, spare=spare
        )
        with Ledger.open(config.ledger_address) as ledger:
            result = build_result(config, inputs, outcome, ledger)
            if inputs.holdout and outcome.stop_reason != "interrupted":
                proof, existing = prove(
                    config, inputs, outcome, ledger, on_event=notify, spare=spare
                )
                result = with_proof(result, proof, existing)
                decision = proof.decision
                content = decision.model_dump(mode="json")
                ledger.studies.save_proof(outcome.study_id, str(decision.outcome), content)
            ledger.studies.save_result(outcome.study_id, result.model_dump(mode="json"))
    write_whole(result_path(config), result.model_dump_json(indent=2) + "\n")
    write_whole(report_path(config), render_report(result))
    return result


def build_result(
    config: SearchConfig, inputs: RunInputs, outcome: SearchOutcome, ledger: Ledger
) -> SearchResult:
    """The document of an outcome."""
    study = ledger.studies.get(outcome.study_id)
    space = inputs.study.space
    return SearchResult(
        name=config.name,
        factor_bounds=tuple(zip(space.lower, space.upper, strict=True)),
        factor_groups=space.groups,
        error=config.error,
        sampler=config.sampler.name,
        dtype=config.engine.dtype,
        seed=study.seed,
        versions=dict(study.versions),
        chain_digest=study.chain_digest,
        checkpoints=inputs.chain.places,
        data_digests=dict(study.data_digests),
        data_files=tuple(map(data_file_entry, inputs.data_files)),
        notes=(*inputs.chain.notes, *inputs.notes, *_gradient_notes(config, inputs)),
        step_warnings=inputs.step_warnings,
        **search_fields(outcome),
    )


def with_proof(result: SearchResult, proof: Proof, existing: ExistingProof) -> SearchResult:
    """The result of a search with what the holdout said of the blend and of what exists."""
    return result.model_copy(
        update={
            "proof": proof,
            "existing": existing.models,
            "best_existing": existing.best,
            "baseline_inferences": result.baseline_inferences + existing.inferences,
        }
    )


def _gradient_notes(config: SearchConfig, inputs: RunInputs) -> tuple[str, ...]:
    if inputs.study.gradients is None:
        return ()
    stored = str(inputs.chain.members[inputs.chain.model].dtype).removeprefix("torch.")
    deployed = stored if config.engine.dtype == "auto" else config.engine.dtype
    note = gradient_note(config.engine, deployed=deployed)
    return () if note is None else (note,)


def result_path(config: SearchConfig) -> StoragePlace:
    """Where the result is written."""
    return config.output / "result.json"


def report_path(config: SearchConfig) -> StoragePlace:
    """Where the report is written."""
    return config.output / "report.html"
