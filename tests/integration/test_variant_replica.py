"""Replicas of variants: calls, live swap and shared bases, with real vLLM, then behind a handle."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.schema import ApplicationStatus
from safetensors.torch import load_file, save_file
from toy_variant import (
    CONTEXT,
    open_brittle_chain,
    open_toy_adapters,
    open_toy_chain,
    with_recipe,
    write_blend,
)
from toys import TEXT
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve_apps.variants.adapters import AdapterShelf, NotLoadedError
from serve_apps.variants.app import build
from serve_apps.variants.args import VARIANT_DEPLOYMENT, BaseArgs, VariantArgs
from serve_apps.variants.calls import Answer, Call, Opened, StreamEnd
from serve_apps.variants.drain import Gate
from serve_apps.variants.identity import ModelIdentity
from serve_apps.variants.replica import SharedReplica, VariantReplica
from serve_apps.variants.swap import LiveSwap, read_blended
from ztom.errors import (
    AdapterUnsupportedError,
    BlendError,
    CheckpointError,
    ConfigError,
    EngineError,
    EngineTimeoutError,
    VariantError,
)
from ztom.variants import verify_manifest

FACTORS = {"a": (-0.4, 0.3), "b": (0.6, -0.8)}
QUICK = {"dtype": "float32", "kv_cache_gib": 0.05}
GREEDY = {"max_tokens": 16, "temperature": 0, "ignore_eos": True}
CHAT = [{"role": "user", "content": "How does one open a file?"}]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(frozen=True)
class Toy:
    """A written variant."""

    folder: Path

    @property
    def digest(self) -> str:
        return verify_manifest(self.folder).digest

    @property
    def pinned(self) -> str:
        return f"{self.folder.name}@{self.digest[:12]}"


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> dict[str, Toy]:
    """Two blends of one chain, and what must not take their place."""
    folder = tmp_path_factory.mktemp("variants")
    chain = open_brittle_chain(folder / "chain")
    toys = {
        name: Toy(write_blend(chain, factors, folder / name)) for name, factors in FACTORS.items()
    }
    other = open_toy_chain(folder / "other-chain", seed=1)
    toys["other"] = Toy(write_blend(other, FACTORS["b"], folder / "other"))
    toys["huge"] = Toy(with_recipe(toys["b"].folder, folder / "huge", factors=(0.6, 3e38)))
    toys["half"] = Toy(write_blend(chain, FACTORS["b"], folder / "half", dtype="bfloat16"))
    return toys


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs coroutines on the one event loop that the engines of this module live on."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """What replicas set for their process is undone, and Ray's folder has a short name."""
    folder = Path(tempfile.mkdtemp(prefix="ztom-"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in os.environ.items():
            patch.setenv(name, value)
        for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
    shutil.rmtree(folder, ignore_errors=True)


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


def call(body: dict[str, Any] | None = None, digest: str = "0" * 64, **more: Any) -> Call:
    body = {"prompt": TEXT[0], **GREEDY} if body is None else body
    kind = "chat" if "messages" in body else "completion"
    return Call(kind, body, digest, more.pop("request_id", "abc"), **more)


def choice(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["choices"][0]


def scored(prompt: str = TEXT[1]) -> Call:
    return call({"prompt": prompt, **GREEDY, "logprobs": 1, "return_token_ids": True})


def same(one: Answer, other: Answer) -> None:
    """The same tokens, with the same log-probabilities."""
    ours, theirs = choice(one), choice(other)
    assert ours["token_ids"] == theirs["token_ids"]
    assert ours["text"] == theirs["text"]
    logprobs = theirs["logprobs"]["token_logprobs"]
    assert ours["logprobs"]["token_logprobs"] == pytest.approx(logprobs, abs=1e-5)


async def read(items: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """The items of a stream, and its events."""
    got = [item async for item in items]
    text = "".join(item for item in got if isinstance(item, str))
    lines = [line for line in text.split("\n\n") if line]
    assert not lines or lines.pop() == "data: [DONE]"
    return got, [json.loads(line.removeprefix("data: ")) for line in lines]


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
    assert items[-1] == StreamEnd(whole.prompt_tokens, whole.completion_tokens, empty=False)
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


def test_an_engine_that_is_alive_and_stuck_is_noticed(replica, variants, run):  # row 55
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


def test_no_chain_is_held_that_is_gone(variants, tmp_path, run):
    members = read_blended(variants["a"].folder, None).recipe.members
    moved = tuple(m.model_copy(update={"reference": str(tmp_path / m.tag)}) for m in members)
    blended = read_blended(with_recipe(variants["a"].folder, tmp_path / "a", members=moved), None)
    with pytest.raises(OSError, match="no checkpoint folder"):
        run(LiveSwap.prepare(FakeEngine(), Gate(), blended, "old"))


class FakeEngine:
    """Does what it is told, and fails at what it is told."""

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.done: list[str] = []

    def face(self, identity: ModelIdentity, *, adapter_number: int = 0) -> Any:
        return f"{identity.name} {adapter_number}" if adapter_number else identity.name

    async def _do(self, what: str) -> None:
        await asyncio.sleep(0)
        self.done.append(what)
        if what in self.fails:
            raise BlendError(what) if what == "blend" else EngineError(what)

    async def blend(self, factors: Any, *, instead: Any) -> None:
        await self._do("blend")

    async def restore(self, factors: Any) -> None:
        await self._do("restore")

    async def forget_prefixes(self) -> None:
        await self._do("forget")

    async def prove_one_token(self, face: Any) -> None:
        await self._do(f"prove {face}")

    async def load_adapter(self, face: Any) -> None:
        await self._do(f"load {face}")

    async def remove_adapter(self, face: Any) -> None:
        await self._do(f"remove {face}")


@pytest.mark.parametrize(
    ("fails", "broken", "does"),
    [
        (("blend",), False, ["blend", "restore", "forget", "prove old"]),
        (
            ("prove b",),
            False,
            ["blend", "forget", "prove b", "restore", "forget", "prove old"],
        ),
        (("blend", "restore"), True, ["blend", "restore"]),
        (("blend", "prove old"), True, ["blend", "restore", "forget", "prove old"]),
    ],
)
def test_the_way_back(variants, run, fails, broken, does):
    engine, gate = FakeEngine(*fails), Gate()
    swap = LiveSwap(engine, gate, read_blended(variants["a"].folder, None), "old")
    with pytest.raises((BlendError, EngineError)):
        run(swap.to(variants["b"].folder, None, 1))
    assert engine.done == does
    assert swap.face == "old"
    assert bool(swap.broken) == broken
    assert gate.is_open
    if broken:
        with pytest.raises(EngineError, match="no usable weights"):
            run(swap.to(variants["b"].folder, None, 1))


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


def test_the_gate(run):
    async def through() -> list[str]:
        gate, seen = Gate(), []

        async def visit(name: str, stay_s: float) -> None:
            async with gate.passing():
                seen.append(f"in {name}")
                await asyncio.sleep(stay_s)
                seen.append(f"out {name}")

        first = asyncio.create_task(visit("1", 0.05))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with gate.shut(0.001):
                pytest.fail("somebody was inside")
        assert gate.is_open
        async with gate.shut(1):
            seen.append("shut")
            second = asyncio.create_task(visit("2", 0))
            await asyncio.sleep(0.01)
            seen.append("open")
        await asyncio.gather(first, second)
        return seen

    assert run(through()) == ["in 1", "out 1", "shut", "open", "in 2", "out 2"]


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


# --- adapters on a shared base --------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, Toy]:
    """Four adapters of one base, two of them also as full weights, and one of another base."""
    folder = tmp_path_factory.mktemp("adapters")
    chain = open_toy_adapters(folder / "chain")
    factors = {"x": (0.5, 0.2), "y": (0.0, -0.9), "z": (0.0, 0.0), "w": (-0.3, 0.6)}
    toys = {n: Toy(write_blend(chain, f, folder / n, form="adapter")) for n, f in factors.items()}
    for name in "xy":
        toys[f"dense-{name}"] = Toy(write_blend(chain, factors[name], folder / f"dense-{name}"))
    other = open_toy_adapters(folder / "other", seed=1)
    toys["foreign"] = Toy(write_blend(other, factors["x"], folder / "foreign", form="adapter"))
    many = open_toy_adapters(folder / "many", count=5)
    rising = (0.1, 0.2, 0.3, 0.4, 0.5)  # so that no adapter cancels out
    toys["high"] = Toy(write_blend(many, rising, folder / "high", form="adapter"))
    toys["base"] = Toy(folder / "chain" / "base" / "00")
    return toys


@pytest.fixture(scope="module")
def base_args(adapters) -> BaseArgs:
    from ztom.variants.recipe import read_recipe

    member = read_recipe(adapters["x"].folder).members[0]
    return BaseArgs(
        base=member.reference,
        digest=member.sha256,
        max_loras=2,
        max_cpu_loras=3,
        max_lora_rank=16,
        **QUICK,
    )


@pytest.fixture(scope="module")
def shared(base_args, run, environment) -> Iterator[SharedReplica]:
    replica = run(SharedReplica.start(base_args, on_gpu=False))
    yield replica
    replica.stop()


def wanted(toy: Toy, body: dict[str, Any] | None = None) -> Call:
    return call(body, toy.digest, folder=str(toy.folder), name=toy.folder.name)


def transformers_answer(folder: Path, prompt: str, count: int) -> tuple[list[int], list[float]]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt").input_ids
    made = model.generate(
        ids,
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = made.sequences[0, ids.shape[1] :].tolist()
    rows = [logits[0].log_softmax(-1) for logits in made.logits]
    return tokens, [float(row[token]) for row, token in zip(rows, tokens, strict=True)]


@pytest.mark.parametrize("name", ["x", "y"])
def test_an_adapter_answers_as_its_dense_blend(shared, adapters, run, name):
    dense, toy = adapters[f"dense-{name}"], adapters[name]
    body = {"prompt": TEXT[0], **GREEDY, "logprobs": 1, "return_token_ids": True}
    tokens, logprobs = transformers_answer(dense.folder, TEXT[0], 16)
    answer = run(shared.ask(wanted(toy, body)))
    assert (answer.variant, answer.digest) == (toy.pinned, toy.digest)
    assert json.loads(answer.body)["model"] == toy.pinned
    assert json.loads(answer.body)["system_fingerprint"] == f"ztom-{toy.digest[:12]}"
    got = choice(answer)
    assert got["token_ids"][:8] == tokens[:8]
    assert got["token_ids"] == tokens
    assert got["logprobs"]["token_logprobs"] == pytest.approx(logprobs, abs=1e-4)


def test_adapters_do_not_see_each_others_prefixes(shared, adapters, run):
    """One long prompt, first alone, then mixed in one batch and with the cache full of it."""
    body = {"prompt": " ".join(TEXT * 4), **GREEDY}
    toys = [adapters[name] for name in "xyz"]
    alone = [choice(run(shared.ask(wanted(toy, body))))["text"] for toy in toys]
    assert len(set(alone)) == len(toys)

    async def together() -> list[Answer]:
        return await asyncio.gather(*(shared.ask(wanted(toy, body)) for toy in toys * 4))

    answers = run(together())
    assert [choice(answer)["text"] for answer in answers] == alone * 4
    assert [answer.digest for answer in answers] == [toy.digest for toy in toys] * 4


def test_more_adapters_than_places_take_turns(shared, adapters, run):
    toys = [adapters[name] for name in "xyzw"]

    async def together() -> list[Answer]:
        return await asyncio.gather(*(shared.ask(wanted(toy)) for toy in toys * 5))

    answers = run(together())
    assert [(answer.status, answer.digest) for answer in answers] == [
        (200, toy.digest) for toy in toys
    ] * 5
    assert len(shared._shelf.loaded) == 3
    assert set(shared.digests) >= {toy.digest for toy in toys}
    # one that had to go is read again without being told where it is
    assert all(run(shared.ask(call(digest=toy.digest))).status == 200 for toy in toys)


def test_an_adapter_streams_under_its_own_name(shared, adapters, run):
    toy = adapters["y"]
    items, events = run(read(shared.stream(wanted(toy, {"messages": CHAT, **GREEDY}))))
    assert items[0] == Opened(toy.pinned, toy.digest)
    assert {event["model"] for event in events} == {toy.pinned}
    assert items[-1].completion_tokens == 16


def test_an_adapter_answers_under_the_name_that_it_is_asked_by(shared, adapters, run):
    toy = adapters["x"]
    texts = set()
    for told, bears in (("x", "x"), ("new", "new"), (None, "new"), ("x", "x")):
        answer = run(shared.ask(replace(wanted(toy), name=told)))
        assert answer.variant == f"{bears}@{toy.digest[:12]}"
        assert json.loads(answer.body)["model"] == answer.variant
        texts.add(choice(answer)["text"])
    assert len(texts) == 1


def test_an_adapter_that_is_forgotten_has_to_be_told_of_again(shared, adapters, run):
    toy = adapters["z"]
    run(shared.forget(toy.digest))
    run(shared.load(toy.digest, toy.folder, "zed"))
    assert run(shared.ask(call(digest=toy.digest))).variant == f"zed@{toy.digest[:12]}"
    run(shared.forget(toy.digest))
    run(shared.forget(toy.digest))
    assert toy.digest not in shared.digests
    answer = run(shared.ask(call(digest=toy.digest)))
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["code"] == "variant_not_loaded"
    assert run(shared.ask(wanted(toy))).status == 200


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("foreign", "another base"),
        ("dense-x", "no adapter"),
        ("high", "rank"),
        ("changed", "changed adapter_model.safetensors"),
        ("swapped", "another variant"),
    ],
)
def test_what_does_not_belong_on_the_base_is_refused(shared, adapters, run, tmp_path, name, named):
    toy = adapters.get(name) or Toy(shutil.copytree(adapters["x"].folder, tmp_path / name))
    digest = adapters["y"].digest if name == "swapped" else toy.digest
    if name == "swapped":
        run(shared.forget(digest))
    if name == "changed":
        with (toy.folder / "adapter_model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x7f")
        digest = adapters["w"].digest[::-1]
    with pytest.raises(VariantError, match=named):
        run(shared.load(digest, toy.folder, None))
    answer = run(shared.ask(call(digest=digest, folder=str(toy.folder), name=name)))
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["code"] == "variant_unusable"
    assert str(tmp_path) not in answer.body.decode()
    assert run(shared.ask(wanted(adapters["x"]))).status == 200


def test_an_adapter_of_a_module_that_the_base_lacks_is_refused(shared, adapters, run, tmp_path):
    """vLLM knows the last part of its name and would answer without it."""
    folder = shutil.copytree(adapters["y"].folder, tmp_path / "elsewhere")
    tensors = load_file(folder / "adapter_model.safetensors")
    moved = {
        name.replace(".layers.1.mlp.up_", ".layers.9.mlp.up_"): t for name, t in tensors.items()
    }
    assert moved.keys() != tensors.keys()
    save_file(moved, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    toy = Toy(with_recipe(folder, tmp_path / "variant"))
    with pytest.raises(AdapterUnsupportedError, match=r"layers\.9\.mlp\.up_proj"):
        run(shared.load(toy.digest, toy.folder, None))
    assert run(shared.ask(wanted(toy))).status == 503
    assert run(shared.ask(wanted(adapters["x"]))).status == 200


def test_a_base_that_is_not_the_one_is_not_served(base_args, run):
    with pytest.raises(CheckpointError, match="pinned"):
        run(SharedReplica.start(base_args.model_copy(update={"digest": "0" * 64}), on_gpu=False))


def test_another_name_is_a_new_face_of_what_is_loaded(adapters, base_args, run):
    engine, toy = FakeEngine(), adapters["x"]
    shelf = AdapterShelf(engine, places=1, base_digest=base_args.digest, max_rank=16)

    async def face(name: str | None) -> Any:
        async with shelf.holding(toy.digest, toy.folder, name) as face:
            return face

    async def visit() -> None:
        async with shelf.holding(toy.digest, toy.folder) as old:
            assert await face("new") == "new 1"
            assert old == "x 1", "a request that has begun keeps its name"
        assert await face(None) == "new 1"
        await shelf.forget(toy.digest)

    run(visit())
    assert engine.done == ["load x 1", "prove x 1", "remove new 1"]


def test_the_shelf_keeps_what_is_held_and_numbers_are_never_used_twice(adapters, base_args, run):
    engine = FakeEngine("load w 4")
    shelf = AdapterShelf(engine, places=2, base_digest=base_args.digest, max_rank=16)
    x, y, z, w = (adapters[name] for name in "xyzw")

    async def use(toy: Toy) -> Any:
        async with shelf.holding(toy.digest, toy.folder) as face:
            return face

    async def visit() -> None:
        async with shelf.holding(x.digest, x.folder) as held:
            assert held == "x 1"
            # two at once load it once
            assert await asyncio.gather(use(y), use(y)) == ["y 2", "y 2"]
            assert await use(z) == "z 3"  # y goes: x is held
            with pytest.raises(EngineError, match="load w 4"):
                await use(w)  # and its place is free again
            assert await use(y) == "y 5"
            forgetting = asyncio.create_task(shelf.forget(x.digest))
            await asyncio.sleep(0.05)
            assert not forgetting.done()
            async with shelf.holding(y.digest):
                waiting = asyncio.create_task(use(z))
                await asyncio.sleep(0.05)
                assert not waiting.done()  # both places are held
        await forgetting
        assert await waiting == "z 6"
        with pytest.raises(NotLoadedError):
            async with shelf.holding(x.digest):
                pass

    run(visit())
    assert engine.done.count("remove y 2") == 1
    assert "remove x 1" in engine.done
    assert shelf.loaded[-1] == z.digest
