"""Requests to models: OpenAI's API, failures, quotas and keys.

Variants are played on a stage (see `server_helpers.Stage`); everything else is real.
"""

from __future__ import annotations

import asyncio

import openai
import pytest
import requests
from gateway_calls import CHAT, chat, chats, make_key, said
from server_helpers import Actor
from variant_folders import deploy, gateway_looks, wait_for

from serve_apps.gateway.quota import Quota, Quotas
from ztom.errors import ServerError


def test_the_openai_client_whole_and_streaming(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    raw = chat(ask)
    assert said(raw) == "I am one."
    assert raw.headers["x-ztom-variant"] == f"one@{digest[:12]}"
    assert raw.headers["x-ztom-role"] == "stable"
    assert raw.headers["x-request-id"] == raw.parse().id
    stream = ask.chat.completions.create(model="support", messages=CHAT, stream=True)
    assert "".join(c.choices[0].delta.content for c in stream).split() == ["I", "am", "one."]
    assert ask.completions.create(model="support", prompt="a").choices[0].text == "I am one."
    ids = [model.id for model in ask.models.list().data]
    assert ids == ["support", f"one@{digest[:12]}"]
    assert ask.models.retrieve("support").id == "support"
    assert ask.models.retrieve(f"support@{digest[:12]}").id == f"one@{digest[:12]}"


def test_the_async_openai_client(server, admin, key) -> None:
    deploy(server, admin, "one")

    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
            whole = await client.chat.completions.create(model="support", messages=CHAT)
            stream = await client.chat.completions.create(
                model="support", messages=CHAT, stream=True
            )
            parts = [chunk.choices[0].delta.content async for chunk in stream]
            return whole.choices[0].message.content, "".join(parts).strip()

    assert asyncio.run(both()) == ("I am one.", "I am one.")


def test_embeddings_by_the_openai_client(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    raw = ask.embeddings.with_raw_response.create(
        model="support", input=["a"], encoding_format="float", user="u"
    )
    answer = raw.parse()
    assert (answer.data[0].embedding, answer.usage.prompt_tokens) == ([0.6, -0.8], 3)
    assert raw.headers["x-ztom-variant"] == answer.model == f"one@{digest[:12]}"
    response_id = raw.headers["x-request-id"]
    assert response_id.startswith("embd-")
    judged = {"responseId": response_id, "score": 1.0}
    url = f"{server.url}/v1/feedback"
    headers = {"Authorization": f"Bearer {ask.api_key}"}
    assert requests.post(url, json=judged, headers=headers, timeout=30).status_code == 201
    (call,) = server.stage.actor(digest).calls
    assert (call.kind, call.body["input"]) == ("embedding", ["a"])
    with pytest.raises(openai.NotFoundError) as missing:
        ask.embeddings.create(model="nothing", input="a")
    assert missing.value.code == "model_not_found"


def test_errors_have_openais_form(server, admin, ask, key) -> None:
    deploy(server, admin, "one")
    with pytest.raises(openai.NotFoundError) as missing:
        chat(ask, "nothing")
    assert missing.value.code == "model_not_found"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="ztom_no", max_retries=0) as nobody,
        pytest.raises(openai.AuthenticationError) as unknown,
    ):
        chat(nobody)
    assert unknown.value.body["message"]
    read_only = make_key(server, "ada", scopes=["read", "write"])
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=read_only, max_retries=0) as other,
        pytest.raises(openai.PermissionDeniedError),
    ):
        chat(other)
    headers = {"Authorization": f"Bearer {key}"}
    for content, status in ((b"{", 400), (b"[]", 400), (b'{"model": 3}', 400)):
        answer = requests.post(
            f"{server.url}/v1/chat/completions", data=content, headers=headers, timeout=30
        )
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            status,
            "invalid_request_error",
        )
    wrong_method = requests.get(f"{server.url}/v1/completions", headers=headers, timeout=30)
    assert wrong_method.status_code == 405
    assert wrong_method.json()["error"]["message"]


def test_failures_of_a_variant_are_429_and_503_with_retry_after(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one", options={"timeout_s": 0.3})
    actor = server.stage.actor(digest)
    for change, status in (
        ({"overloaded": True}, 429),
        ({"fails": 10**6}, 503),
        ({"hangs": True}, 503),
    ):
        server.stage.actors[digest] = Actor(**change)
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as caught:
                chat(ask, stream=stream)
            assert caught.value.status_code == status
            assert int(caught.value.response.headers["retry-after"]) >= 1
    server.stage.actors[digest] = actor
    assert said(chat(ask)) == "I am one."


def test_a_stream_that_breaks_off_says_so(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    server.stage.actor(digest).breaks_off = True
    stream = ask.chat.completions.create(model="support", messages=CHAT, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


def test_a_request_for_too_much_reaches_no_variant(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    for more in ({"prompt": ["a"] * 1024, "n": 128}, {"n": 128, "max_tokens": 10**5}):
        with pytest.raises(openai.BadRequestError) as refused:
            ask.completions.create(**{"model": "support", "prompt": "a", **more})
        assert "in one request" in refused.value.body["message"]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            ask.completions.create(
                model="support", prompt="a", stream=stream, extra_body={"temperature": 1e308}
            )
        assert refused.value.param == "temperature"
    assert server.stage.actor(digest).calls == []


def test_quotas_by_key(server, admin) -> None:
    deploy(server, admin, "one")
    few = make_key(server, "ada", requestsPerMinute=3)
    short = make_key(server, "ada", tokensPerMinute=10)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=few, max_retries=0) as client:
        for _ in range(3):
            chat(client)
        with pytest.raises(openai.RateLimitError) as caught:
            chat(client)
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 21
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=short, max_retries=0) as client:
        chat(client)
        chat(client)  # 12 tokens in all
        with pytest.raises(openai.RateLimitError):
            chat(client)


def test_a_revoked_key_is_let_in_no_more(server, admin, ask) -> None:
    deploy(server, admin, "one")
    chat(ask)
    session = server.as_user("ada")
    for each in session.get(f"{server.url}/v1/keys", timeout=30).json():
        session.delete(f"{server.url}/v1/keys/{each['id']}", timeout=30)

    def refused() -> bool:
        try:
            chat(ask)
        except openai.AuthenticationError:
            return True
        return False

    wait_for(refused, "the end of the key")


def test_changes_of_the_table_lose_no_request(server, admin, ask) -> None:
    deploy(server, admin, "one")
    deploy(server, admin, "two", canary=50)
    with chats(ask, threads=8) as traffic:
        for percent in (10, 90, 50, 0, 100) * 4:
            admin.endpoints.traffic("support", canary=percent)
            gateway_looks(server)
            traffic.after(10)
        admin.endpoints.promote("support")
        gateway_looks(server)
        admin.endpoints.rollback("support")
        wait_for(lambda: len(traffic.answers) >= 1000, "a thousand answers", 300)
    assert traffic.failures == []


def test_the_ledger_may_be_away_for_a_while(server, admin, ask, monkeypatch) -> None:
    deploy(server, admin, "one")
    endpoints = server.services.ledger.endpoints

    looks = []

    def broken() -> int:
        looks.append(1)
        raise ServerError("the database is away")

    monkeypatch.setattr(endpoints, "routing_version", broken)
    wait_for(lambda: len(looks) >= 5, "looks of the gateway")
    assert said(chat(ask)) == "I am one."


def test_what_one_quota_refuses_uses_up_no_other() -> None:
    quotas, user = Quotas(), ("user", Quota(requests_per_minute=60))
    small, other = ("small", Quota(requests_per_minute=1)), ("other", Quota())
    assert quotas.admit((user, small), now=0.0) == 0
    assert all(quotas.admit((user, small), now=0.0) > 0 for _ in range(100))
    assert [quotas.admit((user, other), now=0.0) == 0 for _ in range(60)] == [True] * 59 + [False]


def test_hanging_up_costs_tokens_too(server, admin) -> None:
    deploy(server, admin, "one")
    key = make_key(server, "ada", tokensPerMinute=4)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:

        def look_and_leave() -> None:
            with client.chat.completions.create(
                model="support", messages=CHAT, stream=True
            ) as stream:
                for _ in range(3):
                    next(iter(stream))

        look_and_leave()

        def refused() -> bool:
            try:
                look_and_leave()
            except openai.RateLimitError:
                return True
            return False

        wait_for(refused, "the end of the quota")
