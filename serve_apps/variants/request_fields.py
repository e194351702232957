"""Fields of OpenAI's requests: which are honoured, and which values ask for nothing.

Clients send every field that their library knows, with ``null`` or with its default. Both count as
absent. Anything else in a field that is not honoured is refused by name: no option is silently
without effect, and what the engine's own request classes gain with a version is not public by
itself. A test goes through every field of the openai client's types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["chat", "completion", "embedding"]

#: Said by the client about itself or its bill; it changes no answer.
ABOUT_THE_CALLER = frozenset(
    {"user", "metadata", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
)
_OPENAI_FIELDS = frozenset(
    {"model", "stream", "stream_options", "n", "stop", "seed", "temperature", "top_p", "max_tokens"}
    | {"frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "response_format"}
)
_VLLM_FIELDS = frozenset(
    {"top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids"}
    | {"include_stop_str_in_output", "skip_special_tokens", "add_special_tokens"}
    | {"return_token_ids"}
)
FIELDS: Mapping[Kind, frozenset[str]] = {
    "chat": _OPENAI_FIELDS
    | _VLLM_FIELDS
    | {"messages", "max_completion_tokens", "top_logprobs"}
    | {"tools", "tool_choice", "parallel_tool_calls"}
    | {"add_generation_prompt", "continue_final_message", "chat_template_kwargs"},
    "completion": _OPENAI_FIELDS | _VLLM_FIELDS | {"prompt", "echo"},
    "embedding": frozenset({"model", "input", "encoding_format", "dimensions"}),
}
#: Values beside null of fields that are not honoured, and of those that mean nothing alone, which
#: ask for nothing. Lists, because what a client sends is compared and need not be hashable.
NEUTRAL: Mapping[Kind, Mapping[str, list[Any]]] = {
    "chat": {
        "audio": [],
        "function_call": ["none", "auto"],
        "functions": [[]],
        "modalities": [["text"]],
        "moderation": [],
        "prediction": [],
        "reasoning_effort": ["none"],
        "service_tier": ["auto", "default"],
        "store": [False],
        "tools": [[]],
        "verbosity": ["medium"],
        "web_search_options": [],
        "stop": [[]],
        "logit_bias": [{}],
    },
    "completion": {"best_of": [1], "suffix": [""], "stop": [[]], "logit_bias": [{}]},
    "embedding": {"stream": [False]},
}
#: What says something about tools, and nothing without any.
_OF_TOOLS = ("tool_choice", "parallel_tool_calls")


def without_neutral(kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the fields that ask for nothing."""
    neutral = NEUTRAL[kind]
    given = {
        key: value
        for key, value in body.items()
        if value is not None and not _is_among(value, neutral.get(key, []))
    }
    if "tools" not in given and given.get("tool_choice", "none") in ("none", "auto"):
        given = {key: value for key, value in given.items() if key not in _OF_TOOLS}
    return given


def _is_among(value: object, values: list[Any]) -> bool:
    """Whether a value is one of some, types included: 1 is not true."""
    return any(type(value) is type(other) and value == other for other in values)
