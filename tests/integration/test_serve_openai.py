"""A variant on Ray Serve, spoken to by the real `openai` client."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import openai
import psutil
import pytest
import torch
from ray import serve
from toy_variant import CONTEXT, write_toy_variant
from toys import TEXT
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve_apps.variants.app import build
from serve_apps.variants.args import VariantArgs
from serve_apps.variants.launch import ServedVariant, serve_variant
from ztom.errors import ConfigError, EngineError

CHAT = [{"role": "user", "content": TEXT[0]}]
LOGS = {".log", ".out", ".err"}
#: A template that loops for an hour when a certain word falls, and else does nothing.
WORD = "open sesame"
SLEEPER = (
    f"{{% if '{WORD}' in messages[-1].content %}}"
    "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}{% endif %}"
)
CANARY = "zebra-canary-51c7"


@pytest.fixture(scope="module")
def variant(tmp_path_factory) -> Path:
    return write_toy_variant(tmp_path_factory.mktemp("variants"), template_end=SLEEPER)


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its logs; its socket names bear no long paths."""
    folder = Path(tempfile.mkdtemp(prefix="ztom-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def served(variant, ray_folder) -> Iterator[ServedVariant]:
    args = VariantArgs(variant=variant, dtype="float32", kv_cache_gib=0.05, health_period_s=1)
    with serve_variant(args, port=0, blocking=False) as served:
        yield served


@pytest.fixture(scope="module")
def client(served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.api_base, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def reference(variant):
    """Greedy tokens and their log-probabilities, as transformers computes them."""
    model = AutoModelForCausalLM.from_pretrained(variant, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(variant)

    def greedy(prompt: str, count: int) -> tuple[list[int], list[float]]:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        out = model.generate(
            ids,
            max_new_tokens=count,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = out.sequences[0, ids.shape[1] :].tolist()
        rows = [logits[0].log_softmax(-1) for logits in out.logits]
        return tokens, [float(row[token]) for row, token in zip(rows, tokens, strict=True)]

    def greedy_chat(messages: list[dict[str, str]], count: int) -> tuple[list[int], list[float]]:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return greedy(prompt, count)

    greedy.chat = greedy_chat
    return greedy


def health(served: ServedVariant) -> dict[str, object]:
    return httpx.get(f"{served.url}/health", timeout=60).json()


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = 600) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {limit_s:g} s")
        time.sleep(0.2)


def test_models_are_listed_by_name_and_by_digest(client, served):
    listed = client.models.list().data
    assert [model.id for model in listed] == list(served.models)
    assert served.models[0] == "toy"
    assert served.models[1] == f"toy@{listed[0].digest[:12]}"
    assert client.models.retrieve(served.models[1]).max_model_len == CONTEXT
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("toy@000000000000")


def test_completion_is_the_greedy_answer_of_transformers(client, reference):
    tokens, logprobs = reference(TEXT[1], 24)
    answer = client.completions.create(
        model="toy",
        prompt=TEXT[1],
        max_tokens=24,
        temperature=0,
        logprobs=1,
        extra_body={"return_token_ids": True},
    )
    assert answer.choices[0].token_ids == tokens
    assert answer.choices[0].logprobs.token_logprobs == pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_chat_is_the_greedy_answer_of_transformers(client, served, reference, limit):
    tokens, logprobs = reference.chat(CHAT, 16)
    answer = client.chat.completions.create(
        model=served.models[1],
        messages=CHAT,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        extra_body={"return_token_ids": True, limit: 16},
    )
    choice = answer.choices[0]
    assert choice.token_ids == tokens
    assert [token.logprob for token in choice.logprobs.content] == pytest.approx(logprobs, abs=1e-4)
    assert all(len(token.top_logprobs) == 3 for token in choice.logprobs.content)
    assert choice.message.role == "assistant"
    assert answer.usage.completion_tokens == len(tokens)
    assert answer.system_fingerprint == f"ztom-{served.models[1].split('@')[1]}"


def test_a_stream_says_the_same_and_counts(client):
    whole = client.chat.completions.create(model="toy", messages=CHAT, max_tokens=20, temperature=0)
    stream = client.chat.completions.create(
        model="toy",
        messages=CHAT,
        max_tokens=20,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 3
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_completion_stream_is_server_sent_events_to_done(served):
    body = {"model": "toy", "prompt": TEXT[0], "max_tokens": 5, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{served.api_base}/completions", json=body, timeout=60) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert events[-1]["choices"][0]["finish_reason"] in {"length", "stop"}


def test_two_streams_at_once(served):
    arrivals: list[str] = []

    async def read(client: openai.AsyncOpenAI, name: str, prompt: str) -> str:
        stream = await client.completions.create(
            model="toy",
            prompt=prompt,
            max_tokens=150,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        text = ""
        async for chunk in stream:
            arrivals.append(name)
            text += chunk.choices[0].text
        return text

    async def together_and_alone() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(
            base_url=served.api_base, api_key="none", max_retries=0
        ) as client:
            pair = zip("ab", TEXT[:2], strict=True)
            together = await asyncio.gather(*(read(client, *one) for one in pair))
            arrived = len(arrivals)
            alone = [await read(client, "alone", prompt) for prompt in TEXT[:2]]
            del arrivals[arrived:]
        return together, alone

    together, alone = asyncio.run(together_and_alone())
    assert together == alone
    assert sum(x != y for x, y in pairwise(arrivals)) > 2, "one stream waited for the other"


def test_n_and_seed(client):
    def ask(seed: int) -> list[str]:
        answer = client.chat.completions.create(
            model="toy",
            messages=CHAT,
            max_tokens=12,
            n=3,
            seed=seed,
            temperature=1.5,
            top_p=0.95,
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.message.content for choice in answer.choices]

    first = ask(7)
    assert first == ask(7)
    assert first != ask(8)
    assert len(set(first)) == 3


def test_stop(client):
    ask = {"model": "toy", "prompt": TEXT[0], "max_tokens": 60, "temperature": 0}
    text = client.completions.create(**ask).choices[0].text
    word = next(text[i : i + 2] for i in range(5, len(text) - 2) if text[i : i + 2].isascii())
    stopped = client.completions.create(**ask, stop=[word]).choices[0]
    assert stopped.text == text[: text.index(word)]
    assert stopped.finish_reason == "stop"


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=CHAT)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_context_too_long_is_refused_before_a_stream_begins(client, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="toy", prompt="fox " * CONTEXT, stream=stream)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": CHAT, "temperature": -1}, "temperature"),
        ("chat/completions", {"messages": CHAT, "max_tokens": "many"}, "max_tokens"),
        ("chat/completions", {"messages": CHAT, "max_tokens": 0, "stream": True}, "max_tokens"),
        ("chat/completions", {"messages": CHAT, "chat_template": "{{ 7 * 7 }}"}, "chat_template"),
        (
            "chat/completions",
            {"messages": CHAT, "chat_template_kwargs": {"chat_template": "{{ 7 * 7 }}"}},
            None,
        ),
        ("completions", {}, "prompt"),
        ("completions", {"prompt": [10**9]}, None),
        ("completions", {"prompt": [10**9], "stream": True}, None),
        ("completions", {"prompt": "a", "seed": 2**70}, "seed"),
        ("completions", {"prompt": "a", "logit_bias": {"1": "x"}}, "logit_bias"),
    ],
)
def test_bad_requests_are_refused_in_openai_form(served, path, body, param):
    reply = httpx.post(f"{served.api_base}/{path}", json={"model": "toy", **body}, timeout=60)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"model": "toy", "prompt": "a", "temperature": NaN}', 400),
        (b'{"model": "toy", "prompt": "\\ud800"}', 400),
        (b"[" * 100_000, 400),
        (b"x" * (9 * 2**20), 413),
    ],
)
def test_bodies_that_are_no_request(served, content, status):
    reply = httpx.post(f"{served.api_base}/completions", content=content, timeout=60)
    assert reply.status_code == status
    assert reply.json()["error"]["code"]


def test_unknown_paths_and_methods_answer_in_openai_form(served):
    for reply in (
        httpx.get(f"{served.url}/v2/nothing"),
        httpx.get(f"{served.api_base}/completions"),
    ):
        assert reply.status_code in {404, 405}
        assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_generation(served, stream):
    before = health(served)["generated_tokens"]
    wanted = CONTEXT - 10
    body = {"model": "toy", "prompt": "a", "max_tokens": wanted, "ignore_eos": True}
    with httpx.Client(timeout=httpx.Timeout(60, read=60 if stream else 0.5)) as client:
        if stream:
            body["stream"] = True
            with client.stream("POST", f"{served.api_base}/completions", json=body) as reply:
                next(reply.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{served.api_base}/completions", json=body | {"n": 4})
    wait_for(lambda: health(served)["running"] == 0, "the end of the generation")
    assert health(served)["generated_tokens"] - before < wanted * (1 if stream else 4)


def test_prompts_are_not_in_the_logs(client, served, ray_folder):
    client.completions.create(model="toy", prompt=CANARY, max_tokens=2)
    client.chat.completions.create(
        model="toy", messages=[{"role": "user", "content": CANARY}], max_tokens=2, stream=True
    ).close()
    for bad in (
        {"model": "toy", "prompt": CANARY, "temperature": -1},
        {"model": CANARY, "prompt": "a"},
        {"model": "toy", "prompt": [CANARY, {}]},
        {"model": "toy", "prompt": f"{CANARY} " * CONTEXT},
        {"model": "toy", "prompt": "a", "stop": [CANARY, ""]},
        {"model": "toy", "prompt": CANARY, "max_tokens": 10**9, "stream": True},
    ):
        reply = httpx.post(f"{served.api_base}/completions", json=bad, timeout=60)
        assert reply.status_code in {400, 404}
    logs = [path for path in ray_folder.rglob("*") if path.is_file() and path.suffix in LOGS]
    assert any("replica" in path.name for path in logs)
    assert not [path for path in logs if CANARY.encode() in path.read_bytes()]


@pytest.mark.abuse(101)
@pytest.mark.brings(
    "endpoint",
    "a chat template that loops on a certain word",
    "400 for who says it, after a second of computing in another process; nobody else waits",
)
def test_a_template_that_loops_on_a_word_costs_its_sender_alone(served):
    async def run() -> tuple[httpx.Response, float, list[float]]:
        url = f"{served.api_base}/chat/completions"
        async with httpx.AsyncClient(timeout=60) as http:

            def send(text: str) -> asyncio.Task[httpx.Response]:
                body = {"model": "toy", "messages": [{"role": "user", "content": text}]}
                return asyncio.create_task(http.post(url, json=body | {"max_tokens": 1}))

            began, times = time.monotonic(), []
            looping = send(WORD)
            while not looping.done():
                asked = time.monotonic()
                assert (await send("hello")).status_code == 200
                times.append(time.monotonic() - asked)
            return await looping, time.monotonic() - began, times

    answer, seconds, times = asyncio.run(run())
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == "messages"
    assert "more computing than it may have" in error["message"]
    assert seconds < 30
    assert len(times) > 5
    assert sorted(times)[len(times) // 2] < 1.0
    assert health(served)["status"] == "ok"


@pytest.mark.abuse(107)
@pytest.mark.brings(
    "endpoint", "a JSON schema or pattern that takes minutes to compile", "400 in seconds"
)
def test_a_schema_that_explodes_is_refused_in_time(client):
    def ask(schema: dict[str, object]) -> str:
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        answer = client.chat.completions.create(
            model="toy", messages=CHAT, max_tokens=8, response_format=form
        )
        return answer.choices[0].message.content

    assert ask({"type": "integer"})[0] in "-0123456789"
    schema = {"type": "string", "pattern": "(a|b|c){4096}"}  # minutes, for any engine
    began = time.monotonic()
    with pytest.raises(openai.BadRequestError, match="too complex to compile"):
        ask(schema)
    assert time.monotonic() - began < 60


def test_a_second_of_the_same_name_is_refused(variant, served):
    port = httpx.URL(served.url).port
    with pytest.raises(ConfigError, match="served already"):
        serve_variant(VariantArgs(variant=variant), port=port, blocking=False)
    with pytest.raises(ConfigError, match="Prefix / is being used"):
        serve_variant(VariantArgs(variant=variant, name="other"), port=port, blocking=False)
    with pytest.raises(ConfigError, match="another address"):
        serve_variant(VariantArgs(variant=variant), port=1, blocking=False)


def flip_one_byte(variant: Path) -> None:
    file = variant / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_changed_variant_is_not_served(variant, tmp_path):
    changed = shutil.copytree(variant, tmp_path / "changed")
    flip_one_byte(changed)
    port = free_port()
    code = (
        "import sys; from serve_apps.variants.args import VariantArgs; "
        "from serve_apps.variants.launch import serve_variant; "
        f"serve_variant(VariantArgs(variant=sys.argv[1]), port={port})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, changed], capture_output=True, text=True, timeout=600
    )
    assert ended.returncode != 0
    assert "VariantError" in ended.stderr
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")


def test_a_replica_checks_for_itself(variant, served, tmp_path, monkeypatch):
    """What changes between the launcher's check and the replica's start is seen by the replica."""
    changed = shutil.copytree(variant, tmp_path / "changed")

    def build_then_flip(args):
        application = build(args)
        flip_one_byte(changed)
        return application

    monkeypatch.setattr("serve_apps.variants.launch.build", build_then_flip)
    port = httpx.URL(served.url).port
    args = VariantArgs(variant=changed)
    with pytest.raises(EngineError, match="VariantError"):
        serve_variant(args, port=port, route_prefix="/changed", blocking=False)
    assert "variant-changed" not in serve.status().applications


def test_a_dead_engine_is_noticed_and_replaced(client, served):
    """The last test here: it costs the replica."""
    wait_for(lambda: httpx.get(f"{served.url}/health", timeout=60).is_success, "health")
    before = health(served)["pid"]
    children = psutil.Process(before).children(recursive=True)
    (engine,) = (child for child in children if "EngineCore" in " ".join(child.cmdline()))
    engine.kill()

    def replaced() -> bool:
        try:
            reply = httpx.get(f"{served.url}/health", timeout=60)
        except httpx.TimeoutException:  # the proxy keeps it until there is a replica
            return False
        return reply.status_code == 200 and reply.json()["pid"] != before

    wait_for(replaced, "the replacement of the replica")
    answer = client.completions.create(model="toy", prompt=TEXT[0], max_tokens=1)
    assert answer.usage.completion_tokens == 1
