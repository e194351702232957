"""The functions of ``import ztom``: one per job, with the defaults of the command for that job.

They are thin: what they do stands in the rooms that they bring together. Imports stand inside the
functions, so that a script which only deploys loads neither torch nor Ray. `run_search` is the one
place of ``ztom``, beside the command line, that reaches up to ``tune_search``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ztom.blending.chain import Chain
    from ztom.blending.chain_file import ChainConfig
    from ztom.blending.groups import FactorGroups
    from ztom.engines.config import EngineConfig
    from ztom.evaluation.gate.verdict import Verdict
    from ztom.evaluation.runs.results import SuiteRun
    from ztom.search.config import SearchConfig
    from ztom.search.result import SearchResult
    from ztom.variants.variant import WrittenVariant
    from ztom.wire.deployments import DeploymentStatus

PathLike = str | os.PathLike[str]


def load_chain(
    source: PathLike | Sequence[PathLike] | Mapping[str, Any] | ChainConfig,
    *,
    groups: FactorGroups | Mapping[str, Any] | str | None = None,
) -> Chain:
    """Open a chain's checkpoints and check that they fit together; no weights are read.

    Args:
        source: A chain's YAML file; or references of its checkpoints, the base first, then the
            iterations in training order; or the content of a chain's file.
        groups: Groups of tensors that have factors of their own, as ``factors.groups`` of a
            search; None for one factor a step.

    Raises:
        ChainError: The chain is malformed, or (`IncompatibleChainError`) its members do not fit.
        CheckpointError: A checkpoint cannot be used.
        ConfigError: The groups make no sense, or do not divide the model.
    """
    from ztom.blending.chain import load_chain
    from ztom.blending.group_assignment import group_chain
    from ztom.blending.groups import parse_groups
    from ztom.settings import Settings

    rule = None if groups is None else parse_groups(groups)
    return group_chain(load_chain(_chain_config(source), settings=Settings()), rule)


def blend(
    chain: Chain,
    factors: Sequence[float],
    output: PathLike,
    *,
    dtype: str = "auto",
    adapter: bool = False,
    max_shard_gib: float = 2.0,
    ledger: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenVariant:
    """Set the factors by hand and write the blend as a variant, which is put on record.

    Args:
        chain: Chain that `load_chain` has opened.
        factors: One per transition, or per transition and group; 0 leaves a step as trained, -1
            removes it.
        output: Folder of the variant, or its ``gs://`` or ``s3://`` address; then with a ledger.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        adapter: Whether to write one LoRA adapter instead of full weights; for chains of adapters.
        max_shard_gib: Largest file of weights, GiB.
        ledger: File or SQLAlchemy address of the ledger; beside the output when None.
        progress: Callback with bytes written, and bytes in all.

    Raises:
        FactorError: Not one finite number per transition.
        BlendError: The blend is not finite at the dtype.
        VariantError: Another variant stands in the folder.
        StorageError: The disk refused.
    """
    from ztom.io.places import parse_place
    from ztom.variants.place import ledger_beside
    from ztom.variants.variant import blend_on_record
    from ztom.variants.write import WriteOptions

    options = WriteOptions(
        dtype=dtype,
        form="adapter" if adapter else "dense",
        max_shard_bytes=int(max_shard_gib * 2**30),
    )
    place = parse_place(os.fspath(output))
    address = ledger or ledger_beside(place)
    variant, _ = blend_on_record(
        chain, factors, place, options=options, ledger_address=address, progress=progress
    )
    return variant


def load_variant(folder: PathLike) -> WrittenVariant:
    """Open a variant; every byte of it is compared with its manifest.

    Args:
        folder: The variant's folder, or its address on the Hub, ``hf://org/name[@revision]``.

    Raises:
        VariantError: It is no variant, or a file is not what the manifest says.
    """
    from ztom.variants.place import local_variant
    from ztom.variants.variant import read_variant

    return read_variant(local_variant(os.fspath(folder)))


def run_search(
    config: SearchConfig | Mapping[str, Any] | PathLike,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: bool = True,
) -> SearchResult:
    """Search the factors of a chain, prove them on the holdout, write the variant.

    It runs in this process and on a local Ray, or on the one that ``RAY_ADDRESS`` names; there is
    no server. What is written is in the configuration's output folder.

    Args:
        config: A search's YAML file, whose relative paths are beside it; or its content or
            configuration, whose relative paths are in the working folder.
        overrides: ``key=value`` each, as after ``--set``; for files.
        resume: Whether to go on with the newest study of this name.
        progress: Whether to show a display on a terminal or in a notebook, log lines anywhere else.

    Raises:
        ConfigError: Names every key that is wrong.
        ZtomError: Whatever else went wrong, with what to do about it.
    """
    from ztom.stack import require_stack

    require_stack()
    from ztom.search.inputs import require_output

    ready = _search_config(config, overrides)
    require_output(ready)
    from tune_search.display import progress_display
    from tune_search.run import search_and_prove

    with progress_display() if progress else nullcontext() as on_event:
        result: SearchResult = search_and_prove(ready, resume=resume, on_event=on_event)
    return result


def evaluate(
    model: PathLike,
    suites: PathLike | Sequence[PathLike],
    *,
    base: str | None = None,
    engine: EngineConfig | Mapping[str, Any] | None = None,
    use_cache: bool = True,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[SuiteRun, ...]:
    """Have a model answer suites, in this process, and score the answers.

    Args:
        model: A variant, or a checkpoint as chains refer to it.
        suites: Folder of a suite or of suites, or several of them.
        base: Reference of the model that an adapter belongs to; a variant knows its own.
        engine: Fields of `ztom.engines.config.EngineConfig`; vLLM with its defaults when None.
        use_cache: Whether to use answers that are known and keep new ones.
        limit: Items of each suite that are asked; all when None.
        progress: Callback with a suite's name, answers that are there, and answers in all.

    Returns:
        One result per suite, in the suites' order.

    Raises:
        EvaluationError: A suite is malformed, or the model is an adapter without its base.
        EngineError: The model does not load, or does not generate.
    """
    from ztom.evaluation.runs.harness import run_suites
    from ztom.evaluation.runs.models import open_model, setup_digest
    from ztom.evaluation.suites.discover import read_suites
    from ztom.evaluation.suites.read import load_suite
    from ztom.settings import Settings

    settings = Settings()
    config = _engine_config(engine)
    named = read_suites(_paths(suites), read=load_suite)
    opened = open_model(os.fspath(model), base=base, settings=settings)
    loaded = opened.load(config, settings=settings)
    try:
        return tuple(
            run_suites(
                loaded,
                named,
                opened.ref,
                setup=setup_digest(config),
                use_cache=use_cache,
                limit=limit,
                progress=progress or (lambda name, done, total: None),
            )
        )
    finally:
        loaded.close()


def decide(
    candidate: PathLike | Sequence[SuiteRun],
    champion: PathLike | Sequence[SuiteRun] | None,
    suites: PathLike | Sequence[PathLike],
    *,
    base: PathLike | Sequence[SuiteRun] | None = None,
    first: bool = False,
    seed: int = 0,
) -> Verdict:
    """Let the gate decide whether a candidate ships: pass, fail or inconclusive.

    Args:
        candidate: Results of `evaluate`, or the folder into which ``ztom eval --out`` wrote them.
        champion: Results of the model that is shipped now; None is inconclusive unless ``first``.
        suites: Folder of a suite or of suites, as locked, or several of them.
        base: Results that are shown beside them and decide nothing.
        first: Whether there is no champion yet.
        seed: Seed of the resampling.

    Raises:
        EvaluationError: A suite is not as it was locked, or results are not of the same items of
            the same suites under the same conditions. That is no verdict at all.
    """
    from ztom.evaluation.gate.decide import decide
    from ztom.evaluation.suites.discover import read_suites
    from ztom.evaluation.suites.lock import load_locked

    named = read_suites(_paths(suites), read=load_locked)
    return decide(
        _results(candidate),
        None if champion is None else _results(champion),
        [item.suite for item in named],
        base=None if base is None else _results(base),
        first=first,
        seed=seed,
    )


def deploy(
    variant: PathLike,
    alias: str,
    *,
    server: str | None = None,
    key: str | None = None,
    project_id: str | None = None,
    verdict: PathLike | Verdict | None = None,
    plan: Mapping[str, Any] | None = None,
    canary: float | None = None,
    shadow: float | None = None,
    now: bool = False,
    live: bool = False,
    insist: bool = False,
    options: Mapping[str, Any] | None = None,
) -> DeploymentStatus:
    """Have a server serve a variant; by default a release moves the traffic step by step.

    It returns at once; `ztom.Client` follows what becomes of it.

    Args:
        variant: A variant, or its folder where the server can read it.
        alias: Name that callers write in ``model``.
        server: Address, as in ``http://127.0.0.1:8000``; ``ZTOM_SERVER`` when None.
        key: API key or token; ``ZTOM_API_KEY`` when None.
        project_id: The project that the endpoint belongs to; administrators need none.
        verdict: Verdict of the gate on it, or its file; it is put on record first.
        plan: Plan of the release; the default one when None.
        canary: Percent of the requests that it answers until somebody says otherwise.
        shadow: Percent of the requests that it gets copies of until somebody says otherwise.
        now: Whether it gets all requests at once.
        live: Whether it gets all requests at once by being swapped into the running engine.
        insist: Whether to deploy it although neither the gate nor a search let it pass; that is
            recorded.
        options: Options of its engine and replicas, as in ``{"max_replicas": 2}``.

    Returns:
        The deployment as the server has it.

    Raises:
        ServerError: The server refuses, or cannot be reached.
    """
    from ztom.client import Client

    with Client(server, key=key) as client:
        return client.endpoints.deploy(
            alias,
            path=os.fspath(variant),
            project_id=project_id,
            verdict=_verdict_document(verdict),
            plan=plan,
            canary=canary,
            shadow=shadow,
            now=now,
            live=live,
            insist=insist,
            options=options,
        )


def _chain_config(
    source: PathLike | Sequence[PathLike] | Mapping[str, Any] | ChainConfig,
) -> ChainConfig:
    from ztom.blending.chain_file import ChainConfig, read_chain_file
    from ztom.errors import ChainError
    from ztom.io.problems import check_model

    if isinstance(source, (str, os.PathLike)):
        return read_chain_file(Path(source))
    if not isinstance(source, (Mapping, ChainConfig)):
        source = {"checkpoints": [os.fspath(reference) for reference in source]}
    return check_model(ChainConfig, source, wrong="this is not a chain", kind=ChainError)


def _search_config(
    config: SearchConfig | Mapping[str, Any] | PathLike, overrides: Sequence[str]
) -> SearchConfig:
    from ztom.errors import ConfigError
    from ztom.search.config import SearchConfig
    from ztom.search.config_files import load_config, parse_config

    if isinstance(config, (str, os.PathLike)):
        return load_config(Path(config), overrides)
    if overrides:
        raise ConfigError(
            "overrides are for a search's file", got="a configuration", fix="Change it instead."
        )
    content = config.model_dump(exclude_unset=True) if isinstance(config, SearchConfig) else config
    return parse_config(content, folder=Path.cwd())


def _engine_config(engine: EngineConfig | Mapping[str, Any] | None) -> EngineConfig:
    from ztom.engines.config import EngineConfig
    from ztom.io.problems import check_model

    return check_model(EngineConfig, engine or {}, wrong="the engine's configuration is wrong")


def _results(source: PathLike | Sequence[SuiteRun]) -> Sequence[SuiteRun]:
    if isinstance(source, (str, os.PathLike)):
        from ztom.evaluation.runs.files import read_runs

        return read_runs(Path(source))
    return source


def _paths(places: PathLike | Sequence[PathLike]) -> list[Path]:
    if isinstance(places, (str, os.PathLike)):
        return [Path(places)]
    return [Path(place) for place in places]


def _verdict_document(verdict: PathLike | Verdict | None) -> Mapping[str, Any] | str | None:
    if verdict is None or isinstance(verdict, (str, os.PathLike)):
        return None if verdict is None else os.fspath(verdict)
    document: Mapping[str, Any] = verdict.model_dump(mode="json")
    return document
