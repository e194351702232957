"""Requests for embeddings, and the proof of a model that gives them, without an engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve_apps.variants.embedding_input import MAX_INPUTS, embedding_problem
from serve_apps.variants.proof import plain_request, prove, warm_up
from serve_apps.variants.wire import Reply, check_request, engine_body, refusal
from ztom.errors import VariantError


@pytest.mark.parametrize(
    "value", ["", "a", ["a", ""], ["a"] * MAX_INPUTS, [1, 2], [0] * 5000, [[1], [2, 3]]]
)
def test_inputs_that_are_taken(value: object) -> None:
    body = {"model": "m", "input": value, "encoding_format": "base64", "dimensions": 8, "user": "u"}
    assert check_request("embedding", body, has_chat_template=False, embeds=True) is None
    assert engine_body("embedding", body) == {
        "input": value,
        "encoding_format": "base64",
        "dimensions": 8,
    }


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({}, "input", "is missing"),
        ({"input": None}, "input", "is missing"),
        ({"input": []}, "input", "is empty"),
        ({"input": [[1], []]}, "input", "input[1] is empty"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", "At most 2048"),
        ({"input": [[1]] * (MAX_INPUTS + 1)}, "input", "At most 2048"),
        ({"input": 3}, "input", "got int"),
        ({"input": {"role": "user"}}, "input", "got dict"),
        ({"input": [{"role": "user", "content": "a"}]}, "input", "must be a text"),
        ({"input": ["a", [1]]}, "input", "must be a text"),
        ({"input": [1, "a"]}, "input", "must be a text"),
        ({"input": [True]}, "input", "must be a text"),
        ({"input": [-1]}, "input", "must be a text"),
        ({"input": [1.5]}, "input", "must be a text"),
        ({"input": "a", "encoding_format": "bytes"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "encoding_format": ["float"]}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "dimensions": 0}, "dimensions", "a number from 1"),
        ({"input": "a", "dimensions": True}, "dimensions", "a number from 1"),
        ({"input": "a", "dimensions": 8.0}, "dimensions", "a number from 1"),
        ({"input": "a", "stream": True}, "stream", "does not support"),
        ({"input": "a", "truncate_prompt_tokens": 4}, "truncate_prompt_tokens", "does not"),
        ({"input": "a", "messages": []}, "messages", "does not support"),
    ],
)
def test_inputs_that_are_refused_by_name(body: dict[str, Any], param: str, reason: str) -> None:
    reply = check_request("embedding", body, has_chat_template=True, embeds=True)
    assert reply is not None
    assert (reply.status, reply.body["error"]["param"]) == (400, param)
    assert reason in reply.body["error"]["message"]


def test_every_kind_of_model_answers_its_own_endpoints() -> None:
    text = {"messages": [{"role": "user", "content": "a"}]}
    for kind, body in (("chat", text), ("completion", {"prompt": "a"})):
        reply = check_request(kind, body, has_chat_template=True, embeds=True)
        assert reply is not None
        assert (reply.status, reply.code) == (400, "unsupported_endpoint")
        assert "Use /v1/embeddings" in reply.body["error"]["message"]
    reply = check_request("embedding", {"input": "a"}, has_chat_template=True)
    assert reply is not None
    assert (reply.status, reply.code) == (400, "unsupported_endpoint")
    assert "Use /v1/chat/completions" in reply.body["error"]["message"]


def test_a_problem_names_the_first_field_that_is_wrong() -> None:
    assert embedding_problem({"input": "a"}) is None
    assert embedding_problem({"input": [], "dimensions": 0}) == ("'input' is empty.", "input")


class Embeds:
    """Answers requests for embeddings; remembers what it was asked."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.asked: list[Any] = []
        self._reply = reply

    async def __call__(self, kind: str, body: Any) -> Reply:
        assert kind == "embedding"
        self.asked.append(body["input"])
        data = [{"index": 0, "object": "embedding", "embedding": [0.5]}]
        return self._reply or Reply(200, {"data": data, "usage": {"prompt_tokens": 1}})


def test_a_model_that_embeds_is_proved_and_warmed_up_by_embeddings() -> None:
    ask = Embeds()
    asyncio.run(prove(ask, plain_request(embeds=True), chat=True))
    asyncio.run(warm_up(ask, longest=20, embeds=True))
    assert ask.asked[:2] == [[0], ["Hello", "Hello there"]]
    assert [len(tokens) for tokens in ask.asked[2:]] == [1, 17, 20, 20]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refusal(500, "It broke."), "It broke."),
        (Reply(200, {"data": [{"embedding": []}], "usage": {}}), "empty embedding"),
    ],
)
def test_a_model_that_does_not_embed_is_not_proved(reply: Reply, reason: str) -> None:
    with pytest.raises(VariantError, match=reason):
        asyncio.run(prove(Embeds(reply), plain_request(embeds=True), chat=False))
