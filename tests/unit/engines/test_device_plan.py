"""A GPU's memory, divided before the engine takes its share."""

from __future__ import annotations

import pytest

from ztom.engines.device_plan import LEAST_CACHE, USABLE, plan_device, require_weights_fit
from ztom.engines.gpus import GB, GPUS
from ztom.errors import EngineError


def test_what_blends_read_fits_beside_the_engine() -> None:
    """Llama 3.2 1B, three checkpoints in 16 bits, on a T4: 2.5 GB and 7.4 GB of 16."""
    plan = plan_device(16 * GB, weights=int(2.5 * GB), pristine=int(7.4 * GB))
    assert plan is not None
    assert plan.holds_chain
    assert plan.share == pytest.approx((0.9 * 16 - 7.4) / 16)
    assert plan.cache == pytest.approx((0.9 * 16 - 7.4 - 2.5) * GB, abs=2)
    assert plan.share * 16 * GB + 7.4 * GB <= USABLE * 16 * GB + 1


def test_where_it_does_not_the_engine_takes_everything() -> None:
    plan = plan_device(24 * GB, weights=16 * GB, pristine=16 * GB)
    assert plan is not None
    assert not plan.holds_chain
    assert plan.share == pytest.approx(0.9)
    assert plan.cache >= LEAST_CACHE


def test_27_billion_weights_do_not_fit_into_two_l4() -> None:
    assert plan_device(24 * GB, weights=27 * GB, pristine=0) is None
    with pytest.raises(EngineError) as error:
        require_weights_fit(
            weights=54 * GB, elements=27 * GB, dtype="bfloat16", gpu="L4", memory=24 * GB, gpus=2
        )
    text = str(error.value)
    assert "does not fit into 2 L4" in text
    assert "27 billion weights in bfloat16: 54 GB, of which 2 x 24 GB hold 43.2 GB" in text


def test_four_hold_them() -> None:
    gpu = GPUS["L4"]
    require_weights_fit(
        weights=54 * GB,
        elements=27 * GB,
        dtype="bfloat16",
        gpu=gpu.name,
        memory=gpu.memory,
        gpus=4,
    )
