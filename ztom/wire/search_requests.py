"""Requests for a search, in the original's form and in our own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ztom.engines.config import EngineConfig
from ztom.scoring.build import ErrorTerm
from ztom.search.config import (
    BatchSize,
    DetailedOutput,
    Evaluations,
    ScalingFactorLimit,
    Seed,
    Tolerance,
)
from ztom.search.samplers.protocol import SamplerName
from ztom.wire import examples
from ztom.wire.base import TolerantRequest, WireRequest
from ztom.wire.differences import AllowedDifferences
from ztom.wire.examples import example
from ztom.wire.factor_groups import GroupRule
from ztom.wire.fields import Id, JsonDict, Name


def _error_terms(value: Any) -> Any:
    terms = value if isinstance(value, list | tuple) else [value]
    return [{"function": term} if isinstance(term, str) else term for term in terms]


ErrorTerms = Annotated[tuple[ErrorTerm, ...], BeforeValidator(_error_terms)]


class SearchFields(AllowedDifferences):
    """What a search can be asked for, in either form of the call.

    The server makes a `SearchConfig` of it, whose limits these are.
    """

    project_id: Id
    scaling_factor_limit: ScalingFactorLimit
    stimulus_paths: tuple[str, ...] = Field(min_length=1, max_length=1000)
    expected_output_path: str | None = Field(default=None, max_length=2000)
    batch_size: BatchSize | None = None
    inference_config_json: JsonDict = Field(default_factory=dict)
    detailed_output: DetailedOutput | None = None
    error: ErrorTerms = Field(
        default=(ErrorTerm(function="sentence_similarity"),), min_length=1, max_length=20
    )
    max_evaluations: Annotated[Evaluations, Field(le=10_000)] = 50
    tolerance: Tolerance = 0.01
    holdout_path: str | None = Field(default=None, max_length=2000)
    holdout_expected_output_path: str | None = Field(default=None, max_length=2000)
    suite_paths: tuple[str, ...] = Field(default=(), max_length=100)
    labels: tuple[Name, ...] = ()
    sampler: SamplerName = "gp"
    seed: Seed = 0
    insist: bool = False
    engine: EngineConfig | None = None
    factor_groups: GroupRule | None = None


class Search(SearchFields, TolerantRequest):
    """The original call, which answers when the search is over."""

    model_config = example(
        projectId=examples.PROJECT,
        scalingFactorLimit=0.5,
        stimulusPaths=["/data/prompts.jsonl"],
        expectedOutputPath="/data/replies.txt",
        batchSize=8,
        inferenceConfigJson={"max_new_tokens": 64},
        detailedOutput="STORE_AND_RETURN",
    )


class NewSearch(SearchFields, WireRequest):
    """Our asynchronous form of it."""

    model_config = example(
        projectId=examples.PROJECT,
        scalingFactorLimit=0.5,
        stimulusPaths=[f"data:{examples.DIGEST}.jsonl"],
        error=[{"function": "cross_entropy"}],
        maxEvaluations=50,
    )
