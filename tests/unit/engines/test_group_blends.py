"""Groups in the torch engine: what is blended in place is what is written and loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_chains import make_model, nudge
from toy_variant import open_toy_adapters
from toys import make_plain_chain, make_tokenizer

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups, GroupedFactors
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.pristine import HeldChain
from ztom.settings import Settings
from ztom.variants.write import stage_variant

TORCH = EngineConfig(name="torch")
KINDS = FactorGroups(kinds="all")


def open_chain(paths: list[Path]) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    return load_chain(config, settings=Settings())


def family_chain(family: str, folder: Path, dtype: torch.dtype) -> Chain:
    model, paths = make_model(family, dtype=dtype), []
    for position in range(3):
        if position:
            nudge(model, position)
        paths.append(folder / str(position))
        model.save_pretrained(paths[-1])
        make_tokenizer().save_pretrained(paths[-1])
    return open_chain(paths)


def some_factors(chain: Chain) -> tuple[float, ...]:
    return tuple(np.random.default_rng(5).uniform(-0.9, 0.9, chain.factor_count).tolist())


def state_of(engine: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in engine._model.state_dict().items()}


def assert_loads_as_it_blends(chain: Chain, folder: Path) -> None:
    factors = some_factors(chain)
    engine = build_engine(TORCH, chain)
    assert engine.factors == (0.0,) * chain.factor_count
    trained = state_of(engine)
    engine.blend(factors)
    assert engine.factors == factors
    blended = state_of(engine)
    with stage_variant(chain, factors, folder) as staged:
        staged.publish()
    written = build_single(TORCH, folder)
    loaded = state_of(written)
    assert blended.keys() == loaded.keys()
    assert all(torch.equal(blended[name], loaded[name]) for name in loaded)
    engine.blend((0.0,) * chain.factor_count)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in state_of(engine).items())
    engine.close()
    written.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma3"])
def test_load_then_blend_is_blend_then_load(tmp_path: Path, family: str, dtype) -> None:
    """Tied embeddings, fused attention, stacked experts, and a vision tower."""
    chain = group_chain(family_chain(family, tmp_path, dtype), KINDS)
    assert len(chain.group_names) >= 4
    assert_loads_as_it_blends(chain, tmp_path / "variant")


def test_adapters_load_as_they_blend(tmp_path: Path) -> None:
    chain = group_chain(open_toy_adapters(tmp_path / "chain"), FactorGroups(layers=2))
    assert chain.group_names == ("layer 0", "layer 1")
    assert_loads_as_it_blends(chain, tmp_path / "variant")


def test_a_group_moves_its_own_tensors_alone(tmp_path: Path) -> None:
    chain = group_chain(family_chain("llama", tmp_path, torch.float32), KINDS)
    engine: Any = build_engine(TORCH, chain)
    trained = state_of(engine)
    for at, group in enumerate(chain.group_names):
        factors = [0.0] * chain.factor_count
        factors[at] = -1.0
        engine.blend(factors)
        moved = {n for n, t in state_of(engine).items() if not torch.equal(t, trained[n])}
        assert chain.groups is not None
        own = {name for name, position in chain.groups.tensors.items() if position == at}
        tied = {"lm_head.weight"} if group == "embeddings" else set()
        assert moved == own | tied
    engine.close()


def test_a_held_chain_takes_blends_of_any_groups(tmp_path: Path) -> None:
    """As a live swap does: the variant before had other groups, or none."""
    plain = open_chain(make_plain_chain(tmp_path))
    held = HeldChain(group_chain(plain, KINDS), device=torch.device("cpu"), dtype=None)
    for rule in (None, FactorGroups(layers=2), KINDS):
        chain = group_chain(plain, rule)
        factors = some_factors(chain)
        record = None if chain.groups is None else chain.groups.record()
        asked = GroupedFactors(factors=factors, groups=record)
        again = GroupedFactors.model_validate_json(asked.model_dump_json())
        got = {n: t.clone() for n, t in held.blend(held.plan_grouped(again))}
        own = HeldChain(chain, device=torch.device("cpu"), dtype=None)
        want = dict(own.blend(own.plan(factors)))
        assert got.keys() == want.keys()
        assert all(torch.equal(got[name], want[name]) for name in want)
    assert replace(held.chain, groups=None) == plain
