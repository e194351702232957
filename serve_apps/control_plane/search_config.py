"""Makes the configuration that a search runs on from a request for it.

Everything that is wrong in a request, and can be known without reading data, is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from serve_apps.control_plane.data import copy_path
from ztom.blending.chain_file import ChainConfig
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import GenerationConfig
from ztom.errors import ConfigError
from ztom.io.problems import problem_sentence
from ztom.plugins import Group, installed, is_import_path
from ztom.scoring.build import SOURCES
from ztom.search.config import Budget, SearchConfig
from ztom.search.samplers.protocol import SamplerConfig
from ztom.wire.search_requests import SearchFields


def search_config(
    request: SearchFields,
    *,
    request_id: str,
    chain: ChainConfig,
    folder: Path,
    engine: EngineConfig,
    ledger: str,
) -> SearchConfig:
    """The configuration of a search over HTTP; its data is copied to where it says.

    Args:
        request: Request as it was sent.
        request_id: Becomes the name of the study.
        chain: Checkpoints of the project.
        folder: Folder of the request: data, suites and output of the search lie in it.
        engine: Engine that runs the model where the request does not say.
        ledger: Address of the server's ledger.

    Raises:
        HTTPException: 422, the request would run code of the caller's choice, or options of the
            engine do not fit.
        ConfigError: The rest of what is wrong, every key of it.
    """
    _refuse_foreign_code(request)
    generation, _ = generation_options(request.inference_config_json)
    data = {
        key: copy_path(references, folder, key)
        for key, references in data_references(request).items()
    }
    try:
        return SearchConfig(
            name=request_id,
            chain=chain,
            **data,
            labels=request.labels,
            error=request.error,
            scaling_factor_limit=request.scaling_factor_limit,
            batch_size=request.batch_size,
            inference_config=generation,
            detailed_output=request.detailed_output or False,
            sampler=SamplerConfig(name=request.sampler),
            budget=Budget(evaluations=request.max_evaluations),
            engine=request.engine or engine,
            seed=request.seed,
            suites=tuple(folder / "suites" / str(i) for i in range(len(request.suite_paths))),
            insist=request.insist,
            output=folder / "run",
            ledger=ledger,
        )
    except ValidationError as error:
        problems = problem_sentence(error, {}, model=SearchConfig, whole="the search", quote=True)
        raise ConfigError("the search is wrong", reason=problems) from None


def data_references(request: SearchFields) -> dict[str, tuple[str, ...]]:
    """What the request names as data, by the key of `SearchConfig` that it becomes."""
    references = {
        "stimuli": request.stimulus_paths,
        "expected_outputs": _if_any(request.expected_output_path),
        "holdout": _if_any(request.holdout_path),
        "holdout_expected_outputs": _if_any(request.holdout_expected_output_path),
    }
    return {key: paths for key, paths in references.items() if paths}


def generation_options(options: Mapping[str, Any]) -> tuple[GenerationConfig, list[str]]:
    """What the engine understands of the original's ``inferenceConfigJson``.

    Returns:
        The options, and a warning for each that is not known.

    Raises:
        HTTPException: 422, a known option has a value that it cannot have.
    """
    known = {key: value for key, value in options.items() if key in GenerationConfig.model_fields}
    warnings = [
        f"inferenceConfigJson: {key[:60]!r} is not known and was ignored"
        for key in options
        if key not in known
    ]
    try:
        return GenerationConfig.model_validate(known), warnings
    except ValidationError as error:
        problems = problem_sentence(error, known, model=GenerationConfig, limit=len(known))
        raise HTTPException(422, f"inferenceConfigJson is wrong: {problems}") from None


def _if_any(path: str | None) -> tuple[str, ...]:
    return () if path is None else (path,)


def _refuse_foreign_code(request: SearchFields) -> None:
    """Refuse what would run code of the caller's choice."""
    own = [term.function for term in request.error if is_import_path(term.function)]
    if own:
        known = sorted({*SOURCES, *installed(Group.ERROR_FUNCTIONS)})
        raise HTTPException(
            422,
            f"{own[0][:100]!r} is no built-in error function ({', '.join(known)}); "
            "functions of one's own run from the command line, not over HTTP.",
        )
    if is_import_path(request.sampler):
        raise HTTPException(422, "Over HTTP the sampler is one that is installed, by its name.")
    engine = request.engine
    if engine is not None and (is_import_path(engine.name) or engine.module is not None):
        raise HTTPException(
            422, "Over HTTP the engine is one that is installed, by its name, without a module."
        )
