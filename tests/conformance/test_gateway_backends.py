"""What every way to call variants has to do: the stage of the tests, and the handles of Ray Serve.

So what tests of the gateway see on the stage is what a gateway sees in production.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from played_variant import DIGEST, PLACEMENT, Played, PlayedByServe, PlayedHere, call
from ray import serve
from ray.serve.config import ProxyLocation

from serve_apps.gateway.backends import Late, Overloaded, Unavailable
from serve_apps.variants.calls import Answer, Opened, StreamEnd, StreamItem

Run = Callable[[Coroutine[Any, Any, Any]], Any]
NAME = f"played@{DIGEST[:12]}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of its own with Serve, that only handles reach and whose workers import what we can."""
    folder = Path(tempfile.mkdtemp(prefix="ztom-"))  # its socket names bear no long paths
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join(path or os.getcwd() for path in sys.path))
        patch.delenv("RAY_ADDRESS", raising=False)
        options = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address="local", include_dashboard=False, num_cpus=2, **options)
        serve.start(proxy_location=ProxyLocation.Disabled)
        yield
        serve.shutdown()
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["stage", "serve"])
def either(request: pytest.FixtureRequest) -> Played:
    if request.param == "stage":
        return PlayedHere()
    request.getfixturevalue("cluster")
    return PlayedByServe()


@pytest.fixture
def played(either: Played, run: Run) -> Played:
    run(either.behave())
    return either


def code(answer: Answer) -> str | None:
    document: dict[str, Any] = json.loads(answer.body)
    value: str | None = document["error"]["code"]
    return value


async def items_of(played: Played) -> list[StreamItem]:
    return [item async for item in played.backends.stream(PLACEMENT, call())]


def test_a_whole_answer_says_who_gave_it(played: Played, run: Run) -> None:
    answer = run(played.backends.ask(PLACEMENT, call()))
    assert (answer.status, answer.variant, answer.digest) == (200, NAME, DIGEST)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "I am played."
    assert (answer.prompt_tokens, answer.completion_tokens, answer.empty) == (3, 3, False)


def test_a_stream_is_opened_goes_on_and_ends(played: Played, run: Run) -> None:
    first, *pieces, last = run(items_of(played))
    assert first == Opened(NAME, DIGEST)
    assert isinstance(last, StreamEnd)
    assert replace(last, engine_s=0.0) == StreamEnd(3, 3, empty=False)
    assert last.engine_s > 0
    assert all(isinstance(piece, str) for piece in pieces)
    assert "".join(pieces).endswith("data: [DONE]\n\n")


def test_what_a_variant_refuses_comes_as_its_answer(played: Played, run: Run) -> None:
    run(played.behave(status=400))
    assert run(played.backends.ask(PLACEMENT, call())).status == 400
    (answer,) = run(items_of(played))
    assert isinstance(answer, Answer)
    assert answer.status == 400


def test_another_version_than_the_one_that_must_be_is_refused(played: Played, run: Run) -> None:
    run(played.behave(current="b" * 64))
    refused = run(played.backends.ask(PLACEMENT, call(exact=True)))
    assert (refused.status, code(refused)) == (503, "other_version")
    assert run(played.backends.ask(PLACEMENT, call())).status == 200


def test_no_answer_in_time_is_late(played: Played, run: Run) -> None:
    run(played.behave(hangs=True))
    soon = PLACEMENT.model_copy(update={"timeout_s": 0.5})
    with pytest.raises(Late):
        run(played.backends.ask(soon, call()))


def test_a_failure_before_the_answer_is_unavailable(played: Played, run: Run) -> None:
    run(played.behave(fails=1))
    with pytest.raises(Unavailable):
        run(played.backends.ask(PLACEMENT, call()))
    run(played.behave(fails=1))
    with pytest.raises(Unavailable):
        run(items_of(played))
    assert run(played.backends.ask(PLACEMENT, call())).status == 200


def test_a_stream_that_breaks_off_is_unavailable_after_what_arrived(
    played: Played, run: Run
) -> None:
    arrived: list[StreamItem] = []

    async def read() -> None:
        async for item in played.backends.stream(PLACEMENT, call()):
            arrived.append(item)

    run(played.behave(breaks_off=True))
    with pytest.raises(Unavailable):
        run(read())
    assert arrived[0] == Opened(NAME, DIGEST)
    assert len(arrived) == 2


def test_a_full_queue_is_overloaded(played: Played, run: Run) -> None:
    async def one_more() -> None:
        async with played.crowded():
            with pytest.raises(Overloaded):
                await played.backends.ask(PLACEMENT, call())

    run(one_more())
    assert run(played.backends.ask(PLACEMENT, call())).status == 200


def test_an_application_that_is_not_there_is_unavailable(played: Played, run: Run) -> None:
    nowhere = PLACEMENT.model_copy(update={"app": "variant-nowhere"})
    with pytest.raises(Unavailable):
        run(played.backends.ask(nowhere, call()))


def test_what_was_forgotten_is_found_again(played: Played, run: Run) -> None:
    assert run(played.backends.ask(PLACEMENT, call())).status == 200
    played.backends.forget(PLACEMENT.app)
    assert run(played.backends.ask(PLACEMENT, call())).status == 200
