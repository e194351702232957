"""What the server does with a project's chain, on checkpoints of several programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from saved_models import OLD_LLAMA, TRAINERS, edit_config, grow, save_model

from serve_apps.control_plane.work import ChainSpec, blend, compare, score_checkpoint
from ztom.errors import ConfigError, FactorError, IncompatibleChainError


@pytest.fixture
def chain(tmp_path: Path) -> ChainSpec:
    base = save_model(tmp_path / "base")
    grown = grow(tmp_path / "grown", base, 387, 1)
    edit_config(base, **OLD_LLAMA)
    edit_config(grown, **TRAINERS, eos_token_id=7)
    return ChainSpec(references=(str(base), str(grown)), roots=(str(tmp_path),))


def test_a_registered_checkpoint_is_scored_against_another_program_s(chain: ChainSpec) -> None:
    scores = score_checkpoint(chain, before=0)
    assert scores.message is None
    assert scores.weights == pytest.approx(0.02 * (2 / 3.14159) ** 0.5, rel=0.05)
    parts = compare(chain, other=0, chosen=1, weights=["lm_head.weight"], biases=None)
    rows = parts["absolute_weight_difference"]
    assert isinstance(rows, dict)
    changes = rows["lm_head.weight"]
    assert len(changes) == 387
    assert [change != 0 for change in changes] == [True] * 384 + [False] * 3


def test_a_blend_tells_what_differs(chain: ChainSpec, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.db")
    written = blend(chain, [0.5], str(tmp_path / "variant"), ledger=ledger, actor="root")
    assert "config eos_token_id: 2 in base, 7 in grown (used)" in written.warnings
    assert any(text.startswith("vocabulary: base has 384 rows") for text in written.warnings)


def test_a_blend_takes_factors_of_groups(chain: ChainSpec, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.db")
    grouped = replace(chain, groups={"kinds": ["attention", "mlp"]})
    with pytest.raises(FactorError, match="expected 3, one per transition and group"):
        blend(grouped, [0.5], str(tmp_path / "wrong"), ledger=ledger, actor="root")
    written = blend(grouped, [-1.0, 0, 0], str(tmp_path / "variant"), ledger=ledger, actor="root")
    assert written.groups == ("attention", "mlp", "rest")
    got = load_file(tmp_path / "variant" / "model.safetensors")
    before, after = (load_file(Path(p) / "model.safetensors") for p in chain.references)
    for name, tensor in got.items():
        assert torch.equal(tensor, (before if "self_attn" in name else after)[name])
    with pytest.raises(ConfigError, match="fewer layers"):
        blend(
            replace(chain, groups={"layers": 9}), [0.5], str(tmp_path / "x"),
            ledger=ledger, actor="root",
        )  # fmt: skip


def test_a_checkpoint_that_computes_something_else_is_refused_by_name(chain: ChainSpec) -> None:
    edit_config(Path(chain.references[1]), rms_norm_eps=1e-5)
    scores = score_checkpoint(chain, before=0)
    assert scores.message is not None
    assert "rms_norm_eps (1e-06 / 1e-05)" in scores.message
    assert scores.usable
    assert scores.weights > 0
    with pytest.raises(IncompatibleChainError, match="rms_norm_eps"):
        compare(chain, other=0, chosen=1, weights=None, biases=None)
    allowing = replace(chain, allow_config_differences=("rms_norm_eps",))
    assert compare(allowing, other=0, chosen=1, weights=None, biases=None)


def test_another_model_is_of_no_use(chain: ChainSpec, tmp_path: Path) -> None:
    save_model(tmp_path / "other", "qwen3")
    other = replace(chain, references=(chain.references[0], str(tmp_path / "other")))
    scores = score_checkpoint(other, before=0)
    assert not scores.usable
    assert "does not fit" in (scores.message or "")
