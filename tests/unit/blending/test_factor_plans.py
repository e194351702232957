"""What one factor adds to a blend: the difference of two blends, without their rounding."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from saved_models import open_members
from toy_checkpoints import CONFIG, HIDDEN, llama_tensors, write_checkpoint, write_lora

from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain
from ztom.blending.factor_plans import plan_step
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups
from ztom.blending.plan import plan_blend

EMBEDDING = "model.embed_tokens.weight"


def member(folder: Path, seed: int, rows: int) -> Path:
    tensors = llama_tensors(seed)
    for name in (EMBEDDING, "lm_head.weight"):
        tensors[name] = torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return write_checkpoint(folder, tensors, config={**CONFIG, "vocab_size": rows})


def check(chain: Chain) -> list[set[str]]:
    """Steps against differences of blends in float64; the names that each factor changes."""
    read, count = file_reader(chain), chain.factor_count
    start = [0.25 * (-1) ** i for i in range(count)]
    changed = []
    for factor in range(count):
        step = plan_step(chain, factor)
        moved = [value + (0.5 if i == factor else 0.0) for i, value in enumerate(start)]
        for one, other in zip(
            plan_blend(chain, start, dtype=torch.float32).tensors,
            plan_blend(chain, moved, dtype=torch.float32).tensors,
            strict=True,
        ):
            a, b = blend_tensor(one, read).double(), blend_tensor(other, read).double()
            if one.name not in step:
                assert torch.equal(a, b)
                continue
            made = blend_tensor(step[one.name], read).double()
            torch.testing.assert_close(made, (b - a) / 0.5, rtol=1e-4, atol=3e-6)
        changed.append(set(step))
    return changed


@pytest.mark.parametrize("sizes", [s for s in product((8, 10), repeat=3) if len(set(s)) > 1])
@pytest.mark.parametrize("topology", ["sequence", "siblings"])
def test_rows_that_some_members_lack_have_no_part_in_a_step(
    tmp_path: Path, sizes: tuple[int, ...], topology: str
) -> None:
    folders = [member(tmp_path / f"{i}", i, rows) for i, rows in enumerate(sizes)]
    chain = open_members(*folders, topology=topology, allow_tokenizer_differences=True)
    assert all(EMBEDDING in names for names in check(chain))


def test_adapters_stay_products(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapters = [write_lora(tmp_path / f"{i}", seed=i) for i in (1, 2)]
    chain = open_members(base, *adapters)
    [first, second] = check(chain)
    assert first == second == {"model.layers.0.self_attn.q_proj.weight"}
    step = plan_step(chain, 1)["model.layers.0.self_attn.q_proj.weight"]
    assert {(term.member, term.coefficient) for term in step.low_rank} == {(1, -1.0), (2, 1.0)}
    assert all(term.coefficient == 0.0 for term in step.dense)


def test_what_both_blends_have_cancels_without_rounding(tmp_path: Path) -> None:
    chain = open_members(*(member(tmp_path / f"{i}", i, 8) for i in range(3)))
    step = plan_step(chain, 0)
    terms = {(t.member, t.coefficient) for plan in step.values() for t in plan.dense}
    assert terms == {(0, -1.0), (1, 1.0)}


def test_a_factor_of_a_group_reaches_its_tensors_only(tmp_path: Path) -> None:
    chain = open_members(*(member(tmp_path / f"{i}", i, 8) for i in range(3)))
    names = check(group_chain(chain, FactorGroups(kinds="all")))
    half = len(names) // 2
    assert names[:half] == names[half:]
    assert len(set.union(*names)) == sum(map(len, names[:half]))
