"""What every engine has to do: one suite for the fake engine, torch and vLLM."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engine_calls import ANSWERS, FACTORS, PROMPTS, SHORT, observe

from ztom.engines.protocol import Capability, Engine
from ztom.engines.respond import respond
from ztom.errors import CapabilityError, FactorError
from ztom.scoring.protocol import Need
from ztom.stimuli.records import Stimulus


def test_it_says_what_it_is(engine: Engine) -> None:
    assert engine.info.capabilities
    assert engine.info.version
    assert engine.info.device in {"cpu", "cuda"}
    assert engine.info.dtype == "float32"


def test_factors_change_the_answers_and_zeros_bring_them_back_bitwise(engine: Engine) -> None:
    engine.blend((0.0, 0.0))
    start = observe(engine)
    stats = engine.blend(FACTORS)
    assert engine.factors == FACTORS
    assert stats.seconds >= 0
    assert stats.placement in {"device", "host", "file"}
    blended = observe(engine)
    assert blended != start
    engine.blend((0.0, 0.0))
    assert observe(engine) == start
    engine.blend(FACTORS)
    assert observe(engine) == blended


@pytest.mark.parametrize("bad", [(0.1,), (0.1, math.nan), (0.1, math.inf), (0.1, 0.2, 0.3)])
def test_bad_factors_are_refused_and_leave_the_blend_alone(engine: Engine, bad) -> None:
    engine.blend(FACTORS)
    before = observe(engine)
    with pytest.raises(FactorError):
        engine.blend(bad)
    assert engine.factors == FACTORS
    assert observe(engine) == before


def test_answers_come_in_order_one_for_each_prompt(engine: Engine) -> None:
    engine.blend(FACTORS)
    if Capability.GENERATE in engine.info.capabilities:
        together = engine.generate(PROMPTS * 3, SHORT)
        assert len(together) == 9
        assert together[:3] == together[3:6]
        assert all(0 < c.tokens <= 12 for c in together)
        assert engine.generate([], SHORT) == []
    if Capability.LOG_PROBS in engine.info.capabilities:
        rows = engine.log_probs(PROMPTS * 2, ANSWERS * 2)
        assert [len(r) for r in rows[:3]] == [len(r) for r in rows[3:]]
        assert all(row.dtype == np.float64 and (row <= 1e-6).all() for row in rows)
    if Capability.VALUES in engine.info.capabilities:
        values = engine.values(PROMPTS * 2)
        assert values.shape[0] == 6
        np.testing.assert_allclose(values[:3], values[3:], atol=1e-5)


def test_what_it_does_not_offer_is_refused_by_name(engine: Engine) -> None:
    absent = set(Capability) - engine.info.capabilities
    if Capability.GENERATE in absent:
        with pytest.raises(CapabilityError):
            engine.generate(PROMPTS, SHORT)
    if Capability.LOG_PROBS in absent:
        with pytest.raises(CapabilityError):
            engine.log_probs(PROMPTS, ANSWERS)
    if Capability.VALUES in absent:
        with pytest.raises(CapabilityError):
            engine.values(PROMPTS)


def test_greedy_answers_are_the_same_again(engine: Engine) -> None:
    engine.blend(FACTORS)
    assert observe(engine) == observe(engine)


def test_responses_carry_what_was_asked_for(engine: Engine) -> None:
    offers = engine.info.capabilities
    needs = {Need.LABEL_LOG_PROBS}
    if Capability.GENERATE in offers:
        needs |= {Need.TEXT}
    if Capability.LOG_PROBS in offers:
        needs |= {Need.TOKEN_LOG_PROBS}
    labels = ["yes", "no", "maybe"]
    if Capability.VALUES in offers:
        labels = [f"label {i}" for i in range(engine.values(PROMPTS).shape[1])]
    pairs = zip(PROMPTS, ANSWERS, strict=True)
    stimuli = [Stimulus(str(i), p, a, str(i)) for i, (p, a) in enumerate(pairs)]
    outputs = respond(engine, stimuli, needs=needs, generation=SHORT, labels=labels)
    for output in outputs:
        assert (output.text is not None) == (Need.TEXT in needs)
        assert (output.token_log_probs is not None) == (Need.TOKEN_LOG_PROBS in needs)
        assert output.label_log_probs is not None
        assert len(output.label_log_probs) == len(labels)
