"""Makes the configuration that a search runs on from a request for it.

Everything that is wrong in a request, and can be known without reading data, is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from serve_apps.control_plane.data import FileMeaning, copy_path
from ztom.blending.chain_file import ChainConfig
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import GenerationConfig
from ztom.errors import ConfigError
from ztom.io.problems import problem_sentence
from ztom.plugins import Group, installed, is_import_path
from ztom.scoring.build import SOURCES, ErrorTerm
from ztom.search.config import Budget, FactorOptions, SearchConfig, VariantOptions
from ztom.search.samplers.protocol import SamplerConfig
from ztom.stimuli.csv_files import parse_number, read_rows
from ztom.wire.search_requests import SearchFields

_SAMPLES, _TEMPLATE = "do_sample", "chat_template"
_LONGEST_TEMPLATE = 65_536


class NamedData(NamedTuple):
    """Files that a request names as one data set.

    Attributes:
        references: Paths or addresses, in order.
        meaning: Whether they are lines of one, or a stimulus each.
    """

    references: tuple[str, ...]
    meaning: FileMeaning


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
    options = inference_options(request.inference_config_json)
    data = {
        key: copy_path(named.references, folder, key, meaning=named.meaning)
        for key, named in data_references(request).items()
    }
    try:
        return SearchConfig(
            name=request_id,
            chain=chain,
            **data,
            labels=request.labels,
            error=request.error,
            scaling_factor_limit=request.scaling_factor_limit,
            factors=FactorOptions(groups=request.factor_groups),
            batch_size=request.batch_size,
            inference_config=options.generation,
            detailed_output=request.detailed_output or False,
            sampler=SamplerConfig(name=request.sampler),
            budget=Budget(evaluations=request.max_evaluations, tolerance=request.tolerance),
            engine=options.engine(request.engine or engine),
            seed=request.seed,
            suites=tuple(folder / "suites" / str(i) for i in range(len(request.suite_paths))),
            insist=request.insist,
            output=folder / "run",
            variant=VariantOptions(keep_unproven=True),
            ledger=ledger,
        )
    except ValidationError as error:
        problems = problem_sentence(error, {}, model=SearchConfig, whole="the search", quote=True)
        raise ConfigError("the search is wrong", reason=problems) from None


def with_classes(config: SearchConfig, request: SearchFields) -> SearchConfig:
    """The search over classes, where its expected outputs are one-hot rows and no more is said.

    The original's call for a classifier names neither labels nor an error function: classes are
    called by their numbers then, and the error is the cross-entropy.

    Args:
        config: Configuration whose data was copied.
        request: Request as it was sent.

    Raises:
        StimuliError: The expected outputs cannot be read.
    """
    path = config.expected_outputs
    if {"error", "labels"} & request.model_fields_set:
        return config
    if not isinstance(path, Path) or path.suffix != ".csv":
        return config
    classes = one_hot_width([row for _, row in read_rows(path)])
    if classes is None:
        return config
    return config.model_copy(
        update={
            "labels": tuple(str(number) for number in range(classes)),
            "error": (ErrorTerm(function="cross_entropy", source="labels"),),
        }
    )


def one_hot_width(rows: Sequence[Sequence[str]]) -> int | None:
    """Number of columns of rows that have a 1 and else zeros, two columns at least; else None."""
    for row in rows:
        numbers = [parse_number(field) for field in row]
        hot, cold = numbers.count(1.0), numbers.count(0.0)
        if len(row) != len(rows[0]) or (hot, cold) != (1, len(row) - 1) or cold == 0:
            return None
    return len(rows[0]) if rows else None


def data_references(request: SearchFields) -> dict[str, NamedData]:
    """What the request names as data, by the key of `SearchConfig` that it becomes."""
    stimuli, lines = FileMeaning.STIMULI, FileMeaning.LINES
    references = {
        "stimuli": NamedData(request.stimulus_paths, stimuli),
        "expected_outputs": NamedData(_if_any(request.expected_output_path), lines),
        "holdout": NamedData(_if_any(request.holdout_path), stimuli),
        "holdout_expected_outputs": NamedData(_if_any(request.holdout_expected_output_path), lines),
    }
    return {key: data for key, data in references.items() if data.references}


class InferenceOptions(NamedTuple):
    """What was understood of the original's ``inferenceConfigJson``.

    Attributes:
        generation: Options of generating text.
        template: Chat template in Jinja that is used instead of the tokenizer's; None for that.
        warnings: A warning for each option that is not known.
    """

    generation: GenerationConfig
    template: str | None
    warnings: list[str]

    def engine(self, config: EngineConfig) -> EngineConfig:
        """The engine's options with the chat template."""
        return (
            config
            if self.template is None
            else config.model_copy(update={"template": self.template})
        )


def inference_options(options: Mapping[str, Any]) -> InferenceOptions:
    """What the engine understands of the original's ``inferenceConfigJson``.

    ``do_sample`` false is greedy decoding whatever the temperature; true without a temperature
    takes 1, as transformers does.

    Raises:
        HTTPException: 422, a known option has a value that it cannot have.
    """
    known = {key: value for key, value in options.items() if key in GenerationConfig.model_fields}
    warnings = [
        f"inferenceConfigJson: {key[:60]!r} is not known and was ignored"
        for key in options
        if key not in known and key not in (_SAMPLES, _TEMPLATE)
    ]
    samples, template = options.get(_SAMPLES), options.get(_TEMPLATE)
    if not isinstance(samples, bool | None):
        raise HTTPException(422, "inferenceConfigJson is wrong: do_sample is true or false.")
    if template is not None and (not isinstance(template, str) or not template.strip()):
        raise HTTPException(
            422, "inferenceConfigJson is wrong: chat_template is the text of a template."
        )
    if template is not None and len(template) > _LONGEST_TEMPLATE:
        raise HTTPException(
            422,
            f"inferenceConfigJson is wrong: chat_template has more than {_LONGEST_TEMPLATE} "
            "characters.",
        )
    if samples is False:
        known["temperature"] = 0.0
    elif samples is True:
        known.setdefault("temperature", 1.0)
    known = {key: value for key, value in known.items() if value is not None}
    try:
        generation = GenerationConfig.model_validate(known)
    except ValidationError as error:
        problems = problem_sentence(error, known, model=GenerationConfig, limit=len(known))
        raise HTTPException(422, f"inferenceConfigJson is wrong: {problems}") from None
    return InferenceOptions(generation, template, warnings)


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
