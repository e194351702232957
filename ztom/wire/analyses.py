"""Edits and analyses: factors set by hand, training removed, checkpoints compared and asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ztom.wire import examples
from ztom.wire.base import TolerantRequest, Warnings, WireAnswer
from ztom.wire.differences import AllowedDifferences
from ztom.wire.examples import example
from ztom.wire.factor_groups import GroupRule
from ztom.wire.fields import (
    Finite,
    FormatName,
    Id,
    JsonDict,
    Names,
    Numbers,
    from_comma_text,
)


class Edit(AllowedDifferences, TolerantRequest):
    """Steps whose training is to be removed."""

    model_config = example(projectId=examples.PROJECT, fileIds=[examples.FILE])

    project_id: Id
    file_ids: Annotated[tuple[Id, ...], BeforeValidator(from_comma_text)] = Field(min_length=1)


class Metatune(Edit):
    """Factors for steps: one per file, or with groups one per file and group, file by file."""

    model_config = example(
        projectId=examples.PROJECT, fileIds=[examples.FILE], scalingFactors=[0.25]
    )

    scaling_factors: Annotated[tuple[Finite, ...], BeforeValidator(from_comma_text)] = Field(
        min_length=1
    )
    factor_groups: GroupRule | None = None


class StaticAnalysis(AllowedDifferences, TolerantRequest):
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


class Inference(AllowedDifferences, TolerantRequest):
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


class Sensitivity(AllowedDifferences, TolerantRequest):
    """A step of the chain to be scaled; the latest checkpoint is asked with and without that.

    With groups of tensors, ``scalingFactors`` takes the place of ``scalingFactor``: the factors of
    all steps and groups, a flat list as a search with these groups answers with.
    """

    model_config = example(
        projectId=examples.PROJECT,
        fileId=examples.FILE,
        scalingFactor=-1.0,
        file="(the bytes of a JSONL file with a stimulus a line)",
    )

    project_id: Id
    file_id: Id
    scaling_factor: Finite | None = None
    scaling_factors: Numbers | None = None
    factor_groups: GroupRule | None = None
    inference_config_json: JsonDict = Field(default_factory=dict)
    batch_size: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _factors_fit_groups(self) -> Self:
        if (self.scaling_factor is None) == (self.scaling_factors is None):
            raise ValueError("give scalingFactor, or scalingFactors with factorGroups")
        if (self.scaling_factors is None) != (self.factor_groups is None):
            raise ValueError("scalingFactors and factorGroups belong together: give both")
        return self


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
_HISTOGRAM = {"bin_edges": [-0.001, 0.0, 0.001], "bin_counts": [61, 67]}
_DIFFERENCES: dict[str, Any] = {
    "weight_summary_score": 0.00051681,
    "bias_summary_score": 0.0,
    "absolute_weight_difference": {"model.layers.0.mlp.up_proj.weight": [0.00052, -0.00049]},
    "absolute_bias_difference": {},
    "parameter_scores": {"model.layers.0.mlp.up_proj.weight": 0.00051681},
    "parameter_histograms": {"model.layers.0.mlp.up_proj.weight": _HISTOGRAM},
}


class Histogram(WireAnswer):
    """How values are distributed.

    Attributes:
        bin_edges: Edges of the bins, one more than there are bins, ascending.
        bin_counts: Number of values in each bin; the last one holds its upper edge too.
    """

    model_config = _SNAKE_CASE

    bin_edges: tuple[float, ...]
    bin_counts: tuple[int, ...]


class ParameterDifferences(WireAnswer):
    """How far a checkpoint is from another: the chosen one minus the other.

    Attributes:
        weight_summary_score: Mean absolute difference over every element of the chosen weights; 0
            where there are none.
        bias_summary_score: The same over biases.
        absolute_weight_difference: Signed mean difference of each row (over all but the first
            dimension), by tensor.
        absolute_bias_difference: Signed difference of each element, by tensor.
        parameter_scores: Mean absolute difference of each of these tensors.
        parameter_histograms: Distribution of the signed differences of each of these tensors.
    """

    model_config = _SNAKE_CASE | example(**_DIFFERENCES)

    weight_summary_score: float
    bias_summary_score: float
    absolute_weight_difference: dict[str, tuple[float, ...]]
    absolute_bias_difference: dict[str, tuple[float, ...]]
    parameter_scores: dict[str, float]
    parameter_histograms: dict[str, Histogram]


class StaticAnswer(ParameterDifferences):
    """How far a checkpoint is from another, at the top and in ``result``.

    Attributes:
        request_id: Names the request in the project's results.
        result: The same fields once more.
        warnings: What was left aside of the request.
    """

    model_config = _SNAKE_CASE | example(
        **_DIFFERENCES, requestId=examples.REQUEST, result=_DIFFERENCES
    )

    request_id: str = Field(alias="requestId")
    result: ParameterDifferences
    warnings: Warnings = ()


class GeneratedTurn(WireAnswer):
    """A turn of a conversation.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: The text of the turn.
    """

    role: str
    content: str


class Candidate(WireAnswer):
    """One answer to a stimulus.

    Attributes:
        generated_text: All turns: those of the prompt, and the model's as the last.
    """

    model_config = _SNAKE_CASE

    generated_text: tuple[GeneratedTurn, ...]


#: What a model answers to one stimulus: its candidates, or a classifier's row of logits.
ModelOutput = tuple[Candidate, ...] | tuple[float, ...]
#: The same in short: the text alone, or the row.
ShortOutput = str | tuple[float, ...]

_QUESTION = {"role": "user", "content": "Where is my parcel?"}


def _outputs_example(text: str) -> list[Any]:
    return [[{"generated_text": [_QUESTION, {"role": "assistant", "content": text}]}]]


_INFERENCE: dict[str, Any] = {
    "output": _outputs_example("Your parcel arrives on Monday."),
    "model_output": ["Your parcel arrives on Monday."],
}
_SENSITIVITY: dict[str, Any] = _INFERENCE | {
    "attenuated_output": _outputs_example("The parcel is late."),
    "attenuated_model_output": ["The parcel is late."],
}


class InferenceResult(WireAnswer):
    """What a model answers.

    Attributes:
        output: Answer to each stimulus, in the order of the stimuli: a list of candidates, or a
            classifier's row of logits.
        model_output: The same in short: the text of each, or the row.
    """

    model_config = _SNAKE_CASE | example(**_INFERENCE)

    output: tuple[ModelOutput, ...]
    model_output: tuple[ShortOutput, ...]


class InferenceAnswer(InferenceResult):
    """What a model answers, at the top and in ``result``.

    Attributes:
        request_id: Names the request in the project's results.
        result: The same fields once more.
        warnings: What was left aside of the request.
    """

    model_config = _SNAKE_CASE | example(
        **_INFERENCE, requestId=examples.REQUEST, result=_INFERENCE
    )

    request_id: str = Field(alias="requestId")
    result: InferenceResult
    warnings: Warnings = ()


class SensitivityResult(InferenceResult):
    """What the latest checkpoint answers, and what it does with one step scaled.

    Attributes:
        attenuated_output: Answer to each stimulus with the step scaled.
        attenuated_model_output: The same in short.
    """

    model_config = example(**_SENSITIVITY)

    attenuated_output: tuple[ModelOutput, ...]
    attenuated_model_output: tuple[ShortOutput, ...]


class SensitivityAnswer(SensitivityResult):
    """The same, at the top and in ``result``.

    Attributes:
        request_id: Names the request in the project's results.
        result: The same fields once more.
        warnings: What was left aside of the request.
    """

    model_config = example(**_SENSITIVITY, requestId=examples.REQUEST, result=_SENSITIVITY)

    request_id: str = Field(alias="requestId")
    result: SensitivityResult
    warnings: Warnings = ()
