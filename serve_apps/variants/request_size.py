"""How much one request may ask of an engine: answers, tokens, and numbers that engines can take.

A request of a thousand prompts with a hundred answers each occupies an engine for minutes, and
costs its sender one line. Both products are bounded before anything is generated: by the gateway,
which knows the operator's limits, and by the replica, which also knows how long an answer without
``max_tokens`` may become.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from serve_apps.variants.request_fields import Kind

#: OpenAI's length of a completion that does not say one, tokens.
_DEFAULT_COMPLETION = 16
#: A text is taken for one token in so many bytes: before it is tokenised nobody knows better.
_BYTES_PER_TOKEN = 4
_MOST_STOPS, _LONGEST_STOP, _MOST_STOP_IDS = 64, 1_000, 1_024
_MOST_BIASES, _LARGEST_BIAS = 1_024, 100


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What the operator lets one request ask for.

    Attributes:
        answers: Most answers: prompts times ``n``.
        tokens: Most tokens: of all prompts, and of every answer at its longest.
    """

    answers: int = 256
    tokens: int = 2**20


#: Where the operator says nothing.
DEFAULT_LIMITS = RequestLimits()


class _Range(NamedTuple):
    low: float
    high: float


_COUNT = _Range(-1, 2**31 - 1)
#: What engines can compute with; what is sensible within is theirs to say.
_NUMBERS: Mapping[str, _Range] = {
    "temperature": _Range(0, 100),
    "top_p": _Range(0, 1),
    "min_p": _Range(0, 1),
    "frequency_penalty": _Range(-2, 2),
    "presence_penalty": _Range(-2, 2),
    "repetition_penalty": _Range(0, 100),
    "seed": _Range(-(2**63), 2**63 - 1),
    "n": _COUNT,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "min_tokens": _COUNT,
    "top_k": _COUNT,
    "logprobs": _COUNT,
    "top_logprobs": _COUNT,
    "dimensions": _COUNT,
}


def number_problem(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first number of a request that no engine can take: its sentence and its field."""
    for field, value in body.items():
        for number in value.values() if isinstance(value, dict) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                return f"{field!r} is not a finite number.", field
        if (limits := _NUMBERS.get(field)) and not _within(value, limits):
            return f"{field!r} must be a number from {limits.low} to {limits.high}.", field
    return _bias_problem(body.get("logit_bias")) or _stop_problem(body)


def size_problem(
    kind: Kind, body: Mapping[str, Any], limits: RequestLimits, *, longest: int | None = None
) -> tuple[str, str] | None:
    """What a request asks for too much of: a sentence with what it asks for, and the field.

    Args:
        kind: Which of OpenAI's endpoints was called.
        body: Body of the request; fields of a wrong type count as absent.
        limits: What it may ask for.
        longest: Tokens of prompt and answer together that the model takes; None where it is not
            known.
    """
    prompts = count_prompts(body) if kind == "completion" else 1
    n = 1 if kind == "embedding" else _count(body.get("n"), 1)
    answers = prompts * n
    if answers > limits.answers:
        text = (
            f"At most {limits.answers} answers in one request; "
            f"{prompts} prompts with n = {n} ask for {answers}."
        )
        return text, "prompt" if prompts > 1 else "n"
    before = sum(map(_tokens_in, _texts(kind, body)))
    after = 0 if kind == "embedding" else _longest_answer(kind, body, longest)
    tokens = before + answers * after
    if tokens > limits.tokens:
        text = (
            f"At most {limits.tokens} tokens in one request; {before} of prompts and {answers} "
            f"answers of up to {after} ask for {tokens}. Set a smaller 'max_tokens', or send "
            "several requests."
        )
        return text, "input" if kind == "embedding" else "max_tokens"
    return None


def count_prompts(body: Mapping[str, Any]) -> int:
    """How many prompts a completion request has."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or all(isinstance(item, int) for item in prompt):
        return 1
    return len(prompt)


def _within(value: object, limits: _Range) -> bool:
    """Whether a number is; texts count as the numbers that they spell, other types as fine."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return False
    return not isinstance(value, int | float) or limits.low <= value <= limits.high


def _bias_problem(value: object) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    if len(value) > _MOST_BIASES:
        return f"'logit_bias' has {len(value)} tokens, at most {_MOST_BIASES}.", "logit_bias"
    for token, bias in value.items():
        if isinstance(bias, int | float) and not -_LARGEST_BIAS <= bias <= _LARGEST_BIAS:
            limit = f"from -{_LARGEST_BIAS} to {_LARGEST_BIAS}"
            return f"'logit_bias' of token {token[:20]!r} must be {limit}.", "logit_bias"
    return None


def _stop_problem(body: Mapping[str, Any]) -> tuple[str, str] | None:
    stop, ids = body.get("stop"), body.get("stop_token_ids")
    texts = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    if len(texts) > _MOST_STOPS:
        return f"'stop' has {len(texts)} texts, at most {_MOST_STOPS}.", "stop"
    if any(isinstance(text, str) and len(text) > _LONGEST_STOP for text in texts):
        return f"A text of 'stop' has more than {_LONGEST_STOP} characters.", "stop"
    if isinstance(ids, list) and len(ids) > _MOST_STOP_IDS:
        return f"'stop_token_ids' has {len(ids)}, at most {_MOST_STOP_IDS}.", "stop_token_ids"
    return None


def _longest_answer(kind: Kind, body: Mapping[str, Any], longest: int | None) -> int:
    """Tokens that one answer may have."""
    default = _DEFAULT_COMPLETION if kind == "completion" else (longest or 0)
    tokens = _count(body.get("max_completion_tokens"), _count(body.get("max_tokens"), default))
    return tokens if longest is None else min(tokens, longest)


def _count(value: object, default: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    return max(value, 0) if type(value) is int else default


def _texts(kind: Kind, body: Mapping[str, Any]) -> Iterator[object]:
    """The texts and token ids that a request consists of."""
    if kind == "chat":
        messages = body.get("messages")
        for message in messages if isinstance(messages, list) else ():
            yield message.get("content") if isinstance(message, dict) else None
        return
    value = body.get("prompt" if kind == "completion" else "input")
    if isinstance(value, list) and not all(isinstance(item, int) for item in value):
        yield from value
    else:
        yield value


def _tokens_in(value: object) -> int:
    if isinstance(value, str):
        return -(-len(value.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in value]
        texts = sum(_tokens_in(part) for part in parts if isinstance(part, str))
        return texts or len(value)
    return 0
