"""What one request may ask of an engine. Rows 98 and 106."""

from __future__ import annotations

import pytest

from serve_apps.variants.request_size import RequestLimits, size_problem
from serve_apps.variants.wire import check_request, too_much

TURN = {"role": "user", "content": "Where is my parcel?"}
LIMITS = RequestLimits(answers=256, tokens=2**20)


@pytest.mark.abuse(98)
@pytest.mark.parametrize(
    ("kind", "body", "param", "reason"),
    [
        (
            "completion",
            {"prompt": ["a"] * 1024, "n": 128, "max_tokens": 512},
            "prompt",
            "1024 prompts with n = 128 ask for 131072",
        ),
        ("completion", {"prompt": ["a"] * 257}, "prompt", "At most 256 answers"),
        ("completion", {"prompt": ["a"] * 3, "n": "100"}, "prompt", "ask for 300"),
        (
            "completion",
            {"prompt": "a", "n": 128, "max_tokens": 10_000},
            "max_tokens",
            "128 answers of up to 10000 ask for 1280001",
        ),
        ("completion", {"prompt": [[1] * 5_000] * 250}, "max_tokens", "1250000 of prompts"),
        (
            "chat",
            {"messages": [TURN], "n": 128, "max_completion_tokens": 9_000},
            "max_tokens",
            "Set a smaller 'max_tokens'",
        ),
        ("chat", {"messages": [{"role": "user", "content": "x" * 2**23}]}, "max_tokens", "2097152"),
        ("embedding", {"input": ["x" * 4096] * 2048}, "input", "2097152 of prompts"),
    ],
)
def test_a_request_for_too_much_is_refused_with_what_it_asks_for(kind, body, param, reason):
    reply = too_much(kind, body, LIMITS)
    assert (reply.status, reply.body["error"]["param"]) == (400, param)
    assert reason in reply.body["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("completion", {"prompt": ["a"] * 256, "max_tokens": 1024}),
        ("completion", {"prompt": ["a"] * 2, "n": 128}),
        ("completion", {"prompt": [1] * 100_000}),
        ("chat", {"messages": [TURN], "n": 128}),
        ("embedding", {"input": ["x" * 1000] * 2048}),
        ("chat", {"messages": "no list", "n": [1], "max_tokens": {}}),
    ],
)
def test_a_request_within_the_limits_passes(kind, body):
    assert too_much(kind, body, LIMITS) is None


def test_an_answer_without_a_length_counts_with_the_models():
    body = {"messages": [TURN], "n": 64}
    assert size_problem("chat", body, LIMITS, longest=8_192) is None
    problem, _ = size_problem("chat", body, LIMITS, longest=131_072)
    assert "64 answers of up to 131072" in problem
    # never longer than the model's
    assert size_problem("chat", body | {"max_tokens": 10**9}, LIMITS, longest=4_096) is None


def test_the_operators_limits_count():
    body = {"prompt": ["a", "b"], "max_tokens": 5}
    assert "At most 1 answers" in size_problem("completion", body, RequestLimits(answers=1))[0]
    assert "At most 10 tokens" in size_problem("completion", body, RequestLimits(tokens=10))[0]
    reply = check_request(
        "completion", body, has_chat_template=True, limits=RequestLimits(tokens=11)
    )
    assert reply.status == 400


BAD = (float("inf"), float("-inf"), float("nan"), 1e308, 1e30, 10**400, "inf", "nan", "1e308", "x")


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    "field",
    [
        *("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty"),
        *("repetition_penalty", "seed", "n", "max_tokens", "min_tokens", "top_k", "logprobs"),
    ],
)
def test_no_engine_is_given_a_number_that_it_cannot_take(field: str, value: object) -> None:
    reply = too_much("completion", {"prompt": "a", field: value}, LIMITS)
    assert reply is not None, field
    assert (reply.status, reply.body["error"]["param"]) == (400, field)
    assert len(reply.body["error"]["message"]) < 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logit_bias", {str(token): 1 for token in range(1025)}),
        ("logit_bias", {"1": 1e30}),
        ("logit_bias", {"1": 10**400}),
        ("stop", ["x"] * 65),
        ("stop", "x" * 1001),
        ("stop_token_ids", list(range(1025))),
    ],
)
def test_long_lists_are_refused(field: str, value: object) -> None:
    reply = too_much("completion", {"prompt": "a", field: value}, LIMITS)
    assert (reply.status, reply.body["error"]["param"]) == (400, field)


def test_usual_numbers_pass() -> None:
    body = {"temperature": 0.7, "top_p": 1, "seed": -5, "top_k": -1, "n": 2, "logprobs": True}
    body |= {"logit_bias": {"50256": -100}, "stop": ["a", "b"], "max_tokens": 4096}
    assert too_much("completion", {"prompt": "a", **body}, LIMITS) is None
