"""A real variant, small enough to serve in a test: a written blend of tiny Llamas."""

from __future__ import annotations

import json
from pathlib import Path

from toys import make_chain

from ztom.blending.chain import ChainConfig, load_chain
from ztom.settings import Settings
from ztom.variants.write import stage_variant

CONTEXT = 2048


def write_toy_variant(folder: Path) -> Path:
    """Blend a chain of three into ``folder / "toy"``, with a context long enough to leave."""
    members = make_chain(folder / "chain", "llama")
    for member in members:
        _lengthen(member / "config.json")
    config = ChainConfig.model_validate({"checkpoints": [str(member) for member in members]})
    chain = load_chain(config, settings=Settings())
    with stage_variant(chain, (-0.4, 0.3), folder / "toy") as staged:
        staged.publish()
    return folder / "toy"


def _lengthen(config_file: Path) -> None:
    """Rotary positions have no weights, so any length is right."""
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(config | {"max_position_embeddings": CONTEXT}))
