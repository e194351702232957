"""Real variants, small enough to serve in a test: written blends of tiny Llamas and of adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from toys import make_chain

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.settings import Settings
from ztom.variants.manifest import MANIFEST, build_manifest
from ztom.variants.recipe import RECIPE, Form, read_recipe
from ztom.variants.signature import SIGNATURE
from ztom.variants.write import WriteOptions, stage_variant

CONTEXT = 2048
FACTORS = (-0.4, 0.3)


def write_toy_variant(folder: Path, *, template_end: str = "") -> Path:
    """Blend a chain of three into ``folder / "toy"``, with a context long enough to leave."""
    chain = open_toy_chain(folder / "chain", template_end=template_end)
    return write_blend(chain, FACTORS, folder / "toy")


def open_toy_chain(folder: Path, *, seed: int = 0, template_end: str = "") -> Chain:
    """A chain of three tiny checkpoints, their chat template with more at its end."""
    members = make_chain(folder, "llama", seed=seed)
    for member in members:
        _lengthen(member / "config.json")
        template = member / "chat_template.jinja"
        template.write_text(template.read_text(encoding="utf-8") + template_end, encoding="utf-8")
    return open_chain(members)


def open_brittle_chain(folder: Path) -> Chain:
    """As `open_toy_chain`, but its second step changes one tensor only, one of a fused layer.

    A blend with a huge second factor fails there, after most tensors and part of that layer.
    """
    chain = open_toy_chain(folder)
    before, last = (Path(member.reference) for member in chain.members[1:])
    tensors = load_file(before / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    tensors[name] = tensors[name] * 10
    save_file(tensors, last / "model.safetensors", metadata={"format": "pt"})
    return open_chain([Path(member.reference) for member in chain.members])


def open_toy_adapters(folder: Path, *, count: int = 2, seed: int = 0) -> Chain:
    """A tiny base and LoRA adapters on all its linear layers, of different ranks and scales."""
    base = make_chain(folder / "base", "llama", members=1, seed=seed)[0]
    _lengthen(base / "config.json")
    members = [base]
    for number in range(count):
        members.append(_write_adapter(base, folder / f"adapter-{number}", number))
    return open_chain(members)


def open_chain(members: Sequence[Path]) -> Chain:
    """Open checkpoints as a chain."""
    config = ChainConfig.model_validate({"checkpoints": [str(member) for member in members]})
    return load_chain(config, settings=Settings())


def write_blend(
    chain: Chain,
    factors: Sequence[float],
    destination: Path,
    *,
    form: Form = "dense",
    dtype: str = "auto",
) -> Path:
    """Write a variant; returns its folder."""
    options = WriteOptions(form=form, dtype=dtype)
    with stage_variant(chain, factors, destination, options=options) as staged:
        staged.publish()
    return destination


def with_recipe(variant: Path, destination: Path, **changes: object) -> Path:
    """A copy of a variant whose recipe says something else, under a manifest that verifies."""
    shutil.copytree(variant, destination)
    recipe = read_recipe(variant).model_copy(update=changes)
    (destination / RECIPE).write_bytes(recipe.to_bytes())
    (destination / MANIFEST).unlink()
    (destination / SIGNATURE).unlink(missing_ok=True)
    (destination / MANIFEST).write_bytes(build_manifest(destination).to_bytes())
    return destination


def _write_adapter(base: Path, folder: Path, number: int) -> Path:
    generator = torch.Generator().manual_seed(number)
    rank, tensors = 2 + 2 * number, {}
    for name, weight in load_file(base / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            continue
        rows, columns = weight.shape
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        a = torch.randn(rank, columns, generator=generator) * 0.1
        tensors[f"{prefix}.lora_A.weight"] = a
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.2
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 4 + number,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _lengthen(config_file: Path) -> None:
    """Rotary positions have no weights, so any length is right."""
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(config | {"max_position_embeddings": CONTEXT}))
