"""Whether a loaded model answers: real requests, before anybody depends on them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from serve_apps.variants.events import EventStream
from serve_apps.variants.request_fields import Kind
from serve_apps.variants.wire import Reply
from ztom.errors import VariantError

_WARM_UP_REQUESTS = 4
_WARM_UP_TOKENS = 8
_ONE_TOKEN = {"max_tokens": 1, "temperature": 0}


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """The smallest request that a model answers."""

    kind: Kind
    body: Mapping[str, Any]


def plain_request(*, embeds: bool) -> PlainRequest:
    """One token generated or, of a model that gives embeddings, one token embedded."""
    if embeds:
        return PlainRequest("embedding", {"input": [0]})
    return PlainRequest("completion", {"prompt": [0], **_ONE_TOKEN})


class Ask(Protocol):
    """Answers a request; see `VariantEngine.answer`."""

    async def __call__(self, kind: Kind, body: Mapping[str, Any]) -> Reply | EventStream:
        """A reply, as none of the requests here asks for a stream."""


async def prove(ask: Ask, plain: PlainRequest, *, chat: bool) -> None:
    """Answer once plainly and, where the model has a template or embeds texts, once more.

    Args:
        ask: Function that answers.
        plain: Request of the model's kind.
        chat: Whether the model has a chat template.

    Raises:
        VariantError: An answer is refused, empty, or its log-probability is not a number.
    """
    await prove_plain(ask, plain)
    if plain.kind == "embedding":
        _require_answer(await ask("embedding", {"input": ["Hello", "Hello there"]}))
    elif chat:
        messages = [{"role": "user", "content": "Hello"}]
        _require_answer(await ask("chat", {"messages": messages, **_ONE_TOKEN}))


async def prove_plain(ask: Ask, plain: PlainRequest) -> None:
    """Generate or embed one token.

    Raises:
        VariantError: The variant does not answer; see `prove`.
    """
    extra: dict[str, int] = {} if plain.kind == "embedding" else {"logprobs": 1}
    _require_answer(await ask(plain.kind, {**plain.body, **extra}))


async def warm_up(ask: Ask, *, longest: int, embeds: bool) -> None:
    """Answer a few prompts of different lengths at once; what is generated, greedily and sampled.

    Args:
        ask: Function that answers the prompts.
        longest: Largest number of tokens that a prompt may have.
        embeds: Whether the model gives embeddings, and no text.

    Raises:
        VariantError: An answer is refused or empty.
    """

    async def one(number: int) -> None:
        prompt = [0] * max(1, min(16 * number + 1, longest))
        if embeds:
            _require_answer(await ask("embedding", {"input": prompt}))
            return
        tokens = min(_WARM_UP_TOKENS, max(1, longest))
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        _require_answer(await ask("completion", body | {"temperature": number % 2}))

    await asyncio.gather(*(one(number) for number in range(_WARM_UP_REQUESTS)))


def _require_answer(reply: Reply | EventStream) -> None:
    if not isinstance(reply, Reply) or reply.status != 200:
        got = reply.body["error"]["message"] if isinstance(reply, Reply) else "a stream"
        raise VariantError("the loaded variant does not answer", got=got)
    if "choices" not in reply.body:
        if not all(item["embedding"] for item in reply.body["data"]):
            raise VariantError("the loaded variant gives an empty embedding")
        return
    choice = reply.body["choices"][0]
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
    if reply.body["usage"]["completion_tokens"] < 1:
        raise VariantError("the loaded variant generates nothing")
    if not all(value is not None and math.isfinite(value) for value in logprobs):
        raise VariantError("the loaded variant generates log-probabilities that are not numbers")
