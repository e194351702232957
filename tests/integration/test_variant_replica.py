"""Replicas of variants: calls and live swap with real vLLM, then behind a handle."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import psutil
import pytest
import ray
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.schema import ApplicationStatus
from replica_calls import CHAT, GREEDY, QUICK, Toy, call, choice, read, write_variants
from toy_variant import (
    CONTEXT,
    with_recipe,
)
from toys import TEXT

from serve_apps.variants.app import build
from serve_apps.variants.args import VARIANT_DEPLOYMENT, VariantArgs
from serve_apps.variants.calls import Answer, Call, Opened, StreamEnd
from serve_apps.variants.drain import Gate
from serve_apps.variants.replica import VariantReplica
from ztom.errors import (
    BlendError,
    ConfigError,
    EngineError,
    EngineTimeoutError,
    VariantError,
)


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> dict[str, Toy]:
    return write_variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="module")
def handle(variants, environment) -> Iterator[Any]:
    """Variant a as an application that only a handle reaches."""
    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    serve.start(proxy_location=ProxyLocation.Disabled)
    args = VariantArgs(
        variant=variants["a"].folder, live_swap=True, max_ongoing_requests=16, **QUICK
    )
    target = serve.RunTarget(build(args), name="variant-toy", route_prefix=None)
    serve.run_many([target], wait_for_applications_running=False)
    yield serve.get_deployment_handle(VARIANT_DEPLOYMENT, "variant-toy")
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def replica(variants, run, environment, handle) -> Iterator[VariantReplica]:
    """Variant b in this process; the application starts beside it."""
    args = VariantArgs(variant=variants["b"].folder, live_swap=True, health_timeout_s=1, **QUICK)
    replica = run(VariantReplica.start(args, on_gpu=False))
    yield replica
    replica.stop()


@pytest.fixture(scope="module")
def serving(handle, replica, variants) -> Any:
    """The handle once the application runs, which it does as its variant was written."""
    deadline = time.monotonic() + 600
    while serve.status().applications["variant-toy"].status != ApplicationStatus.RUNNING:
        assert time.monotonic() < deadline, serve.status()
        time.sleep(0.2)
    return handle


def scored(prompt: str = TEXT[1]) -> Call:
    return call({"prompt": prompt, **GREEDY, "logprobs": 1, "return_token_ids": True})


def same(one: Answer, other: Answer) -> None:
    """The same tokens, with the same log-probabilities."""
    ours, theirs = choice(one), choice(other)
    assert ours["token_ids"] == theirs["token_ids"]
    assert ours["text"] == theirs["text"]
    logprobs = theirs["logprobs"]["token_logprobs"]
    assert ours["logprobs"]["token_logprobs"] == pytest.approx(logprobs, abs=1e-5)


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.05)


# --- calls ----------------------------------------------------------------------------------------


def test_an_answer_says_who_gave_it_and_what_it_took(replica, variants, run):
    toy = variants["b"]
    answer = run(replica.ask(call(digest=toy.digest, request_id="r-1")))
    body = json.loads(answer.body)
    assert (answer.status, answer.empty) == (200, False)
    assert (answer.variant, answer.digest) == (toy.pinned, toy.digest)
    assert body["id"] == "cmpl-r-1"
    assert body["model"] == toy.pinned
    assert body["system_fingerprint"] == f"ztom-{toy.digest[:12]}"
    assert answer.prompt_tokens == body["usage"]["prompt_tokens"] > 0
    assert answer.completion_tokens == body["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("asks_for_usage", [True, False])
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_stream_is_opened_stamped_counted_and_ended(replica, variants, run, kind, asks_for_usage):
    toy = variants["b"]
    asked = {"messages": CHAT} if kind == "chat" else {"prompt": TEXT[2]}
    body = {**asked, **GREEDY, "stream": True}
    if asks_for_usage:
        body["stream_options"] = {"include_usage": True}
    whole = run(replica.ask(call({**asked, **GREEDY})))
    items, events = run(read(replica.stream(call(body))))
    assert items[0] == Opened(toy.pinned, toy.digest)
    end = StreamEnd(whole.prompt_tokens, whole.completion_tokens, empty=False)
    assert replace(items[-1], engine_s=0.0) == end
    assert items[-1].engine_s > 0
    assert all(event["model"] == toy.pinned for event in events)
    assert all(event["system_fingerprint"] == f"ztom-{toy.digest[:12]}" for event in events)
    assert ("usage" in events[-1]) == asks_for_usage
    assert all(event["choices"] for event in events[: -1 if asks_for_usage else None])
    parts = [event["choices"][0] for event in events if event["choices"]]
    if kind == "chat":
        text = "".join(part["delta"].get("content") or "" for part in parts)
        assert text == choice(whole)["message"]["content"]
    else:
        assert "".join(part["text"] for part in parts) == choice(whole)["text"]


def test_events_that_come_together_go_together(replica, run):
    body = {"prompt": list(TEXT), **GREEDY, "n": 4, "temperature": 1, "seed": 1}
    items, events = run(read(replica.stream(call(body))))
    pieces = [item for item in items if isinstance(item, str)]
    assert {part["index"] for event in events for part in event["choices"]} == set(range(16))
    assert len(pieces) < len(events) / 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": "a", "temperature": -1}, 400),
        ({"prompt": "a", "nonsense": 1}, 400),
        ({"prompt": "a", "stream": "yes"}, 400),
        ({"prompt": "fox " * CONTEXT}, 400),
        ({"messages": []}, 400),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_bad_calls_are_refused_before_anything_is_opened(replica, run, body, status, streamed):
    if streamed:
        (answer,), _ = run(read(replica.stream(call(body))))
    else:
        answer = run(replica.ask(call(body)))
    assert (answer.status, answer.completion_tokens, answer.empty) == (status, 0, False)
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"


def test_an_answer_without_text_is_told(replica, run):
    text = choice(run(replica.ask(call())))["text"]
    body = {"prompt": TEXT[0], **GREEDY, "stop": [text[:1]]}
    answer = run(replica.ask(call(body)))
    items, _ = run(read(replica.stream(call(body))))
    assert answer.empty
    assert items[-1].empty


def test_only_the_exact_variant_if_it_must_be(replica, variants, run):
    wanted = call(digest=variants["a"].digest, exact=True)
    refused = run(replica.ask(wanted))
    assert refused.status == 503
    assert json.loads(refused.body)["error"]["code"] == "other_version"
    assert run(replica.ask(replace(wanted, exact=False))).digest == variants["b"].digest
    assert run(replica.ask(replace(wanted, digest=variants["b"].digest))).status == 200


def test_state(replica, variants, run):
    before = run(replica.state())
    run(replica.ask(call()))
    after = run(replica.state())
    assert after.pid == os.getpid()
    assert after.digests == (variants["b"].digest,)
    assert after.generated_tokens - before.generated_tokens == 16
    assert after.steps > before.steps
    assert 2**27 < after.memory_bytes < 2**34


@pytest.mark.parametrize("after", [1, 3])
def test_a_stream_that_is_closed_ends_its_generation(replica, run, after):
    long = call({"prompt": "a", **GREEDY, "max_tokens": CONTEXT - 10})

    async def leave() -> None:
        async with aclosing(replica.stream(long)) as items:
            for _ in range(after):
                await anext(items)

    async def idle() -> bool:
        return (await replica.state()).running == 0

    before = run(replica.state()).generated_tokens
    run(leave())
    run(until(idle))
    assert run(replica.state()).generated_tokens - before < CONTEXT / 2


# --- live swap ------------------------------------------------------------------------------------


def test_swapped_in_weights_are_those_of_a_fresh_engine(replica, serving, variants, run):
    a, b = variants["a"], variants["b"]
    fresh_b, fresh_a = run(replica.ask(scored())), serving.ask.remote(scored()).result()
    assert (fresh_a.digest, fresh_b.digest) == (a.digest, b.digest)
    report = run(replica.swap(a.folder, None, 5))
    assert report.digest == a.digest
    assert 0 < report.seconds < 1
    same(run(replica.ask(scored())), fresh_a)
    assert run(replica.state()).digests == (a.digest,)
    run(replica.swap(b.folder, None, 5))
    same(run(replica.ask(scored())), fresh_b)


def test_a_swap_to_what_answers_already_is_no_work(replica, variants, run):
    report = run(replica.swap(variants["b"].folder, None, 5))
    assert (report.digest, report.seconds, report.waited_s) == (variants["b"].digest, 0, 0)


@pytest.mark.parametrize(
    ("target", "error", "named"),
    [
        ("other", VariantError, "the chain"),
        ("half", VariantError, "the dtype"),
        ("huge", BlendError, "overflow|not finite"),
        ("changed", VariantError, "changed model.safetensors"),
        ("retuned", VariantError, "generation_config.json"),
        ("missing", VariantError, "not a variant"),
    ],
)
def test_a_swap_that_fails_leaves_the_old_version(
    replica, variants, run, tmp_path, target, error, named
):
    toy = variants.get(target)
    folder = tmp_path / target if toy is None else toy.folder
    if target == "changed":
        shutil.copytree(variants["a"].folder, folder)
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
    elif target == "retuned":
        retuned = shutil.copytree(variants["a"].folder, tmp_path / "source")
        (retuned / "generation_config.json").write_text('{"temperature": 0.1}')
        with_recipe(retuned, folder)
    before = run(replica.ask(scored()))
    with pytest.raises(error, match=named):
        run(replica.swap(folder, None, 5))
    same(run(replica.ask(scored())), before)
    assert run(replica.state()).digests == (variants["b"].digest,)
    run(replica.check_health())


def test_a_swap_does_not_cut_off_what_is_running(replica, variants, run):
    long = call({"prompt": TEXT[0], **GREEDY, "max_tokens": 1000})

    async def swap_too_soon() -> tuple[Answer, Answer]:
        running = asyncio.create_task(replica.ask(long))
        await asyncio.sleep(0.1)
        swap = asyncio.create_task(replica.swap(variants["a"].folder, None, 0.2))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(replica.ask(call()))
        with pytest.raises(EngineTimeoutError, match="still running"):
            await swap
        assert not running.done()
        return await running, await waiting

    for answer in run(swap_too_soon()):
        assert (answer.status, answer.digest) == (200, variants["b"].digest)


@pytest.mark.abuse(55)
def test_an_engine_that_is_alive_and_stuck_is_noticed(replica, variants, run):
    (core,) = [p for p in psutil.Process().children() if "EngineCore" in " ".join(p.cmdline())]

    async def stop_and_go_on() -> Answer:
        await replica.check_health()
        core.suspend()
        try:
            waiting = asyncio.create_task(replica.ask(call()))
            with pytest.raises(EngineTimeoutError, match="no progress"):
                await replica.check_health()
            assert not waiting.done()
        finally:
            core.resume()
        answer = await waiting
        await replica.check_health()
        return answer

    assert run(stop_and_go_on()).digest == variants["b"].digest


def test_an_engine_without_memory_says_so_and_harms_nobody(replica, variants, run):
    args = VariantArgs(variant=variants["a"].folder, **{**QUICK, "kv_cache_gib": 1000})
    with pytest.raises(EngineError, match=r"(?i)memory"):
        run(VariantReplica.start(args, on_gpu=False))
    assert run(replica.ask(call())).digest == variants["b"].digest


def test_a_swap_goes_on_without_its_caller(replica, variants, run):
    async def leave() -> None:
        swap = asyncio.create_task(replica.swap(variants["a"].folder, None, 5))
        await asyncio.sleep(0.01)
        swap.cancel()

    async def swapped() -> bool:
        return (await replica.state()).digests == (variants["a"].digest,)

    run(leave())
    run(until(swapped))
    run(replica.swap(variants["b"].folder, None, 5))


def test_a_replica_without_usable_weights_is_unhealthy_and_answers_nothing(
    replica, monkeypatch, run
):
    monkeypatch.setattr(replica._swap, "broken", "a swap failed: there are no usable weights")
    with pytest.raises(EngineError, match="no usable weights"):
        run(replica.check_health())
    answer = run(replica.ask(call()))
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["code"] == "engine_restarting"


def test_without_live_swap_nothing_is_held(replica, variants, run):
    plain = VariantReplica(replica.engine, Gate(), None)
    with pytest.raises(ConfigError, match="cannot swap"):
        run(plain.swap(variants["a"].folder, None, 1))
    assert plain.digests == (variants["b"].digest,)


# --- behind a handle ------------------------------------------------------------------------------


def test_cancelling_a_response_ends_its_generation(serving, run):
    long = call({"prompt": "a", **GREEDY, "max_tokens": CONTEXT - 10})

    async def cancel(streamed: bool) -> int:
        before = await serving.state.remote()
        if streamed:
            response = serving.options(stream=True).stream.remote(long)
            assert isinstance(await anext(response), Opened)
        else:
            response = serving.ask.remote(long)
            await until(lambda: running(1))
        response.cancel()
        await until(lambda: running(0))
        return (await serving.state.remote()).generated_tokens - before.generated_tokens

    async def running(count: int) -> bool:
        return (await serving.state.remote()).running == count

    assert run(cancel(False)) < CONTEXT / 2
    assert run(cancel(True)) < CONTEXT / 2


def test_no_answer_mixes_two_versions(serving, variants, run):
    """Answers and streams, more at once than fit, while the variants change places all the time."""
    toys = {toy.digest: toy for toy in (variants["a"], variants["b"])}
    bodies = [{"prompt": prompt, **GREEDY, "max_tokens": 24} for prompt in TEXT]
    bodies += [{"messages": [{"role": "user", "content": text}], **GREEDY} for text in TEXT]
    expected: dict[tuple[str, int], str] = {}
    served: list[str] = []

    async def swap(digest: str) -> None:
        folder = str(toys[digest].folder)
        (report,) = await serving.broadcast("swap", folder, None, 30).results_async()
        assert report.digest == digest

    async def ask(number: int, digest: str) -> tuple[str, str]:
        answer = await serving.ask.remote(call(bodies[number], digest))
        body = json.loads(answer.body)
        assert body["model"] == answer.variant == toys[answer.digest].pinned
        assert body["system_fingerprint"] == f"ztom-{answer.digest[:12]}"
        got = choice(answer)
        return answer.digest, got["message"]["content"] if "message" in got else got["text"]

    async def stream(number: int, digest: str) -> tuple[str, str]:
        response = serving.options(stream=True).stream.remote(call(bodies[number], digest))
        (opened, *_), events = await read(response)
        assert {event["model"] for event in events} == {opened.variant}
        assert {e["system_fingerprint"] for e in events} == {f"ztom-{opened.digest[:12]}"}
        parts = [event["choices"][0] for event in events]
        texts = [p["delta"].get("content") or "" if "delta" in p else p["text"] for p in parts]
        return opened.digest, "".join(texts)

    async def client(numbers: Iterator[int]) -> None:
        for request in numbers:
            number = request % len(bodies)
            way = stream if request % 3 == 0 else ask
            digest, text = await way(number, "0" * 64)
            assert text == expected[digest, number]
            served.append(digest)

    async def load() -> int:
        for digest in [*toys, next(iter(toys))]:
            await swap(digest)
            for number in range(len(bodies)):
                expected[digest, number] = (await ask(number, digest))[1]
        numbers = iter(range(240))
        clients = asyncio.gather(*(client(numbers) for _ in range(20)))
        swaps = 0
        for digest in itertools.cycle(reversed(toys)):
            if clients.done():
                break
            await swap(digest)
            swaps += 1
            await asyncio.sleep(0.15)
        await clients
        return swaps

    assert run(load()) >= 5
    assert len(served) == 240
    assert all(served.count(digest) > 20 for digest in toys)
    assert len(set(expected.values())) == len(expected)
    assert sum(x != y for x, y in itertools.pairwise(served)) >= 3
