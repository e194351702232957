"""What is counted of a shadow: how far its answers are from stable's, and stable's from its own.

Variants are played on a stage (see `server_helpers.Stage`); everything else is real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from typing import Any

import openai
import pytest
from server_helpers import Actor, Server
from variant_folders import FAST, deploy, wait_for

from serve_apps.gateway.shadow import text_of, text_of_events
from serve_apps.variants.calls import Answer, Call
from ztom.client import Client
from ztom.rollout.observations import Comparison, StepObservations
from ztom.rollout.routing import Placement, bucket

CHAT = [{"role": "user", "content": "How do I open a file?"}]
ASKED = 12
#: A release that stays in its shadow step, whatever the shadow says.
STAYS = {
    "steps": [{"shadow": 100}, {"canary": 100}],
    "min_requests": 1000,
    "checks": {**FAST["checks"], "error_rate": 0.99, "empty": 0.99},
}


@pytest.fixture
def ask(server: Server, admin: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=admin.key, max_retries=0) as client:
        yield client


def shadowed(server: Server, admin: Client, shadow: Actor) -> str:
    """Stable "one" and a release of "two", which is its shadow; the id of the release."""
    deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", plan=STAYS)
    server.stage.actors[two] = shadow
    table = server.services.gateway
    wait_for(lambda: table.table.routes["support"].shadow_percent == 100, "the shadow")
    (release,) = admin.endpoints.releases("support")
    return str(release.id)


def answer_id(ask: openai.OpenAI, *, stream: bool) -> str:
    """Ask once, read the answer to its end, and return its id without OpenAI's prefix."""
    raw = ask.chat.completions.with_raw_response.create(
        model="support", messages=CHAT, stream=stream
    )
    if stream:
        text = "".join(chunk.choices[0].delta.content for chunk in raw.parse())
    else:
        text = raw.parse().choices[0].message.content
    assert text.split() == ["I", "am", "one."], "never the shadow's"
    return str(raw.headers["x-request-id"]).removeprefix("chatcmpl-")


def seen(server: Server, release: str) -> StepObservations:
    """The rows of the release's first step, once all copies are in them."""

    def total() -> StepObservations | None:
        rows = server.services.ledger.endpoints.rollouts.observations(release, 0)
        found = reduce(StepObservations.__add__, rows, StepObservations())
        whole = found.candidate.requests == found.stable.requests == ASKED
        return found if whole else None

    return wait_for(total, "the observations")


@pytest.mark.parametrize(
    ("says", "disagreement"),
    [("I AM\n one", 0.0), ("I am {name}.", 1 / 3), ("You are right.", 1.0), ("", 1.0)],
)
def test_answers_are_compared_word_by_word(server, admin, ask, says, disagreement) -> None:
    release = shadowed(server, admin, Actor(says=says))
    ids = [answer_id(ask, stream=number % 2 == 0) for number in range(ASKED)]
    asked_again = sum(bucket("floor", each) < 50 for each in ids)
    found = seen(server, release)
    assert found.compared.n == ASKED
    assert found.compared.disagreement == pytest.approx(ASKED * disagreement)
    assert found.floor == Comparison(n=asked_again, disagreement=0.0), "the same model, the same"
    assert found.candidate.errors == found.stable.errors == 0
    assert found.candidate.empty == (0 if says else ASKED)


def test_the_floor_is_how_far_stable_is_from_itself(server, admin, ask) -> None:
    release = shadowed(server, admin, Actor(says="I am one."))
    play = server.stage.ask

    async def unsteadily(placement: Placement, call: Call) -> Answer:
        """Stable says something else the second time."""
        if placement.name == "one" and call.request_id.endswith("-copy"):
            placement = placement.model_copy(update={"name": "another"})
        return await play(placement, call)

    server.stage.ask = unsteadily
    ids = [answer_id(ask, stream=number % 2 == 0) for number in range(ASKED)]
    asked_again = sum(bucket("floor", each) < 50 for each in ids)
    found = seen(server, release)
    assert found.floor.n == asked_again
    assert found.floor.disagreement == pytest.approx(asked_again / 3)
    assert found.compared == Comparison(n=ASKED, disagreement=0.0)


@pytest.mark.parametrize("trouble", [Actor(fails=10**6), Actor(status=400)])
def test_a_shadow_that_fails_is_an_error_and_is_not_compared(server, admin, ask, trouble) -> None:
    release = shadowed(server, admin, trouble)
    for number in range(ASKED):
        answer_id(ask, stream=number % 2 == 0)
    found = seen(server, release)
    assert found.candidate.errors == ASKED
    assert found.compared == found.floor == Comparison()
    assert found.stable.errors == 0


def chat_choice(index: int, text: str) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", "content": text}}


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ([chat_choice(0, "a b")], "a b"),
        ([chat_choice(1, "second"), chat_choice(0, "first")], "first\nsecond"),
        ([{"index": 0, "text": "a b"}], "a b"),
        ([{"index": 0, "message": {"content": None}}], ""),
        ([], ""),
    ],
)
def test_the_text_of_a_whole_answer(choices, text) -> None:
    assert text_of(json.dumps({"choices": choices}).encode()) == text


def event(*choices: dict[str, Any]) -> str:
    return f"data: {json.dumps({'choices': choices})}\n\n"


def test_the_text_of_a_stream_is_that_of_the_whole_answer() -> None:
    chat = [
        event({"index": 0, "delta": {"role": "assistant"}}, {"index": 1, "delta": {}}),
        event({"index": 1, "delta": {"content": "sec"}}) + event({"index": 0, "delta": {}}),
        event({"index": 0, "delta": {"content": "fir\n\nst"}}),
        event({"index": 1, "delta": {"content": "ond"}}),
        'data: {"choices": [], "usage": {"total_tokens": 9}}\n\n',
        "data: [DONE]\n\n",
    ]
    whole = json.dumps({"choices": [chat_choice(0, "fir\n\nst"), chat_choice(1, "second")]})
    assert text_of_events(chat) == text_of(whole.encode()) == "fir\n\nst\nsecond"
    cut = "".join(chat)
    assert text_of_events([cut[:50], cut[50:]]) == text_of_events(chat), "pieces are not events"
    plain = [event({"index": 0, "text": "a "}), event({"index": 0, "text": "b"})]
    assert text_of_events(plain) == "a b"
