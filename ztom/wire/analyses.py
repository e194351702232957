"""Edits and analyses: factors set by hand, training removed, checkpoints compared and asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from ztom.wire import examples
from ztom.wire.base import TolerantRequest, Warnings, WireAnswer
from ztom.wire.examples import example
from ztom.wire.fields import Finite, FormatName, Id, JsonDict, Names, from_comma_text


class Edit(TolerantRequest):
    """Steps whose training is to be removed."""

    model_config = example(projectId=examples.PROJECT, fileIds=[examples.FILE])

    project_id: Id
    file_ids: Annotated[tuple[Id, ...], BeforeValidator(from_comma_text)] = Field(min_length=1)


class Metatune(Edit):
    """Factors for steps."""

    model_config = example(
        projectId=examples.PROJECT, fileIds=[examples.FILE], scalingFactors=[0.25]
    )

    scaling_factors: Annotated[tuple[Finite, ...], BeforeValidator(from_comma_text)] = Field(
        min_length=1
    )


class StaticAnalysis(TolerantRequest):
    """Two checkpoints to be compared, tensor by tensor.

    ``CHOSEN`` compares the file with the one before it in the chain, ``LATEST`` with the last one.
    """

    model_config = example(
        projectId=examples.PROJECT, fileId=examples.FILE, comparisonType="CHOSEN"
    )

    project_id: Id
    file_id: Id
    comparison_type: Literal["CHOSEN", "LATEST"] = "CHOSEN"
    weight_names: Names | None = None
    bias_names: Names | None = None


class Inference(TolerantRequest):
    """A checkpoint under the operator's roots, to be asked."""

    model_config = example(
        modelPath="/models/support/epoch-2",
        format="HF_TEXT_GENERATION",
        inferenceConfigJson='{"max_new_tokens": 64}',
        file="(the bytes of a JSONL file with a stimulus a line)",
    )

    model_path: str = Field(min_length=1, max_length=2000)
    base_model_path: str | None = Field(default=None, max_length=2000)
    format: FormatName = "HF_TEXT_GENERATION"
    inference_config_json: JsonDict = Field(default_factory=dict)
    batch_size: int | None = Field(default=None, ge=1)


class InferenceBatch(Inference):
    """The same on stimuli under the operator's roots."""

    model_config = example(
        modelPath="/models/support/epoch-2",
        stimulusPaths=["/data/prompts.jsonl"],
        batchSize=8,
        inferenceConfigJson={"max_new_tokens": 64},
    )

    stimulus_paths: tuple[str, ...] = Field(min_length=1, max_length=1000)


class Sensitivity(TolerantRequest):
    """A step of the chain to be scaled; the latest checkpoint is asked with and without that."""

    model_config = example(
        projectId=examples.PROJECT,
        fileId=examples.FILE,
        scalingFactor=-1.0,
        file="(the bytes of a JSONL file with a stimulus a line)",
    )

    project_id: Id
    file_id: Id
    scaling_factor: Finite
    inference_config_json: JsonDict = Field(default_factory=dict)
    batch_size: int | None = Field(default=None, ge=1)


class SensitivityBatch(Sensitivity):
    """The same on stimuli under the operator's roots."""

    model_config = example(
        projectId=examples.PROJECT,
        fileId=examples.FILE,
        scalingFactor=-1.0,
        stimulusPaths=["/data/prompts.jsonl"],
        batchSize=8,
    )

    stimulus_paths: tuple[str, ...] = Field(min_length=1, max_length=1000)


#: Answers of the original product spell their fields in snake case.
_SNAKE_CASE = ConfigDict(alias_generator=None)


class ParameterDifferences(WireAnswer):
    """How far a checkpoint is from another.

    Attributes:
        weight_summary_score: Mean absolute difference over all weights; None where there are none.
        bias_summary_score: The same over biases.
        absolute_weight_difference: Mean absolute difference of each row (over all but the first
            dimension), by tensor.
        absolute_bias_difference: The same of biases.
        warnings: What was left aside of the request.
    """

    model_config = _SNAKE_CASE | example(
        weight_summary_score=0.00051681,
        bias_summary_score=None,
        absolute_weight_difference={"model.layers.0.mlp.up_proj.weight": [0.00052, 0.00049]},
        absolute_bias_difference={},
    )

    weight_summary_score: float | None
    bias_summary_score: float | None
    absolute_weight_difference: dict[str, tuple[float, ...]]
    absolute_bias_difference: dict[str, tuple[float, ...]]
    warnings: Warnings = ()


class InferenceAnswer(WireAnswer):
    """What a model answers.

    Attributes:
        model_output: A text per stimulus, in the order of the stimuli.
        request_id: Names the request in the project's results.
        warnings: What was left aside of the request.
    """

    model_config = _SNAKE_CASE | example(
        model_output=["Your parcel arrives on Monday."], requestId=examples.REQUEST
    )

    model_output: tuple[str, ...]
    request_id: str = Field(alias="requestId")
    warnings: Warnings = ()


class SensitivityAnswer(InferenceAnswer):
    """What the latest checkpoint answers, and what it does with one step scaled.

    Attributes:
        attenuated_model_output: A text per stimulus, with the step scaled.
    """

    model_config = example(
        model_output=["Your parcel arrives on Monday."],
        attenuated_model_output=["The parcel is late."],
        requestId=examples.REQUEST,
    )

    attenuated_model_output: tuple[str, ...]
