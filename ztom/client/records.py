"""What a server answers, as typed values; what is not known here is left aside."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Answer(BaseModel):
    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, validate_by_name=True, extra="ignore"
    )


class Checkpoint(_Answer):
    """A file of a project.

    Attributes:
        total_weight_contribution: Mean absolute change of the weights against the checkpoint before
            it; None until computed, and for the first.
        total_bias_contribution: The same for biases.
        part: ``BASE``, ``ITERATION`` or ``MASTERED``.
        status: ``PENDING`` until it was looked at, then ``VALID`` or ``INVALID``.
        sha256: Of its content, once it was looked at.
    """

    id: str
    file_name: str
    tag: str | None = None
    part: str
    status: str
    message: str | None = None
    size: int | None = None
    sha256: str | None = None
    total_weight_contribution: float | None = None
    total_bias_contribution: float | None = None


class Project(_Answer):
    """A project; `files` are in the order of the chain, without the base model."""

    id: str
    name: str
    description: str = ""
    base_model: Checkpoint | None = None
    files: tuple[Checkpoint, ...] = Field(validation_alias=AliasChoices("fileList", "files"))


class Trial(_Answer):
    """One evaluation of a search."""

    number: int
    kind: str
    factors: tuple[float, ...]
    error: float | None = None
    reason: str | None = None
    seconds: float | None = None


class SearchAnswer(BaseModel):
    """What a search came to.

    Attributes:
        request_id: For `Client.result`.
        checkpoint_id: The mastered checkpoint in the project; None where none was released.
        holdout: Errors and verdict on data that the search never saw.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    request_id: str
    checkpoint_id: str | None = None
    trained_model_error: float
    optimized_model_error: float
    optimized_scaling_factors: tuple[float, ...]
    number_of_inferences: int
    holdout: dict[str, Any] | None = None

    @property
    def verdict(self) -> str | None:
        """``improved``, ``no improvement`` or ``inconclusive``."""
        return None if self.holdout is None else str(self.holdout["verdict"]["outcome"])
