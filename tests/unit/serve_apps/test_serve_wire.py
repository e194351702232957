"""Requests and event streams in OpenAI's form, without an engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence

import pytest
from openai.types import completion_create_params as completion_params
from openai.types import embedding_create_params as embedding_params
from openai.types.chat import completion_create_params as chat_params

from serve_apps.variants.events import EventStream, joined
from serve_apps.variants.request_fields import ABOUT_THE_CALLER, FIELDS, NEUTRAL
from serve_apps.variants.wire import (
    DONE_EVENT,
    MAX_CHOICES,
    MAX_PROMPTS,
    Reply,
    check_request,
    count_prompts,
    engine_body,
    event,
    event_error,
    no_such_model,
    openai_error,
    parse_body,
    refusal,
)

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PLAIN = {"model": "m", "prompt": "hello"}
EMBEDDED = {"model": "m", "input": "hello"}
BODIES = {"chat": CHAT, "completion": PLAIN, "embedding": EMBEDDED}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
#: The fields of the openai client's own types, which clients may send all of.
OPENAI_FIELDS = {
    "chat": set(chat_params.CompletionCreateParamsBase.__annotations__),
    "completion": set(completion_params.CompletionCreateParamsBase.__annotations__),
    "embedding": set(embedding_params.EmbeddingCreateParams.__annotations__),
}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense",
        b"[]",
        b"1",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a":' * 5000,
    ],
)
def test_bodies_that_are_no_request(raw):
    reply = parse_body(raw)
    assert isinstance(reply, Reply)
    assert reply.status == 400
    assert reply.body["error"]["code"] == "invalid_json"


def test_a_body_is_read():
    assert parse_body(json.dumps(CHAT).encode()) == CHAT


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", CHAT),
        ("chat", CHAT | {"user": "u", "n": MAX_CHOICES, "temperature": 0.5, "seed": 1}),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
        ("chat", {"messages": [{"role": "assistant", "content": None}]}),
        ("completion", PLAIN | {"echo": True, "stop": ["a"], "stream_options": {}}),
        ("completion", {"prompt": ["a"] * 256}),
        ("completion", {"prompt": [1] * (MAX_PROMPTS + 1)}),
    ],
)
def test_good_requests_pass(kind, body):
    assert check_request(kind, body, has_chat_template=True) is None


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("chat", CHAT | {"tools": [TOOL]}, "tools"),
        ("chat", CHAT | {"tool_choice": "required"}, "tool_choice"),
        ("chat", CHAT | {"store": True}, "store"),
        ("chat", CHAT | {"modalities": ["text", "audio"]}, "modalities"),
        ("completion", PLAIN | {"suffix": "x"}, "suffix"),
        ("completion", PLAIN | {"best_of": True}, "best_of"),
        ("chat", CHAT | {"response_format": "json"}, "response_format"),
        ("completion", PLAIN | {"response_format": {"type": "xml"}}, "response_format"),
        ("chat", CHAT | {"chat_template": "x"}, "chat_template"),
        ("chat", CHAT | {"prompt": "x"}, "prompt"),
        ("completion", PLAIN | {"kv_transfer_params": {}}, "kv_transfer_params"),
        ("completion", PLAIN | {"x" * 1000: 1}, "x" * 60),
        ("completion", PLAIN | {"temperature": float("inf")}, "temperature"),
        ("completion", PLAIN | {"logit_bias": {"1": float("inf")}}, "logit_bias"),
        ("completion", PLAIN | {"n": 0}, "n"),
        ("completion", PLAIN | {"n": MAX_CHOICES + 1}, "n"),
        ("completion", PLAIN | {"stream": "yes"}, "stream"),
        ("chat", CHAT | {"stream": 1}, "stream"),
        ("completion", {"model": "m"}, "prompt"),
        ("completion", {"prompt": ["a"] * (MAX_PROMPTS + 1)}, "prompt"),
        ("completion", {"prompt": [[1]] * (MAX_PROMPTS + 1)}, "prompt"),
        ("chat", {"model": "m"}, "messages"),
        ("chat", {"messages": "hello"}, "messages"),
        ("chat", {"messages": []}, "messages"),
        ("chat", {"messages": ["hello"]}, "messages[0]"),
        ("chat", {"messages": [CHAT["messages"][0], {"role": "king"}]}, "messages[1]"),
        ("chat", {"messages": [{"role": ["user"], "content": "a"}]}, "messages[0]"),
        ("chat", {"messages": [{"role": "user"}]}, "messages[0]"),
        (
            "chat",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "http://x"}}],
                    }
                ]
            },
            "messages[0]",
        ),
    ],
)
def test_bad_requests_are_refused_by_name(kind, body, param):
    reply = check_request(kind, body, has_chat_template=True)
    assert reply is not None
    assert reply.status == 400
    assert reply.body["error"]["param"] == param


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in OPENAI_FIELDS for field in sorted(OPENAI_FIELDS[kind])],
)
def test_null_and_neutral_values_of_every_openai_field_count_as_absent(kind, field):
    body, embeds = BODIES[kind], kind == "embedding"
    assert field in FIELDS[kind] | ABOUT_THE_CALLER | set(NEUTRAL[kind]), "nobody decided on it"
    if field in ("model", "prompt", "messages", "input"):
        return
    for value in (None, *NEUTRAL[kind].get(field, [])):
        asked_for = body | {field: value}
        assert check_request(kind, asked_for, has_chat_template=True, embeds=embeds) is None
        assert engine_body(kind, asked_for) == engine_body(kind, body)


def test_tools_are_for_models_with_a_parser():
    body = CHAT | {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}
    assert check_request("chat", body, has_chat_template=True, has_tools=True) is None
    assert engine_body("chat", body).keys() >= {"tools", "tool_choice", "parallel_tool_calls"}
    assert engine_body("chat", body | {"tools": None}) == engine_body("chat", CHAT)
    refused = check_request("chat", body, has_chat_template=True)
    assert "without a parser for calls of tools" in refused.body["error"]["message"]
    for tools in (["look"], "look", [{"type": "function", "function": {}}], [{"type": "x"}]):
        wrong = CHAT | {"tools": tools}
        refused = check_request("chat", wrong, has_chat_template=True, has_tools=True)
        assert (refused.status, refused.body["error"]["param"]) == (400, "tools")


def test_chat_without_a_template_is_refused_and_completion_is_not():
    reply = check_request("chat", CHAT, has_chat_template=False)
    assert reply is not None
    assert (reply.status, reply.body["error"]["code"]) == (400, "no_chat_template")
    assert check_request("completion", PLAIN, has_chat_template=False) is None


def test_the_engine_is_told_neither_who_asks_nor_for_which_model():
    body = engine_body("chat", CHAT | {"user": "u", "metadata": {"a": "b"}})
    assert body == {"messages": CHAT["messages"]}


def test_errors_have_all_four_fields():
    assert refusal(503, "later").body["error"]["type"] == "server_error"
    error = no_such_model("x" * 500).body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 200


def test_an_error_in_a_stream_is_recognised():
    assert event_error(event({"error": {"message": "no", "code": 400}})) == {
        "message": "no",
        "code": 400,
    }
    assert event_error(event({"choices": [{"text": '{"error"'}]})) is None
    assert event_error("data: [DONE]\n\n") is None
    assert event_error(event({"error": "just text"})) is None


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("a", 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1], [2, 3], [4]], 3)],
)
def test_prompts_are_counted(prompt, count):
    assert count_prompts({"prompt": prompt}) == count


@pytest.mark.parametrize(
    ("status", "param", "code"),
    [
        (404, "model", "model_not_found"),
        (400, "input_tokens", "context_length_exceeded"),
        (400, "n", None),
        (500, None, None),
    ],
)
def test_errors_get_the_codes_of_openai(status, param, code):
    reply = openai_error({"code": status, "message": "said", "param": param})
    assert (reply.status, reply.body["error"]["code"]) == (status, code)
    assert (reply.body["error"]["message"] == "said") == (status != 500)


def part(index: int, text: str) -> str:
    return event({"choices": [{"index": index, "text": text}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


def stream_of(
    raw: Sequence[str | Exception], *, choices: int = 1, shows_usage: bool = False
) -> EventStream:
    async def rest() -> AsyncGenerator[str, None]:
        for one in raw[1:]:
            if isinstance(one, Exception):
                raise one
            yield one

    return EventStream(
        str(raw[0]),
        rest(),
        fingerprint="ztom-1",
        choices=choices,
        shows_usage=shows_usage,
        explain=lambda error: refusal(500, str(error)),
    )


async def collected(stream: EventStream) -> list[str]:
    return [text async for text in stream]


@pytest.mark.parametrize("shows_usage", [True, False])
def test_events_are_stamped_and_the_usage_is_for_who_asked(shows_usage):
    stream = stream_of([part(0, "a"), part(0, "b"), USAGE, DONE_EVENT], shows_usage=shows_usage)
    *events, done = asyncio.run(collected(stream))
    assert done == DONE_EVENT
    assert len(events) == (3 if shows_usage else 2)
    for text in events:
        assert json.loads(text.removeprefix("data: "))["system_fingerprint"] == "ztom-1"
    assert (stream.prompt_tokens, stream.completion_tokens) == (3, 2)
    assert (stream.empty, stream.failed) == (False, False)


def test_text_that_looks_like_the_usage_is_text():
    quoted = part(0, '"choices":[],"usage":{"prompt_tokens":9}')
    assert len(asyncio.run(collected(stream_of([quoted, USAGE, DONE_EVENT])))) == 2


def test_every_choice_has_to_have_text():
    stream = stream_of([part(0, "a"), part(1, ""), part(0, "b"), USAGE, DONE_EVENT], choices=2)
    asyncio.run(collected(stream))
    assert stream.empty


@pytest.mark.parametrize(
    "broken",
    [
        [event({"error": {"code": 500, "message": "secret"}}), DONE_EVENT],
        [RuntimeError("the engine fell over")],
    ],
)
def test_a_stream_that_breaks_off_says_so(broken):
    stream = stream_of([part(0, "a"), *broken])
    _, error, done = asyncio.run(collected(stream))
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error"
    assert "secret" not in error
    assert done == DONE_EVENT
    assert stream.failed


def test_events_are_joined_only_with_what_is_there_already():
    async def pieces() -> list[str]:
        slow = asyncio.Event()

        async def rest() -> AsyncGenerator[str, None]:
            yield part(0, "b")
            await slow.wait()
            yield part(0, "c")
            yield DONE_EVENT

        stream = EventStream(
            part(0, "a"),
            rest(),
            fingerprint="f",
            choices=1,
            shows_usage=False,
            explain=lambda error: refusal(500, str(error)),
        )
        got = []
        async for piece in joined(stream):
            got.append(piece)
            slow.set()
        return got

    first, second = asyncio.run(pieces())
    assert (first.count("data: "), second.count("data: ")) == (2, 2)


@pytest.mark.parametrize(("interval_s", "sizes"), [(0.05, [1, 3, 2]), (3600.0, [1, 5])])
def test_pieces_keep_their_distance_but_for_the_first_and_the_last(interval_s, sizes):
    taken: list[tuple[float, str]] = []
    first, second = asyncio.Event(), asyncio.Event()

    async def rest() -> AsyncGenerator[str, None]:
        await first.wait()
        for text in "bcd":
            yield part(0, text)
        if interval_s < 1:  # only the end of the interval brings these three
            await second.wait()
        yield part(0, "e")
        yield DONE_EVENT

    async def take() -> None:
        stream = stream_of([part(0, "a")])
        stream._rest = rest()
        async with asyncio.timeout(30):
            async for piece in joined(stream, interval_s=interval_s):
                taken.append((time.monotonic(), piece))
                (first if len(taken) == 1 else second).set()

    asyncio.run(take())
    assert [piece.count("data: ") for _, piece in taken] == sizes
    if interval_s < 1:
        assert taken[1][0] - taken[0][0] >= 0.9 * interval_s


def test_a_joined_stream_that_is_left_is_closed():
    closed = asyncio.Event()

    async def rest() -> AsyncGenerator[str, None]:
        try:
            while True:
                await asyncio.sleep(0.01)
                yield part(0, "b")
        finally:
            closed.set()

    async def leave() -> None:
        stream = stream_of([part(0, "a")])
        stream._rest = rest()
        pieces = joined(stream)
        for _ in range(3):
            await anext(pieces)
        await pieces.aclose()

    asyncio.run(leave())
    assert closed.is_set()
