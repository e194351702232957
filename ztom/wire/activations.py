"""Analyses of what goes on inside a model, which are not answered yet; their requests are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ztom.wire import examples
from ztom.wire.base import TolerantRequest
from ztom.wire.examples import example
from ztom.wire.fields import Id, JsonDict, Name, Names, from_comma_text

_FILE = "(the bytes of a file with one stimulus)"
_STEP = {"projectId": examples.PROJECT, "fileId": examples.FILE}
_LAYERS = {"layerNames": ["model.layers.1.mlp.down_proj"]}
_BATCH = {"stimulusPaths": ["/data/prompt_00.json", "/data/prompt_01.json"], "batchSize": 2}
#: Numbers that clients write as text.
NumberText = Annotated[
    float,
    BeforeValidator(lambda value: value, json_schema_input_type=float | str),
    Field(ge=0, allow_inf_nan=False),
]
Paths = Annotated[
    tuple[str, ...], BeforeValidator(from_comma_text), Field(min_length=1, max_length=1000)
]


class Comparative(TolerantRequest):
    """A step whose activations are compared with those before it; no layers mean all."""

    model_config = example(**_STEP, **_LAYERS, file=_FILE)

    project_id: Id
    file_id: Id
    layer_names: Names | None = None
    inference_config_json: JsonDict = Field(default_factory=dict)
    batch_size: int | None = Field(default=None, ge=1)


class ComparativeBatch(Comparative):
    """The same on several stimuli."""

    model_config = example(**_STEP, **_LAYERS, **_BATCH)

    stimulus_paths: Paths


class Contribution(Comparative):
    """A step whose share in the activations is to be told."""

    model_config = example(**_STEP, **_LAYERS, comparisonType="CHOSEN", file=_FILE)

    comparison_type: Literal["CHOSEN", "LATEST"] = "CHOSEN"


class ContributionBatch(Contribution):
    """The same on several stimuli; activations that change by less count as unchanged."""

    model_config = example(
        **_STEP,
        **_LAYERS,
        **_BATCH,
        comparisonType="CHOSEN",
        unchangedActivationThreshold="0.0",
    )

    stimulus_paths: Paths
    unchanged_activation_threshold: NumberText = 0.0


class CorrelationBatch(ComparativeBatch):
    """A step whose layers are correlated with the output."""


class Experts(Comparative):
    """Layers whose experts, or their router, are looked at; ``numExperts`` is the top so many."""

    model_config = example(**_STEP, **_LAYERS, analysisType="EXPERT", numExperts=2, file=_FILE)

    layer_names: Annotated[tuple[Name, ...], BeforeValidator(from_comma_text), Field(min_length=1)]
    analysis_type: Literal["EXPERT", "ROUTER"]
    num_experts: int | None = Field(default=None, ge=1)


class ExpertsBatch(Experts):
    """The same on several stimuli."""

    model_config = example(**_STEP, **_LAYERS, **_BATCH, analysisType="ROUTER")

    stimulus_paths: Paths
