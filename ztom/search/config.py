"""The configuration of a search: one typed, documented model.

Reading it from a file is `ztom.search.config_files`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)

from ztom.blending.chain_file import ChainConfig
from ztom.blending.groups import FactorGroups, division_key
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import GenerationConfig
from ztom.errors import ConfigError
from ztom.io.places import (
    LEDGER_FIX,
    StoreAddress,
    is_store_address,
    parse_place,
    parse_store_address,
)
from ztom.scoring.build import ErrorTerm, check_error
from ztom.search.gradients import check_gradients
from ztom.search.racing import RacingConfig
from ztom.search.samplers.protocol import SamplerConfig, check_dimensions
from ztom.search.trackers.config import TrackerConfig, needs_folder
from ztom.stimuli.hub_files import HUB_PREFIX

#: Keys that may differ between a study and its resume: they do not decide which factors are tried.
_FREE_ON_RESUME = (
    "name",
    "output",
    "ledger",
    "detailed_output",
    "generation_deadline_s",
    "engine_start_deadline_s",
    "trial_retries",
    "variant",
    "insist",
    "suites",
    "trackers",
)


def _from_file_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    return path if folder is None else (folder / path).absolute()


ConfigPath = Annotated[Path, AfterValidator(_from_file_folder)]


def _data_place(value: Any, info: ValidationInfo) -> Any:
    """An address of a store or of the Hub as it is, a path from the file's folder."""
    if not isinstance(value, str | Path) or str(value).startswith(HUB_PREFIX):
        return value
    if is_store_address(value):
        return _store_text(value)
    return _from_file_folder(Path(value), info)


def _store_text(value: str | Path) -> str:
    try:
        return str(parse_store_address(value))
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _suite_place(value: Any, info: ValidationInfo) -> Any:
    """An address of a store as it is, a folder from the file's folder."""
    if not isinstance(value, str | Path):
        return value
    return _store_text(value) if is_store_address(value) else _from_file_folder(Path(value), info)


#: A folder of a suite, or of suites: a path, or an address of a store.
SuitePlace = Annotated[Path | str, BeforeValidator(_suite_place)]
#: A file of data: a path, ``gs://`` or ``s3://``, or ``hf://datasets/org/name/file``.
DataPlace = Annotated[Path | str, BeforeValidator(_data_place)]
#: Limits of single keys, for whoever takes a search in another form (over HTTP).
ScalingFactorLimit = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
BatchSize = Annotated[int, Field(ge=1)]
Evaluations = Annotated[int, Field(ge=1, le=100_000)]
Tolerance = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
DetailedOutput = bool | Literal["STORE_AND_RETURN"]


def _output_place(value: Any, info: ValidationInfo) -> Any:
    """An address of a store as it is, a path from the file's folder.

    Checked as it was written: with the file's folder before it, an address looks like a path.
    """
    if not isinstance(value, str | Path | StoreAddress):
        return value
    try:
        place = parse_place(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return place if isinstance(place, StoreAddress) else _from_file_folder(place, info)


#: A folder of this machine, or of a store.
OutputPlace = Annotated[
    Path | StoreAddress,
    BeforeValidator(_output_place),
    PlainSerializer(str, return_type=str, when_used="json"),
]
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
        spec = data["error"]
        terms = spec if isinstance(spec, list | tuple) else [spec]
        terms = [{"function": term} if isinstance(term, str) else term for term in terms]
        return {**data, "error": terms}
    return data


class StimuliConfig(_Strict):
    """A data set: what is asked, what is right, and what is kept aside for the proof.

    Attributes:
        stimuli: File of what the model is asked during the search, here or on the Hub.
        expected_outputs: File of the expected outputs, when they are not in the same one.
        labels: Class labels, for error functions over classes.
        holdout: Stimuli for the proof, which the search never sees; None splits them off.
        holdout_expected_outputs: Expected outputs of the holdout file.
        holdout_fraction: The share that is split off when there is no holdout file.
        error: The error function, lower is better.
    """

    stimuli: DataPlace
    expected_outputs: DataPlace | None = None
    labels: tuple[str, ...] = ()
    holdout: DataPlace | None = None
    holdout_expected_outputs: DataPlace | None = None
    holdout_fraction: Fraction = 0.25
    error: ErrorList

    _terms = model_validator(mode="before")(_error_terms)

    @model_validator(mode="after")
    def _error_and_holdout_fit(self) -> Self:
        check_error(self.error, labels=self.labels)
        if self.holdout is None and self.holdout_expected_outputs is not None:
            raise ValueError(
                "holdout_expected_outputs is given without holdout: give both or neither"
            )
        return self


class Guardrail(StimuliConfig):
    """A further data set whose error may not rise by more than a stated amount.

    Attributes:
        name: Name in reports.
        max_increase: Largest rise of the error above the trained model's, in units of the error.
    """

    name: str = Field(min_length=1, max_length=100)
    max_increase: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Budget(_Strict):
    """The end of a search.

    Attributes:
        evaluations: Start-up and search trials. Two evaluations of the trained model and up to
            three that confirm the answer come on top. With the sampler ``gradient`` an error with
            all its derivatives counts as one.
        tolerance: Share of the gain; the search ends when less than it is left to gain, by the
            posterior of the sampler ``gp``. 0 goes on until the budget is spent.
        seconds: Seconds for all trials; None for no limit.
    """

    evaluations: Evaluations = 50
    tolerance: Tolerance = 0.01
    seconds: float | None = Field(default=None, gt=0, le=31_536_000, allow_inf_nan=False)


class FactorOptions(_Strict):
    """What a scaling factor belongs to.

    Attributes:
        groups: Groups of tensors that have factors of their own in every step; None for one factor
            a step.
    """

    groups: FactorGroups | None = None


class VariantOptions(_Strict):
    """How the mastered variant is written, into ``variant`` in the output folder.

    Attributes:
        form: Form of the weights: ``dense`` in full, or one ``adapter`` (chains of adapters only).
        max_shard_gib: Largest safetensors shard, GiB.
        copy_to: Address, ``gs://`` or ``s3://``, that it is copied to as well.
        keep_unproven: Whether what the proof does not let out is kept as well, in ``unproven`` in
            the output folder.
    """

    form: Literal["dense", "adapter"] = "dense"
    max_shard_gib: float = Field(default=2.0, gt=0, le=64, allow_inf_nan=False)
    copy_to: str | None = Field(default=None, pattern=r"^(gs|s3|memory)://")
    keep_unproven: bool = False


class SearchConfig(StimuliConfig):
    """Everything about one search: the error over its own data set is made small.

    Attributes:
        name: Name of the study; a resume goes on with the newest study of this name.
        chain: A chain file, or the chain itself.
        max_search_stimuli: Number of stimuli to search on, chosen by the seed; None for all.
        guardrails: Data sets on which the model may not get worse.
        scaling_factor_limit: Limit of every factor, which lies between minus and plus this.
        lower_bound: Lower bound of each factor, instead of the limit; with groups also of each
            step.
        upper_bound: Upper bound of each factor, instead of the limit; with groups also of each
            step.
        factors: What a factor belongs to: a step, or a step and a group of tensors.
        batch_size: Number of stimuli per call of the engine; None hands over all at once.
        inference_config: Settings of generating text.
        detailed_output: Whether to keep the generated texts of every trial (true, or
            STORE_AND_RETURN).
        sampler: Sampler that proposes the factors, and its options.
        budget: Limits at which the search ends.
        engine: Engine that runs the model, and its options.
        seed: Seed that everything random is drawn from.
        generation_deadline_s: Seconds after which an engine that has not answered all stimuli is
            replaced and asked once more.
        engine_start_deadline_s: Seconds of loading the model after which it is tried once more.
        trial_retries: Number of times that a trial whose process died is run again.
        overlap_scoring: Whether an engine answers the next trial while one is scored: the sampler
            then proposes it without that one's error.
        racing: Rules by which a trial that is clearly worse than the best is stopped.
        output: Folder for what the search writes, here or at a ``gs://`` or ``s3://`` address; the
            ledger then is a database that is given.
        suites: Suites, or folders of suites, that the gate asks about the written variant, with the
            trained model as the champion; nothing that does not pass is published.
        variant: Options of writing the mastered variant.
        insist: Whether to publish the variant whatever the proof says; that is recorded with it.
        ledger: File or SQLAlchemy address of the ledger; None puts it into the output folder.
        trackers: Trackers that show the trials as well: mlflow, wandb, tensorboard, optuna.
    """

    name: str = Field(default="search", min_length=1, max_length=200)
    chain: ConfigPath | ChainConfig
    max_search_stimuli: int | None = Field(default=None, ge=1)
    guardrails: tuple[Guardrail, ...] = ()
    scaling_factor_limit: ScalingFactorLimit = 0.1
    lower_bound: FiniteBounds | None = None
    upper_bound: FiniteBounds | None = None
    factors: FactorOptions = FactorOptions()
    batch_size: BatchSize | None = None
    inference_config: GenerationConfig = GenerationConfig()
    detailed_output: DetailedOutput = False
    sampler: SamplerConfig = SamplerConfig()
    budget: Budget = Budget()
    engine: EngineConfig = EngineConfig()
    seed: Seed = 0
    generation_deadline_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    engine_start_deadline_s: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    trial_retries: int = Field(default=1, ge=0, le=10)
    # left out where it is the default: digests of configurations stay what they were
    overlap_scoring: bool = Field(default=False, exclude_if=lambda value: value is False)
    racing: RacingConfig = Field(
        default=RacingConfig(), exclude_if=lambda value: value == RacingConfig()
    )
    output: OutputPlace = Path("runs/search")
    suites: tuple[SuitePlace, ...] = ()
    variant: VariantOptions = VariantOptions()
    insist: bool = False
    ledger: str | None = None
    trackers: tuple[TrackerConfig, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _sampler_by_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("sampler"), str):
            return {**data, "sampler": {"name": data["sampler"]}}
        return data

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if (self.lower_bound is None) != (self.upper_bound is None):
            raise ValueError("lower_bound and upper_bound belong together: give both or neither")
        if self.lower_bound is not None and "scaling_factor_limit" in self.model_fields_set:
            raise ValueError("give either scaling_factor_limit or the bounds, not both")
        for low, high in zip(self.lower_bound or (), self.upper_bound or (), strict=False):
            if low >= high:
                raise ValueError(f"lower_bound must be below upper_bound, got {low} and {high}")
        if len(self.lower_bound or ()) != len(self.upper_bound or ()):
            raise ValueError("lower_bound and upper_bound differ in length")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [guardrail.name for guardrail in self.guardrails]
        if len(set(names)) != len(names) or "search" in names:
            raise ValueError("guardrails need different names, and none may be called 'search'")
        return self

    @model_validator(mode="after")
    def _factors_fit_the_chain(self) -> Self:
        """A chain that is written out says how many factors there are; a file says it later."""
        if isinstance(self.chain, Path):
            return self
        factors = len(self.chain.checkpoints) - 1
        if self.factors.groups is not None:
            return self  # how many groups there are, the chain says when it is opened
        if self.lower_bound is not None and len(self.lower_bound) != factors:
            raise ValueError(
                f"the bounds are for {len(self.lower_bound)} factors and the chain has {factors}: "
                "give one lower and one upper bound for each step of the chain"
            )
        check_dimensions(self.sampler, factors)
        return self

    @model_validator(mode="after")
    def _ledger_has_a_place(self) -> Self:
        """A ledger is a database: a file of it cannot be in a store."""
        if self.ledger is not None and is_store_address(self.ledger):
            raise ValueError(f"ledger is an address of a store: {self.ledger}. {LEDGER_FIX}")
        if isinstance(self.output, StoreAddress) and self.ledger is None:
            raise ValueError(
                f"the output is an address ({self.output}) and the ledger would be a file in it: "
                f"give ledger as well. {LEDGER_FIX}"
            )
        return self

    @model_validator(mode="after")
    def _trackers_have_a_place(self) -> Self:
        names = [str(tracker.name) for tracker in self.trackers if needs_folder(tracker)]
        if isinstance(self.output, StoreAddress) and names:
            raise ValueError(
                f"the output is an address ({self.output}), where {', '.join(names)} cannot write: "
                "give each tracker an address of its own"
            )
        return self

    @model_validator(mode="after")
    def _gradients_can_be_taken(self) -> Self:
        if self.sampler.takes_gradients:
            rails = [(guardrail.name, guardrail) for guardrail in self.guardrails]
            check_gradients([("search", self), *rails], self.engine)
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
    grouping = division_key((kept.pop("factors", None) or {}).get("groups"))
    if grouping is not None:  # without groups the digest is what it was before there were any
        kept["factors"] = grouping
    terms = kept.get("error")
    if isinstance(terms, list | tuple):
        kept["error"] = [_without_rights(term) for term in terms]
    return kept


def _without_rights(term: object) -> object:
    """A term of the error without what its function may do, which changes no error."""
    if not isinstance(term, Mapping):
        return term
    return {key: value for key, value in term.items() if key not in ("network", "reads")}
