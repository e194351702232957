"""Variants behind the gateway on real Ray and real vLLM: rollouts, swaps and kills under traffic.

One server, and a few engines on toy variants. Every test has the endpoint that it is about brought
to where it begins (`support`, `adapter`), which is no work when the test before it left it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from server_helpers import PASSWORD
from toy_variant import open_toy_adapters, open_toy_chain, write_blend
from traffic import Traffic
from up import Up, wait_for

from ztom.client import Client
from ztom.ledger.ledger import Ledger
from ztom.variants.manifest import read_manifest
from ztom.wire.endpoints import Endpoint

SMALL = {"kv_cache_gib": 0.05, "max_model_len": 512, "num_cpus": 1, "health_period_s": 2}
PROMPTS = [f"the quick brown fox number {n}" for n in range(8)]
TOKENS = 10
#: Factors of full weights; one of them is broken by its test.
VARIANTS = {"a": (-0.4, 0.3), "b": (0.2, -0.3), "c": (0.9, 0.5), "broken": (0.3, 0.3)}
#: A name and some of its labels.
Series = tuple[str, dict[str, str]]
#: How often Ray hands on what it has counted: an engine that idles is seen, and metrics are there,
#: seconds earlier than with Ray's ten. What is measured stays for two reports, and the controller
#: measures every five seconds: reports may not come much faster.
BRISK = {
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_metrics_report_interval_ms": "4000",
}
#: Of adapters here: their engine leaves when nobody asks.
FLEETING = {"min_replicas": 0, "idle_s": 2, "timeout_s": 300}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    server = Up(tmp_path_factory.mktemp("gateway"), environment=BRISK)
    roots = server.home / "roots"
    roots.mkdir()
    chain = open_toy_chain(roots / "chain")
    for name, factors in VARIANTS.items():
        write_blend(chain, factors, roots / name)
    adapters = open_toy_adapters(roots / "adapters")
    for name, factors in (("l1", (0.1, 0.1)), ("l2", (0.5, -0.5))):
        write_blend(adapters, factors, roots / name, form="adapter")
    options = ["--data", str(server.data), "--password-stdin"]
    server.ztom("admin", "create", "root", "root@example.org", *options, input=PASSWORD + "\n")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def admin(up: Up) -> Iterator[Client]:
    with Client.login(up.url, "root", PASSWORD) as client:
        yield client


@pytest.fixture(scope="module")
def ask(up: Up, admin: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{up.url}/v1", api_key=admin.key, max_retries=0, timeout=300
    ) as client:
        yield client


def digest_of(up: Up, name: str) -> str:
    return read_manifest(up.home / "roots" / name).digest


def named(up: Up, name: str) -> str:
    return f"{name}@{digest_of(up, name)[:12]}"


def deploy(up: Up, admin: Client, name: str, alias: str = "support", **wishes: Any) -> None:
    wishes["options"] = {**SMALL, **wishes.get("options", {})}
    folder = up.home / "roots" / name
    admin.endpoints.deploy(alias, path=folder, name=name, insist=True, **wishes)
    digest = digest_of(up, name)

    def ready() -> bool:
        found = admin.endpoints.deployment(digest)
        assert found.state != "failed", found.reason
        return found.state == "ready" and found.intent is None

    wait_for(ready, 1200)


def endpoint_of(admin: Client, alias: str) -> Endpoint | None:
    return next((item for item in admin.endpoints.all() if item.alias == alias), None)


def support(up: Up, admin: Client, ask: openai.OpenAI, stable: str = "a") -> None:
    """Have `support` answered by a, or by c that was swapped into the engine of a."""
    wanted = named(up, stable)
    now = endpoint_of(admin, "support")
    if now is None:
        deploy(up, admin, "a", options={"live_swap": True})
    elif now.stable not in (wanted, named(up, "a")):
        admin.endpoints.rollback("support")
    if stable != "a" and (now is None or now.stable != wanted):
        deploy(up, admin, stable, live=True)
    wait_for(lambda: one(ask, "support", PROMPTS[0], False, {})[0] == wanted)


def adapter(up: Up, admin: Client, name: str, alias: str) -> None:
    """Have an adapter answer for an alias."""
    now = endpoint_of(admin, alias)
    if now is None or now.stable != named(up, name):
        deploy(up, admin, name, alias=alias, options=FLEETING)


def completions(
    ask: openai.OpenAI, *, model: str = "support"
) -> Traffic[tuple[str, str, str, float]]:
    """Users who have prompts completed, whole and streaming in turn; see `one` for an answer."""

    def complete(number: int, turn: int) -> tuple[str, str, str, float]:
        prompt = PROMPTS[(number + turn) % len(PROMPTS)]
        return one(ask, model, prompt, turn % 2 == 0, {"x-ztom-sticky": f"{number}-{turn}"})

    return Traffic(complete, pause_s=0.03)


def count_of(traffic: Traffic[tuple[str, str, str, float]], variant: str) -> int:
    return sum(name == variant for name, *_ in traffic.answers)


def one(
    ask: openai.OpenAI, model: str, prompt: str, stream: bool, headers: dict[str, str]
) -> tuple[str, str, str, float]:
    """The variant that an answer claims, its prompt and text, and when it had come."""
    raw = ask.completions.with_raw_response.create(
        model=model,
        prompt=prompt,
        max_tokens=TOKENS,
        temperature=0,
        stream=stream,
        extra_headers=headers,
    )
    if stream:
        text = ""
        for chunk in raw.parse():
            assert chunk.model == raw.headers["x-ztom-variant"]
            text += chunk.choices[0].text
    else:
        answer = raw.parse()
        assert answer.model == raw.headers["x-ztom-variant"]
        text = answer.choices[0].text
    return raw.headers["x-ztom-variant"], prompt, text, time.monotonic()


def test_a_variant_answers_whole_streaming_sync_and_async(up, admin, ask) -> None:
    support(up, admin, ask)
    whole = one(ask, "support", PROMPTS[0], False, {})
    assert whole[0] == named(up, "a")
    assert whole[2] == one(ask, "support", PROMPTS[0], True, {})[2]

    async def ask_async() -> str:
        async with openai.AsyncOpenAI(base_url=f"{up.url}/v1", api_key=admin.key) as client:
            stream = await client.completions.create(
                model=named(up, "a"),
                prompt=PROMPTS[0],
                max_tokens=TOKENS,
                temperature=0,
                stream=True,
            )
            return "".join([chunk.choices[0].text async for chunk in stream])

    assert asyncio.run(ask_async()) == whole[2]
    with pytest.raises(openai.BadRequestError) as refused:
        ask.completions.create(model="support", prompt="x " * 2000)
    assert refused.value.code == "context_length_exceeded"
    answer = ask.completions.create(
        model="support", prompt="a", n=2, logprobs=1, stop=["zz"], seed=1
    )
    assert len(answer.choices) == 2
    admin.endpoints.feedback(answer.id, score=0.5)


def test_canary_rollback_and_live_swap_lose_no_request(up, admin, ask) -> None:
    a, b, c = (named(up, name) for name in "abc")
    support(up, admin, ask)
    with completions(ask) as traffic:
        deploy(up, admin, "b", canary=50)
        traffic.after(40)
        assert count_of(traffic, b) > 5
        admin.endpoints.rollback("support")
        told = time.monotonic()
        traffic.after(40)
        late = [at - told for name, _, _, at in traffic.answers if name == b]
        # what had begun before may end later; a request itself takes a while on a busy machine
        assert max(late) < 3
        for name in ("c", "back", "c"):
            if name == "c":
                deploy(up, admin, "c", live=True)
            else:
                admin.endpoints.rollback("support")
            traffic.after(40)
    assert traffic.failures == []
    assert {name for name, *_ in traffic.answers} == {a, b, c}
    # each version gives one answer to a prompt: an answer of another version would stand out
    texts = {(name, prompt): Counter() for name, prompt, *_ in traffic.answers}
    for name, prompt, text, _ in traffic.answers:
        texts[name, prompt][text] += 1
    assert all(len(given) == 1 for given in texts.values())
    differ = sum(texts.get((a, p)) != texts.get((c, p)) for p in PROMPTS)
    assert differ > len(PROMPTS) // 2, "the versions are too alike for this test"
    apps = admin.endpoints.deployments()
    ready = {each.name for each in apps if each.state == "ready"}
    assert ready - {"l1", "l2"} == {"a", "c"}


@pytest.mark.abuse(70, 91)
def test_a_broken_variant_leaves_everything_as_it_was(up, admin, ask) -> None:
    support(up, admin, ask)
    folder = up.home / "roots" / "broken"
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    before = one(ask, "support", PROMPTS[1], False, {})
    admin.endpoints.deploy("support", path=folder, name="broken", insist=True, now=True)
    failed = wait_for(
        lambda: (d := admin.endpoints.deployment(digest_of(up, "broken"))).state == "failed" and d,
        60,
    )
    assert "changed model.safetensors" in failed.reason
    assert one(ask, "support", PROMPTS[1], False, {})[:3] == before[:3]


@pytest.mark.abuse(66)
def test_killed_controller_costs_nothing_and_comes_back(up, admin, ask) -> None:
    support(up, admin, ask, "c")
    pid = up.replica("ztom:controller").pid
    with completions(ask) as traffic:
        psutil.Process(pid).kill()
        traffic.after(60)
        admin.endpoints.rollback("support")  # needs no controller
        traffic.after(60)

        wait_for(lambda: {p.pid for p in up.replicas("ztom:controller")} - {pid})
    assert traffic.failures == []
    a = named(up, "a")
    wait_for(lambda: one(ask, "support", PROMPTS[0], False, {})[0] == a)


@pytest.mark.abuse(54, 68)
def test_a_killed_replica_costs_streams_in_work_only(up, admin, ask) -> None:
    support(up, admin, ask)
    with ThreadPoolExecutor(12) as pool:
        before = [pool.submit(one, ask, "support", PROMPTS[i % 8], False, {}) for i in range(12)]
        up.replica("variant-a").kill()
        after = [pool.submit(one, ask, "support", PROMPTS[i % 8], True, {}) for i in range(12)]
        answers = [each.result(600) for each in before]
        # sent after the kill: nothing of them had begun
        answers += [each.result(600) for each in after]
    assert len(answers) == 24


@pytest.mark.abuse(57)
def test_a_variant_that_serve_has_given_up_is_deployed_again(up, admin, ask) -> None:
    """Its weights are not what they were while its replica and Serve's controller die."""
    support(up, admin, ask)
    digest, weights = digest_of(up, "a"), up.roots / "a" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (controller,) = (p for p in up.children() if "ray::ServeController" in " ".join(p.cmdline()))
    controller.kill()
    up.replica("variant-a").kill()
    lost = wait_for(lambda: admin.endpoints.deployment(digest).reason, 600)
    assert lost.startswith("all of its replicas are lost; it is deployed again (try 1, after 5 s)")
    assert "changed model.safetensors" in lost
    weights.write_bytes(content)
    wait_for(lambda: admin.endpoints.deployment(digest).reason is None, 600)
    assert one(ask, "support", PROMPTS[0], False, {})[0] == named(up, "a")


def test_adapters_share_an_engine_and_idle_ones_leave_and_come_back(up, admin, ask) -> None:
    adapter(up, admin, "l1", "one")
    adapter(up, admin, "l2", "two")
    first, second = (one(ask, alias, PROMPTS[0], False, {}) for alias in ("one", "two"))
    assert first[0] == named(up, "l1")
    assert second[0] == named(up, "l2")
    assert first[2] != second[2]

    assert len(up.replicas("base-")) == 1
    wait_for(lambda: not up.replicas("base-"), 900)
    woken = one(ask, "two", PROMPTS[0], True, {})
    assert woken[:3] == second[:3]


@pytest.mark.abuse(66)
def test_a_release_goes_on_where_its_killed_controller_stopped(up, admin, ask) -> None:
    l1, l2 = (named(up, name) for name in ("l1", "l2"))
    adapter(up, admin, "l1", "released")
    adapter(up, admin, "l2", "two")
    # both share an engine that is there; a step of ten seconds is not over before the kill
    plan = {
        "steps": [{"shadow": 100}, {"canary": 50, "min_seconds": 10}, {"canary": 100}],
        "min_requests": 20,
        "min_seconds": 0,
        "checks": {"error_rate": 0.5, "empty": 0.5, "latency": None, "disagreement": None},
    }
    killed = None
    with completions(ask, model="released") as traffic:
        traffic.after(4)
        deploy(up, admin, "l2", alias="released", options=FLEETING, plan=plan)
        (release,) = admin.endpoints.releases("released")
        seen = []
        for now in admin.endpoints.watch(release.id):
            seen.append((now.state.step, now.state.seconds))
            if killed is None and seen[-1] > (1, 0.0):
                killed = up.replica("ztom:controller").pid
                psutil.Process(killed).kill()
        traffic.after(20)
    assert killed is not None
    assert killed not in {each.pid for each in up.replicas("ztom:controller")}
    assert traffic.failures == []
    assert {name for name, *_ in traffic.answers} == {l1, l2}
    assert now.status == "promoted"
    assert seen == sorted(seen), "no step, and no second of one, is watched again"
    endpoint = admin.endpoints.get("released")
    assert (endpoint.stable, endpoint.previous) == (l2, l1)
    with Ledger.open(up.data / "ledger.db") as ledger:
        events = [entry.event for entry in ledger.audit.entries()]
    own = [each.action for each in events if each.subject == f"rollout:{release.id}"]
    went = ("start", "started", "step", "step", "promoted")
    assert own == [f"rollout.{each}" for each in went]


def scraped(session: Path) -> str:
    """What Prometheus would read of the node, which is the first that the file names."""
    (found,) = json.loads((session / "prom_metrics_service_discovery.json").read_text())
    return requests.get(f"http://{found['targets'][0]}/metrics", timeout=30).text


def missing(text: str, wanted: list[Series]) -> list[Series]:
    """Of the series that are wanted, those that are not there, or at zero."""
    samples = [
        each
        for family in text_string_to_metric_families(text)
        if family.name.startswith("ray_ztom_")
        for each in family.samples
    ]
    return [
        (name, labels)
        for name, labels in wanted
        if not any(
            each.name == name and labels.items() <= each.labels.items() and each.value > 0
            for each in samples
        )
    ]


@pytest.mark.abuse(81)
def test_metrics_are_there_and_prompts_are_nowhere(up, admin, ask) -> None:
    canary = "zebra-canary-77aa"
    support(up, admin, ask)
    adapter(up, admin, "l1", "measured")
    deploy(up, admin, "l2", alias="measured", options=FLEETING, canary=50, shadow=100)
    for number in range(20):
        one(ask, "measured", PROMPTS[0], False, {"x-ztom-sticky": str(number)})
    one(ask, "support", canary, True, {})
    stable, *_ = one(ask, "support", canary, False, {})
    with pytest.raises(openai.NotFoundError):
        one(ask, canary, canary, False, {})
    (session,) = Path("/tmp/ray").glob(f"session_*_{up.process.pid}")
    who = {"alias": "support", "variant": stable, "role": "stable"}
    released = {"alias": "measured", "variant": named(up, "l2"), "role": "canary"}
    wanted = [
        ("ray_ztom_requests_total", {**who, "status": "200"}),
        ("ray_ztom_requests_total", {**released, "status": "200"}),
        ("ray_ztom_tokens_total", {**who, "kind": "prompt"}),
        ("ray_ztom_tokens_total", {**who, "kind": "completion"}),
        ("ray_ztom_time_to_first_token_seconds_count", who),
        ("ray_ztom_inter_token_seconds_count", who),
        ("ray_ztom_request_seconds_count", who),
        ("ray_ztom_refused_requests_total", {"status": "404"}),
        ("ray_ztom_mirrored_requests_total", {"variant": released["variant"]}),
        ("ray_ztom_routing_version", {}),
        ("ray_ztom_variant_ready", {"variant": stable}),
        ("ray_ztom_replicas", {}),
        ("ray_ztom_memory_bytes", {}),
    ]
    # processes hand on what they counted every ten seconds
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not missing(scraped(session), wanted), 120)
    assert missing(scraped(session), wanted) == []
    assert canary not in scraped(session)
    logs = [p for p in (session / "logs").rglob("*") if p.is_file()]
    assert any("replica_ztom_control-plane" in path.name for path in logs)
    holding = [path.name for path in logs if canary.encode() in path.read_bytes()]
    assert holding == []
    access = [p for p in logs if "replica_ztom_control-plane" in p.name]
    text = "".join(path.read_text() for path in access)
    assert '"response_id"' in text
    assert '"variant"' in text
