"""The configuration of a search: one typed, documented model, and how it is read.

``python -m tune_search search.yaml --set budget.evaluations=20`` reads a YAML file and overrides
single keys. Relative paths in the file, and in overrides of it, are taken from the file's own
folder.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from ztom.engines.build import EngineConfig

from tune_search.samplers import SamplerConfig
from ztom.blending.chain import ChainConfig
from ztom.engines.protocol import GenerationConfig
from ztom.errors import ConfigError
from ztom.scoring.build import ErrorTerm

#: Keys that may differ between a study and its resume: they do not decide which factors are tried.
_FREE_ON_RESUME = (
    "name",
    "output",
    "ledger",
    "detailed_output",
    "generation_deadline_s",
    "engine_start_deadline_s",
    "trial_retries",
)


def _from_file_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    return path if folder is None else (folder / path).absolute()


ConfigPath = Annotated[Path, AfterValidator(_from_file_folder)]
ErrorList = Annotated[
    tuple[ErrorTerm, ...],
    Field(min_length=1, description="a name, or a list of weighted terms that are summed"),
]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
FiniteBounds = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _error_terms(data: Any) -> Any:
    """``error: rouge_l`` and ``error: [rouge_l, {function: ..., weight: ...}]`` are both fine."""
    if isinstance(data, dict) and "error" in data:
        terms = data["error"] if isinstance(data["error"], list) else [data["error"]]
        terms = [{"function": term} if isinstance(term, str) else term for term in terms]
        return {**data, "error": terms}
    return data


class Guardrail(_Strict):
    """Another data set whose error may not rise by more than a stated amount.

    Attributes:
        name: Shown in reports.
        stimuli: The data set.
        expected_outputs: Its expected outputs, when they are not in the same file.
        error: The error function.
        labels: Class labels, for error functions over classes.
        max_increase: How far the error may rise above the trained model's.
        holdout: What the proof tests the guardrail on: a file, or else a share of the data set.
        holdout_expected_outputs: Expected outputs of the holdout file.
        holdout_fraction: The share, when there is no file.
    """

    name: str = Field(min_length=1, max_length=100)
    stimuli: ConfigPath
    expected_outputs: ConfigPath | None = None
    error: ErrorList
    labels: tuple[str, ...] = ()
    max_increase: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    holdout: ConfigPath | None = None
    holdout_expected_outputs: ConfigPath | None = None
    holdout_fraction: Fraction = 0.25

    _terms = model_validator(mode="before")(_error_terms)


class Budget(_Strict):
    """When the search ends.

    Attributes:
        evaluations: Start-up and search trials. Two evaluations of the trained model and up to
            three repetitions of the best blends come on top.
        seconds: Time for all trials; None for no limit.
    """

    evaluations: int = Field(default=50, ge=1, le=100_000)
    seconds: float | None = Field(default=None, gt=0, le=31_536_000, allow_inf_nan=False)


class SearchConfig(_Strict):
    """Everything about one search.

    Attributes:
        name: Of the study; a resume goes on with the newest study of this name.
        chain: A chain file, or the chain itself.
        stimuli: What the model is asked during the search.
        expected_outputs: What it should answer, when that is not in the same file.
        labels: Class labels, for error functions over classes.
        holdout: Stimuli for the proof, which the search never sees; None splits them off.
        holdout_expected_outputs: Expected outputs of the holdout file.
        holdout_fraction: The share that is split off when there is no holdout file.
        max_search_stimuli: Search on this many stimuli, chosen by the seed; None for all.
        error: The error function to make small.
        guardrails: Data sets on which the model may not get worse.
        scaling_factor_limit: Every factor lies between minus and plus this.
        lower_bound: Instead of the limit: a lower bound for each factor.
        upper_bound: Instead of the limit: an upper bound for each factor.
        batch_size: Stimuli per call of the engine; None hands over all at once.
        inference_config: How text is generated.
        detailed_output: Keep the generated texts of every trial (true, or STORE_AND_RETURN).
        sampler: What proposes the factors.
        budget: When the search ends.
        engine: What runs the model.
        seed: Everything random is drawn from it.
        generation_deadline_s: An engine that has not answered all stimuli by then is replaced and
            asked once more.
        engine_start_deadline_s: The same for loading the model.
        trial_retries: How often a trial whose process died is run again.
        output: Folder for what the search writes.
        ledger: File or SQLAlchemy address of the ledger; None puts it into the output folder.
    """

    name: str = Field(default="search", min_length=1, max_length=200)
    chain: ConfigPath | ChainConfig
    stimuli: ConfigPath
    expected_outputs: ConfigPath | None = None
    labels: tuple[str, ...] = ()
    holdout: ConfigPath | None = None
    holdout_expected_outputs: ConfigPath | None = None
    holdout_fraction: Fraction = 0.25
    max_search_stimuli: int | None = Field(default=None, ge=1)
    error: ErrorList
    guardrails: tuple[Guardrail, ...] = ()
    scaling_factor_limit: float = Field(default=0.1, gt=0, le=10, allow_inf_nan=False)
    lower_bound: FiniteBounds | None = None
    upper_bound: FiniteBounds | None = None
    batch_size: int | None = Field(default=None, ge=1)
    inference_config: GenerationConfig = GenerationConfig()
    detailed_output: bool | Literal["STORE_AND_RETURN"] = False
    sampler: SamplerConfig = SamplerConfig()
    budget: Budget = Budget()
    engine: EngineConfig = EngineConfig()
    seed: int = Field(default=0, ge=0, lt=2**31)
    generation_deadline_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    engine_start_deadline_s: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    trial_retries: int = Field(default=1, ge=0, le=10)
    output: ConfigPath = Path("runs/search")
    ledger: str | None = None

    _terms = model_validator(mode="before")(_error_terms)

    @model_validator(mode="before")
    @classmethod
    def _sampler_by_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("sampler"), str):
            return {**data, "sampler": {"name": data["sampler"]}}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.lower_bound is None) != (self.upper_bound is None):
            raise ValueError("lower_bound and upper_bound belong together: give both or neither")
        if self.lower_bound is not None and "scaling_factor_limit" in self.model_fields_set:
            raise ValueError("give either scaling_factor_limit or the bounds, not both")
        for low, high in zip(self.lower_bound or (), self.upper_bound or (), strict=False):
            if low >= high:
                raise ValueError(f"lower_bound must be below upper_bound, got {low} and {high}")
        if len(self.lower_bound or ()) != len(self.upper_bound or ()):
            raise ValueError("lower_bound and upper_bound differ in length")
        names = [guardrail.name for guardrail in self.guardrails]
        if len(set(names)) != len(names) or "search" in names:
            raise ValueError("guardrails need different names, and none may be called 'search'")
        return self

    @property
    def wants_outputs(self) -> bool:
        """Whether the texts of every trial are kept."""
        return bool(self.detailed_output)

    @property
    def ledger_address(self) -> str:
        """Where the ledger is."""
        return str(self.output / "ledger.db") if self.ledger is None else self.ledger

    @property
    def digest(self) -> str:
        """sha256 over everything that decides which factors are tried."""
        content = json.dumps(_deciding(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Keys that decide which factors are tried and differ from another configuration's."""
        mine, theirs = _deciding(self.model_dump(mode="json")), _deciding(other)
        return sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in _FREE_ON_RESUME}
    budget = kept.get("budget")
    if isinstance(budget, Mapping):
        kept["budget"] = {"evaluations": budget.get("evaluations")}
    return kept


def load_config(path: Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read a YAML file.

    Args:
        path: The file. Without a ``name`` in it the study is called after it.
        overrides: ``key=value`` each; dots go into nested keys and positions of lists
            (``guardrails.0.max_increase=0.1``); values are YAML.

    Raises:
        ConfigError: The file cannot be read, or names every key that is wrong.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", got=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not usable YAML", got=str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a configuration", expected="keys and values")
    for override in overrides:
        _apply_override(content, override)
    content.setdefault("name", path.stem)
    content.setdefault("output", f"runs/{content['name']}")
    return parse_config(content, folder=path.absolute().parent, source=str(path))


def parse_config(
    content: Mapping[str, Any], *, folder: Path | None = None, source: str = "the configuration"
) -> SearchConfig:
    """Check a configuration that was read already.

    Args:
        content: Keys and values.
        folder: What relative paths are relative to; None leaves them as they are.
        source: For error messages.

    Raises:
        ConfigError: Names every key that is wrong.
    """
    try:
        config = SearchConfig.model_validate(dict(content), context={"folder": folder})
    except ValidationError as error:
        problems = [_problem(entry) for entry in error.errors()]
        raise ConfigError(f"{source} is wrong: {'; '.join(problems)}") from error
    if folder is not None and isinstance(config.chain, ChainConfig):
        from ztom.blending.chain import anchored

        config = config.model_copy(update={"chain": anchored(config.chain, folder)})
    return config


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML allows a key twice and the last one wins; here that is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip("."):
        raise ConfigError("an override is malformed", got=override, expected="key=value")
    try:
        value = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {key} is not YAML", got=text) from error
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        place = _enter(place, parent, key)
    if isinstance(place, list):
        place[_position(place, last, key)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"{key} goes into a value that has no keys", got=place)


def _enter(place: Any, key: str, whole: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, key, whole)]
    if not isinstance(place, dict):
        raise ConfigError(f"{whole} goes into a value that has no keys", got=place)
    if place.get(key) is None:
        place[key] = {}
    return place[key]


def _position(place: list[Any], key: str, whole: str) -> int:
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(
            f"{whole} names no entry of the list", got=key, expected=f"0 to {len(place) - 1}"
        )
    return int(key)


def _problem(entry: Mapping[str, Any]) -> str:
    """One line about one wrong key."""
    parts = [p for p in entry["loc"] if not (isinstance(p, str) and _is_union_tag(p))]
    key = ".".join(map(str, parts)) or "the whole"
    if entry["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(parts[-1]), list(_known_keys()), n=1)
        return f"{key}: no such key" + (f" (did you mean {close[0]}?)" if close else "")
    if entry["type"] == "missing":
        return f"{key}: missing"
    given = entry.get("input")
    shown = "" if isinstance(given, (dict, list)) else f", got {str(given)[:80]!r}"
    return f"{key}: {entry['msg'].removeprefix('Value error, ')}{shown}"


def _is_union_tag(part: str) -> bool:
    """Pydantic puts the tried type of a union into the location of an error."""
    return part.startswith(("function-after", "tuple[", "constrained-")) or part in (
        "ChainConfig",
        "bool",
        "literal['STORE_AND_RETURN']",
    )


def _known_keys() -> Iterator[str]:
    models: list[Any] = [SearchConfig, Guardrail, Budget, SamplerConfig, EngineConfig]
    for model in (*models, GenerationConfig, ErrorTerm, ChainConfig):
        yield from model.model_fields


SAMPLERS = get_args(SamplerConfig.model_fields["name"].annotation)
