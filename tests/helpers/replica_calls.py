"""Toy variants and adapters, and what tests ask of their replicas.

`FakeEngine` stands in for vLLM where only the order of what is done matters.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toy_variant import (
    open_brittle_chain,
    open_toy_adapters,
    open_toy_chain,
    with_recipe,
    write_blend,
)
from toys import TEXT

from serve_apps.variants.args import BaseArgs
from serve_apps.variants.calls import Answer, Call
from serve_apps.variants.identity import ModelIdentity
from ztom.blending.chain import Chain
from ztom.errors import (
    BlendError,
    EngineError,
)
from ztom.variants import verify_manifest
from ztom.variants.recipe import read_recipe

FACTORS = {"a": (-0.4, 0.3), "b": (0.6, -0.8)}
ADAPTERS = {"x": (0.5, 0.2), "y": (0.0, -0.9), "z": (0.0, 0.0), "w": (-0.3, 0.6)}
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


def write_pair(chain: Chain, folder: Path) -> dict[str, Toy]:
    """Two blends of one chain."""
    return {
        name: Toy(write_blend(chain, factors, folder / name)) for name, factors in FACTORS.items()
    }


def write_variants(folder: Path) -> dict[str, Toy]:
    """Two blends of one chain, and what must not take their place."""
    chain = open_brittle_chain(folder / "chain")
    toys = write_pair(chain, folder)
    other = open_toy_chain(folder / "other-chain", seed=1)
    toys["other"] = Toy(write_blend(other, FACTORS["b"], folder / "other"))
    toys["huge"] = Toy(with_recipe(toys["b"].folder, folder / "huge", factors=(0.6, 3e38)))
    toys["half"] = Toy(write_blend(chain, FACTORS["b"], folder / "half", dtype="bfloat16"))
    return toys


def write_four_adapters(chain: Chain, folder: Path) -> dict[str, Toy]:
    """Four adapters of one base."""
    return {
        name: Toy(write_blend(chain, factors, folder / name, form="adapter"))
        for name, factors in ADAPTERS.items()
    }


def write_adapters(folder: Path) -> dict[str, Toy]:
    """Four adapters of one base, two of them also as full weights, and one of another base."""
    chain = open_toy_adapters(folder / "chain")
    toys = write_four_adapters(chain, folder)
    for name in "xy":
        toys[f"dense-{name}"] = Toy(write_blend(chain, ADAPTERS[name], folder / f"dense-{name}"))
    other = open_toy_adapters(folder / "other", seed=1)
    toys["foreign"] = Toy(write_blend(other, ADAPTERS["x"], folder / "foreign", form="adapter"))
    many = open_toy_adapters(folder / "many", count=5)
    rising = (0.1, 0.2, 0.3, 0.4, 0.5)  # so that no adapter cancels out
    toys["high"] = Toy(write_blend(many, rising, folder / "high", form="adapter"))
    toys["base"] = Toy(folder / "chain" / "base" / "00")
    return toys


def base_of(adapter: Toy) -> BaseArgs:
    """How the base of an adapter is served."""
    member = read_recipe(adapter.folder).members[0]
    return BaseArgs(
        base=member.reference,
        digest=member.sha256,
        max_loras=2,
        max_cpu_loras=3,
        max_lora_rank=16,
        **QUICK,
    )


def call(body: dict[str, Any] | None = None, digest: str = "0" * 64, **more: Any) -> Call:
    body = {"prompt": TEXT[0], **GREEDY} if body is None else body
    kind = "chat" if "messages" in body else "completion"
    return Call(kind, body, digest, more.pop("request_id", "abc"), **more)


def choice(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["choices"][0]


async def read(items: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """The items of a stream, and its events."""
    got = [item async for item in items]
    text = "".join(item for item in got if isinstance(item, str))
    lines = [line for line in text.split("\n\n") if line]
    assert not lines or lines.pop() == "data: [DONE]"
    return got, [json.loads(line.removeprefix("data: ")) for line in lines]


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


def wanted(toy: Toy, body: dict[str, Any] | None = None) -> Call:
    return call(body, toy.digest, folder=str(toy.folder), name=toy.folder.name)
