"""The torch engine on small models and plain modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_calls import FACTORS, PROMPTS, SHORT, open_chain
from toy_variant import open_toy_adapters, write_blend

from tune_search.factories import VariantEngineFactory
from ztom.blending.chain_file import ChainConfig
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.errors import CapabilityError, EngineError, FactorError
from ztom.settings import Settings
from ztom.variants.recipe import Form


def test_a_written_model_runs_without_factors(llama_chain: list[Path]) -> None:
    engine = build_single(EngineConfig(name="torch", dtype="float32"), llama_chain[0])
    assert engine.factors == ()
    engine.blend(())
    with pytest.raises(FactorError):
        engine.blend((0.1,))
    assert engine.generate(["hello"], SHORT)[0].tokens > 0


def test_what_does_not_fit_the_context_is_refused_before_it_runs(llama_chain: list[Path]) -> None:
    engine = build_single(EngineConfig(name="torch", dtype="float32"), llama_chain[0])
    with pytest.raises(EngineError, match="does not fit into the model's context"):
        engine.log_probs(["word " * 400], ["answer"])
    with pytest.raises(EngineError, match="empty"):
        engine.log_probs(["word"], [""])


def make_module() -> torch.nn.Module:
    """A plain module, as a user would name it in `engine.module`."""
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def test_plain_modules_blend_too(tmp_path: Path) -> None:
    from toys import make_plain_chain

    torch.manual_seed(0)
    states = [make_module().state_dict() for _ in range(3)]
    chain = open_chain(make_plain_chain(tmp_path, states=states))
    config = EngineConfig(name="torch", module="test_torch_engine:make_module")
    engine = build_engine(config, chain)
    engine.blend(FACTORS)
    rows = [(0.1, 0.2, 0.3, 0.4), (1.0, -1.0, 0.5, 0.0)]
    blend = {
        n: states[2][n] + 0.4 * (states[1][n] - states[0][n]) - 0.7 * (states[2][n] - states[1][n])
        for n in states[0]
    }
    module = make_module()
    module.load_state_dict(blend)
    with torch.no_grad():
        want = module(torch.tensor(rows)).double().numpy()
    np.testing.assert_allclose(engine.values(rows), want, rtol=1e-5, atol=1e-6)
    with pytest.raises(CapabilityError, match="rows of numbers"):
        engine.values(["text"])


@pytest.mark.parametrize("form", ["dense", "adapter"])
def test_what_a_search_wrote_is_loaded_whatever_may_be_referred_to(
    tmp_path: Path, form: Form
) -> None:
    """As in a server, whose searches may refer to the chain and write somewhere else."""
    chain = open_toy_adapters(tmp_path / "chain")
    written = write_blend(chain, (0.5, -0.4), tmp_path / "written", form=form)
    references = [member.reference for member in chain.members]
    maker = VariantEngineFactory(
        EngineConfig(name="torch", dtype="float32"),
        written,
        ChainConfig.model_validate({"checkpoints": references}),
        Settings(allowed_roots=(str(tmp_path / "chain"),)),
    )
    engine = maker()
    expected = build_engine(EngineConfig(name="torch", dtype="float32"), chain)
    expected.blend((0.5, -0.4))
    assert engine.generate(PROMPTS, SHORT) == expected.generate(PROMPTS, SHORT)
