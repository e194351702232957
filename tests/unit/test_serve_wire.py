"""Reading and refusing requests in OpenAI's form, without an engine."""

from __future__ import annotations

import json

import pytest

from serve_apps.variants.wire import (
    MAX_CHOICES,
    MAX_PROMPTS,
    Reply,
    check_request,
    engine_body,
    event,
    event_error,
    no_such_model,
    parse_body,
    refusal,
)

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PLAIN = {"model": "m", "prompt": "hello"}


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
        ("completion", {"prompt": ["a"] * MAX_PROMPTS}),
        ("completion", {"prompt": [1] * (MAX_PROMPTS + 1)}),
    ],
)
def test_good_requests_pass(kind, body):
    assert check_request(kind, body, has_chat_template=True) is None


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("chat", CHAT | {"tools": []}, "tools"),
        ("chat", CHAT | {"chat_template": "x"}, "chat_template"),
        ("chat", CHAT | {"prompt": "x"}, "prompt"),
        ("completion", PLAIN | {"kv_transfer_params": {}}, "kv_transfer_params"),
        ("completion", PLAIN | {"x" * 1000: 1}, "x" * 60),
        ("completion", PLAIN | {"temperature": float("inf")}, "temperature"),
        ("completion", PLAIN | {"logit_bias": {"1": float("inf")}}, "logit_bias"),
        ("completion", PLAIN | {"n": 0}, "n"),
        ("completion", PLAIN | {"n": MAX_CHOICES + 1}, "n"),
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


def test_chat_without_a_template_is_refused_and_completion_is_not():
    reply = check_request("chat", CHAT, has_chat_template=False)
    assert reply is not None
    assert (reply.status, reply.body["error"]["code"]) == (400, "no_chat_template")
    assert check_request("completion", PLAIN, has_chat_template=False) is None


def test_the_engine_is_not_told_who_asks():
    assert engine_body(CHAT | {"user": "u", "metadata": {"a": "b"}}) == CHAT


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
