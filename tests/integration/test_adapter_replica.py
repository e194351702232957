"""Adapters that share the engine of their base, with real vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from replica_calls import CHAT, GREEDY, Toy, base_of, call, choice, read, wanted, write_adapters
from safetensors.torch import load_file, save_file
from saved_models import edit_json
from toy_variant import open_chain, with_recipe, write_blend
from toys import TEXT
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve_apps.variants.args import BaseArgs
from serve_apps.variants.calls import Answer, Opened
from serve_apps.variants.replica import SharedReplica
from ztom.errors import (
    AdapterUnsupportedError,
    CheckpointError,
    VariantError,
)
from ztom.variants.recipe import read_recipe


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, Toy]:
    return write_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def base_args(adapters) -> BaseArgs:
    return base_of(adapters["x"])


@pytest.fixture(scope="module")
def shared(base_args, run, environment) -> Iterator[SharedReplica]:
    replica = run(SharedReplica.start(base_args, on_gpu=False))
    yield replica
    replica.stop()


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


def test_an_adapter_chats_by_its_own_template_and_needs_its_bases_tokenizer(
    shared, adapters, run, tmp_path
):
    members = [Path(member.reference) for member in read_recipe(adapters["x"].folder).members]
    own = Path(shutil.copytree(members[-1], tmp_path / "own"))
    AutoTokenizer.from_pretrained(members[0]).save_pretrained(own)
    (own / "chat_template.jinja").write_text("say {{ messages[0].content }}")
    toy = Toy(write_blend(open_chain([members[0], own]), (0.0,), tmp_path / "o", form="adapter"))
    answer = run(shared.ask(wanted(toy, {"messages": CHAT, **GREEDY})))
    text = choice(answer)["message"]["content"]
    rendered = {"prompt": f"say {CHAT[0]['content']}", "add_special_tokens": False, **GREEDY}
    assert choice(run(shared.ask(wanted(toy, rendered))))["text"] == text
    edit_json(own / "tokenizer_config.json", {"eos_token": "<s>"})
    other = Toy(write_blend(open_chain([members[0], own]), (0.0,), tmp_path / "e", form="adapter"))
    with pytest.raises(VariantError, match="the tokenizer of e is not its base's"):
        run(shared.load(other.digest, other.folder, "other"))


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
