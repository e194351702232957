"""OpenAI's routes as the document describes them, and feedback on the answers.

What a request may hold besides is checked where it is answered (`serve_apps.variants.wire`); an
answer is passed on as the engine gave it. Names are OpenAI's: snake case.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.wire import examples
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import Finite, Text

#: Labels that say how wrong an answer was, from 0 to 1; others need a score.
_LABELS = {"good": 0.0, "correct": 0.0, "up": 0.0, "bad": 1.0, "wrong": 1.0, "down": 1.0}
_VARIANT = f"support@{examples.DIGEST[:12]}"


class _OpenAI(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class ChatCompletionRequest(_OpenAI):
    """OpenAI's request for a chat completion, with vLLM's sampling options.

    Attributes:
        model: An alias, ``alias@digest`` or a variant's id.
    """

    model_config = example(
        model="support", messages=[{"role": "user", "content": "Where is my parcel?"}]
    )

    model: str
    messages: tuple[dict[str, Any], ...]


class CompletionRequest(_OpenAI):
    """OpenAI's request for a completion, with vLLM's sampling options.

    Attributes:
        model: An alias, ``alias@digest`` or a variant's id.
    """

    model_config = example(model="support", prompt="Where is my parcel?", max_tokens=32)

    model: str
    prompt: str | tuple[Any, ...]


class EmbeddingRequest(_OpenAI):
    """OpenAI's request for embeddings.

    Attributes:
        model: An alias, ``alias@digest`` or a variant's id.
        input: A text, a list of texts, token ids, or a list of lists of token ids.
    """

    model_config = example(model="search", input=["Where is my parcel?"])

    model: str
    input: str | tuple[Any, ...]


class TokenUsage(_OpenAI):
    """Numbers of tokens."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = None


_COMPLETION: dict[str, Any] = {
    "id": "cmpl-5f8e2c1d",
    "object": "text_completion",
    "created": 1_772_443_800,
    "model": _VARIANT,
    "choices": [{"index": 0, "text": " It arrives on Monday.", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 6, "completion_tokens": 6, "total_tokens": 12},
}


class TextCompletion(_OpenAI):
    """OpenAI's completion.

    Attributes:
        id: Id that feedback names the answer by.
        created: Seconds since 1970.
        model: Id of the variant that answered.
    """

    model_config = example(**_COMPLETION)

    id: str
    object: str
    created: int
    model: str
    choices: tuple[dict[str, Any], ...]
    usage: TokenUsage | None = None


class ChatCompletion(TextCompletion):
    """OpenAI's chat completion; with ``stream`` it comes as server-sent events."""

    model_config = example(
        **_COMPLETION
        | {
            "id": "chatcmpl-5f8e2c1d",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "It arrives on Monday."},
                    "finish_reason": "stop",
                }
            ],
        }
    )


class EmbeddingList(_OpenAI):
    """OpenAI's embeddings, in the order of the inputs.

    Attributes:
        model: Id of the variant that answered.
        data: An ``index`` and an ``embedding`` each: numbers, or the base64 of float32.
    """

    model_config = example(
        object="list",
        model=_VARIANT,
        data=[{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
        usage={"prompt_tokens": 6, "total_tokens": 6},
    )

    object: Literal["list"] = "list"
    model: str
    data: tuple[dict[str, Any], ...]
    usage: TokenUsage


_CARD: dict[str, Any] = {
    "id": "support",
    "object": "model",
    "created": 0,
    "owned_by": "ztom",
    "digest": examples.DIGEST,
}


class ModelCard(_OpenAI):
    """A model that can be asked: an alias, or a variant.

    Attributes:
        id: Name that a request writes in ``model``.
        digest: Digest of the variant; of an alias, that of its stable one.
    """

    model_config = example(**_CARD)

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "ztom"
    digest: str


class ModelList(_OpenAI):
    """The models that the caller can ask."""

    model_config = example(object="list", data=[_CARD])

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


class OpenAIProblemDetail(_OpenAI):
    """What is wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(_OpenAI):
    """Why a request was refused or failed, in OpenAI's form."""

    model_config = example(
        error={
            "message": "The model 'suport' does not exist.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    )

    error: OpenAIProblemDetail


class Feedback(WireRequest):
    """A judgement of an answer: a score from 0 (wrong) to 1 (right), or a label.

    Attributes:
        response_id: The answer's ``id``.
    """

    model_config = example(responseId="chatcmpl-5f8e2c1d", score=1.0)

    response_id: str = Field(max_length=200)
    score: Finite | None = Field(default=None, ge=0, le=1)
    label: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.score is None and self.label not in _LABELS:
            raise ValueError(f"give a score from 0 to 1, or a label: {', '.join(_LABELS)}")
        return self

    @property
    def error(self) -> float:
        """Error of the answer, from 0 (right) to 1 (wrong)."""
        return _LABELS[self.label or ""] if self.score is None else 1.0 - self.score


class FeedbackReceipt(WireAnswer):
    """A judgement that was written down.

    Attributes:
        response_id: Id of the answer.
        variant: Digest of the variant that gave the answer.
        role: Role of the variant that answered: ``stable``, ``canary``, ``rule`` or ``pinned``.
    """

    model_config = example(responseId="chatcmpl-5f8e2c1d", variant=examples.DIGEST, role="canary")

    response_id: str
    variant: str
    role: str
