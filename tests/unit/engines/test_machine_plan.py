"""Plans of machines against arithmetic done by hand."""

from __future__ import annotations

import pytest

from ztom.engines.gpus import GB
from ztom.engines.machine_plan import ChainSize, TrialWork, plan_machine
from ztom.engines.machines import MACHINES, Machine

#: Gemma 3 27B in bfloat16, and Llama 3.2 1B, as chains of five and of three checkpoints.
GEMMA = ChainSize(27 * 10**9, 5 * 54 * GB, "bfloat16", "gemma3")
LLAMA = ChainSize(1_236 * 10**6, 3 * 2_472 * 10**6, "bfloat16", "llama")
WORK = TrialWork(stimuli=100, new_tokens=64)


def test_five_checkpoints_of_27_billion_weights_stream_from_files() -> None:
    """270 GB beside 192 GB of memory: told with its seconds a trial."""
    plan = plan_machine(GEMMA, MACHINES["g2-standard-48"], WORK, file_rate=2 * GB)
    assert (plan.weights, plan.split, plan.engines, plan.variants) == (54 * GB, 4, 1, 0)
    assert [(row.placement, row.fits) for row in plan.rows] == [
        ("device", False),
        ("host", False),
        ("file", True),
    ]
    best = plan.best
    assert best is not None
    assert best.blend_s == pytest.approx(270 / 2 + 54 / (4 * 300))
    assert best.trial_s == pytest.approx(best.blend_s + 64 * 2 * 54 / (4 * 300))


def test_two_l4_do_not_hold_27_billion_weights() -> None:
    plan = plan_machine(GEMMA, MACHINES["g2-standard-24"], WORK, file_rate=2 * GB)
    assert (plan.split, plan.engines, plan.best) == (0, 0, None)


def test_a_t4_holds_a_small_chain_beside_its_engine_in_float16() -> None:
    plan = plan_machine(LLAMA, MACHINES["n1-standard-8-t4"], WORK)
    assert plan.dtype == "float16"
    assert "T4" in plan.note
    assert (plan.split, plan.engines, plan.variants) == (1, 1, 4)
    best = plan.best
    assert best is not None
    assert best.placement == "device"
    assert best.blend_s == pytest.approx((7.416 + 2.472) / 320)
    assert best.trial_s == pytest.approx(best.blend_s + 128 * 2.472 / 320)
    file = plan.rows[-1]
    assert (file.fits, file.trial_s) == (True, None)  # nobody said how fast files are


def test_engines_of_one_machine_share_its_memory() -> None:
    eight = plan_machine(
        ChainSize(8 * 10**9, 48 * GB, "bfloat16"), MACHINES["g2-standard-96"], WORK
    )
    assert eight.engines == 8
    host = next(row for row in eight.rows if row.placement == "host")
    assert host.needed == 8 * 48 * GB
    assert not host.fits


def test_a_cpu_holds_everything_in_one_memory() -> None:
    machine = Machine("here", None, 0, 24 * GB, 10 * GB)
    plan = plan_machine(LLAMA, machine, TrialWork(stimuli=10, new_tokens=0))
    assert [row.placement for row in plan.rows] == ["host", "file"]
    host = plan.rows[0]
    assert host.fits
    assert host.trial_s == pytest.approx((7.416 + 2.472) / 10 + 2.472 / 10)
