from __future__ import annotations

import math

import numpy as np
import pytest

from ztom.engines.protocol import GenerationConfig
from ztom.engines.respond import respond
from ztom.errors import EngineError, FactorError
from ztom.scoring.protocol import Need
from ztom.stimuli.records import Message, Stimulus
from ztom.testing.fake_engine import FakeEngine

PROMPT = "the quick brown fox jumps over the lazy dog and runs away"


def test_errors_grow_smoothly_with_the_distance_from_the_optimum():
    engine = FakeEngine(2, optimum=(0.05, -0.02))
    means = []
    for step in np.linspace(0, 0.2, 9):
        engine.blend((0.05 + step, -0.02))
        means.append(-np.mean(np.concatenate(engine.log_probs([PROMPT], ["one two three"]))))
    assert means == sorted(means)
    assert np.max(np.diff(means)) < 0.5


def test_texts_get_worse_with_the_distance():
    engine = FakeEngine(2, optimum=(0.05, -0.02))
    engine.blend((0.05, -0.02))
    assert engine.generate([PROMPT], GenerationConfig())[0].text == PROMPT
    engine.blend((-0.2, 0.2))
    assert engine.generate([PROMPT], GenerationConfig())[0].text != PROMPT


def test_same_factors_same_answers_whatever_came_before():
    first, second = FakeEngine(3, seed=1), FakeEngine(3, seed=1)
    first.blend((0.1, 0.0, 0.0))
    for engine in (first, second):
        engine.blend((0.0, 0.1, -0.1))
    prompts = [PROMPT, (Message("user", "hello there"),), (1.0, 2.5)]
    config = GenerationConfig()
    assert first.generate(prompts, config) == second.generate(prompts, config)
    np.testing.assert_array_equal(first.values(prompts), second.values(prompts))
    assert not np.array_equal(first.values(prompts)[0], first.values(prompts)[1])


def test_noise_changes_with_every_blend_and_repeats_for_a_new_engine():
    def twice():
        engine = FakeEngine(1, noise=0.1)
        for _ in range(2):
            engine.blend((0.0,))
            yield float(engine.log_probs(["a"], ["b"])[0][0])

    first, second = twice()
    assert first != second
    assert [first, second] == list(twice())


def test_generation_limits_are_kept():
    engine = FakeEngine(1, optimum=(0.0,))
    short = engine.generate([PROMPT], GenerationConfig(max_new_tokens=3))[0]
    assert (short.text, short.tokens, short.finish_reason) == ("the quick brown", 3, "length")
    stopped = engine.generate([PROMPT], GenerationConfig(stop=("fox",)))[0]
    assert (stopped.text, stopped.finish_reason) == ("the quick brown ", "stop")


@pytest.mark.parametrize("factors", [(0.1,), (math.nan, 0.0), (math.inf, 0.0)])
def test_malformed_factors_are_refused(factors):
    with pytest.raises(FactorError):
        FakeEngine(2).blend(factors)


def test_closed_engine_refuses():
    engine = FakeEngine(1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate([PROMPT], GenerationConfig())


def test_answers_everything_that_error_functions_need():
    stimuli = [Stimulus(id=str(i), prompt=PROMPT, expected=f"word {i}", group="g") for i in (1, 2)]
    outputs = respond(
        FakeEngine(1),
        stimuli,
        needs=frozenset(Need),
        generation=GenerationConfig(),
        labels=("a", "b", "c"),
    )
    assert len(outputs) == 2
    assert all(output.text and len(output.token_log_probs) == 2 for output in outputs)
    assert np.exp(outputs[0].label_log_probs).sum() == pytest.approx(1.0)
