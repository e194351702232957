"""An engine that ends at the first requests: its own reason arrives, and not that it restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serve_apps.variants.args import BaseArgs, VariantArgs
from serve_apps.variants.child_output import ChildOutput
from serve_apps.variants.engine import VariantEngine
from serve_apps.variants.identity import ModelIdentity
from serve_apps.variants.replica import SharedReplica, VariantReplica
from serve_apps.variants.wire import Reply, refusal
from ztom.errors import ConfigError, EngineError, VariantError

CAUSE = "RuntimeError: Unsupported CPU attention configuration: head_dim=16"


class Refuses:
    """A server that refuses every request."""

    has_chat_template = embeds = False
    max_model_len = 64

    def __init__(self, *, is_dead: bool) -> None:
        self.is_dead = is_dead

    def face(self, identity: ModelIdentity, *, adapter_number: int | None = None) -> str:
        return identity.name

    async def answer(self, kind: str, body: Any, **options: Any) -> Reply:
        return refusal(503, "The engine is being restarted; try again.")


def _engine(folder: Path, *, is_dead: bool) -> VariantEngine:
    output = ChildOutput()
    output.add(f"(EngineCore pid=7) ERROR [core.py:1] {CAUSE}\n".encode())
    server: Any = Refuses(is_dead=is_dead)
    identity = ModelIdentity("m", "0" * 64, created=0, folder=folder)
    args = VariantArgs(variant=folder)
    return VariantEngine(server, output, args=args, identity=identity, on_gpu=False)


@pytest.mark.parametrize("check", ["prove", "warm_up"])
def test_the_reason_is_what_the_engine_wrote(tmp_path: Path, check: str) -> None:
    engine = _engine(tmp_path, is_dead=True)
    with pytest.raises(EngineError, match="head_dim=16") as error:
        asyncio.run(getattr(engine, check)())
    assert "restarted" not in str(error.value)


def test_an_engine_that_lives_says_itself_what_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match="being restarted"):
        asyncio.run(_engine(tmp_path, is_dead=False).prove())


def test_models_that_embed_have_neither_live_swap_nor_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    identity = ModelIdentity("m", "0" * 64, created=0, folder=tmp_path)
    module = "serve_apps.variants.replica"
    monkeypatch.setattr(f"{module}.identify", lambda args: identity)
    monkeypatch.setattr(f"{module}.open_base", lambda args: identity)
    swapped = VariantReplica.start(VariantArgs(variant=tmp_path, live_swap=True), on_gpu=False)
    with pytest.raises(ConfigError, match="live_swap: only models that give text"):
        asyncio.run(swapped)
    shared = SharedReplica.start(BaseArgs(base=str(tmp_path), digest="0" * 64), on_gpu=False)
    with pytest.raises(ConfigError, match="Write the variant in its dense form"):
        asyncio.run(shared)
