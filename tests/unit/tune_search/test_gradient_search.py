"""Searches with derivatives from a configuration on, with the engine in this process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune_search.engine_actor import EngineActor
from tune_search.holdout import holdout_inputs
from tune_search.payload import Questions
from tune_search.preparation import prepare
from tune_search.run import _gradient_notes
from tune_search.score_actor import TrialScorer
from tune_search.study import make_plan
from tune_search.trial import Evaluator
from ztom.engines.protocol import Capability
from ztom.errors import ConfigError
from ztom.ledger import Ledger, NewStudy, TrialKind
from ztom.search.conductor import Conductor
from ztom.search.config import SearchConfig
from ztom.search.config_files import parse_config
from ztom.search.outcome import SearchOutcome, build_outcome
from ztom.search.samplers.build import build_sampler
from ztom.settings import Settings

WORDS = ("the", "list", "model", "returns", "argument", "chain", "a")


def write_data(folder: Path) -> None:
    for name in ("search", "rail"):
        lines = [
            {"prompt": f"{name} {i} {WORDS[i % 7]}", "expected": WORDS[(i * 3 + 1) % 7]}
            for i in range(20)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def make_config(folder: Path, chain: list[Path], **more: Any) -> SearchConfig:
    return parse_config(
        {
            "chain": {"checkpoints": [str(path) for path in chain]},
            "stimuli": str(folder / "search.jsonl"),
            "error": "cross_entropy",
            "scaling_factor_limit": 1.0,
            "sampler": "gradient",
            "engine": {"name": "torch", "dtype": "float32"},
            "output": str(folder / "out"),
            **more,
        }
    )


def search(config: SearchConfig) -> tuple[SearchOutcome, EngineActor, tuple[str, ...]]:
    """As `tune_search.study` does it, without Ray."""
    inputs = prepare(config, settings=Settings())
    study, actor = inputs.study, EngineActor()
    actor.start(study.engine, Questions.of(study))
    client: Any = SimpleNamespace(answer=actor.evaluate, differentiate=actor.differentiate)
    scorer: Any = TrialScorer(study.data)
    plan, evaluator = make_plan(config, study), Evaluator()
    with Ledger.open(config.ledger_address) as ledger:
        new = NewStudy("s", {}, "c", "h", {}, 0)
        conductor = Conductor(
            plan,
            ledger,
            ledger.studies.create(new).id,
            sampler=build_sampler(config.sampler, plan.space, seed=0),
            on_event=lambda event: None,
        )
        while (trial := conductor.next()) is not None:
            report = evaluator.evaluate(
                client, scorer, trial.factors, derivatives=trial.derivatives
            )
            assert report.outcome.reason is None
            conductor.complete(trial.number, report.outcome)
    reason = conductor.stop_reason
    assert reason is not None
    outcome = build_outcome(plan, 1, conductor.trials, stop_reason=reason, seconds={})
    return outcome, actor, _gradient_notes(config, inputs)


def test_in_float32_one_engine_does_both(tmp_path: Path, llama_chain: list[Path]) -> None:
    write_data(tmp_path)
    rail = {
        "name": "rail",
        "stimuli": str(tmp_path / "rail.jsonl"),
        "error": "cross_entropy",
        "max_increase": 0.01,
    }
    outcome, actor, notes = search(make_config(tmp_path, llama_chain, guardrails=[rail]))
    assert actor._differentiator is actor._engine
    assert notes == ()
    assert outcome.stop_reason == "converged"
    assert outcome.improvement > 0
    assert outcome.gradient_evaluations <= 20
    assert 3 <= outcome.number_of_inferences <= 5
    best = [t for t in outcome.trials if t.factors == outcome.optimized_scaling_factors]
    assert {t.kind for t in best} == {TrialKind.SEARCH, TrialKind.CONFIRM}
    assert best[0].outcome.error == pytest.approx(best[1].outcome.error, rel=1e-5)
    before = outcome.trials[0].outcome
    assert best[1].outcome.guardrails["rail"] <= before.guardrails["rail"] + 0.01
    first = next(t for t in outcome.trials if t.kind is TrialKind.SEARCH)
    plain = next(t for t in outcome.trials if t.factors == first.factors)
    assert plain.kind in (TrialKind.BASELINE, TrialKind.COMPARISON)
    assert first.outcome.error == pytest.approx(plain.outcome.error, rel=1e-5)
    assert first.outcome.per_stimulus == pytest.approx(plain.outcome.per_stimulus, rel=1e-4)


def test_at_bfloat16_a_second_engine_searches_and_the_first_confirms(
    tmp_path: Path, llama_chain: list[Path]
) -> None:
    write_data(tmp_path)
    engine = {"name": "torch", "dtype": "bfloat16"}
    sampler = {"name": "gradient", "mode": "reverse"}
    config = make_config(tmp_path, llama_chain, engine=engine, sampler=sampler)
    outcome, actor, notes = search(config)
    assert actor._engine is not None
    assert actor._differentiator is not None
    assert actor._engine.info.dtype == "bfloat16"
    assert Capability.GRADIENT not in actor._engine.info.capabilities
    assert actor._differentiator.info.dtype == "float32"
    [note] = notes
    assert "derivatives of float32 weights" in note
    assert "evaluated in bfloat16 on the engine torch" in note
    assert outcome.improvement > 0
    best = [t for t in outcome.trials if t.factors == outcome.optimized_scaling_factors]
    assert best[0].outcome.error != best[1].outcome.error
    assert best[0].outcome.error == pytest.approx(best[1].outcome.error, rel=0.02)
    assert outcome.optimized_model_error == best[1].outcome.error
    proof = holdout_inputs(prepare(config, settings=Settings()))
    actor.start(proof.engine, Questions.of(proof))  # the proof takes none: the memory is free
    assert actor._differentiator is None


def test_a_factor_for_each_step_and_group(tmp_path: Path, llama_chain: list[Path]) -> None:
    write_data(tmp_path)
    steps, _, _ = search(make_config(tmp_path, llama_chain))
    (tmp_path / "out" / "ledger.db").unlink()
    groups, actor, _ = search(make_config(tmp_path, llama_chain, factors={"groups": "kinds"}))
    assert actor._engine is not None
    count = len(groups.optimized_scaling_factors)
    assert count == len(groups.factor_names) == len(actor._engine.factors) > 4
    first = next(t for t in groups.trials if t.kind is TrialKind.SEARCH).outcome.gradient
    whole = next(t for t in steps.trials if t.kind is TrialKind.SEARCH).outcome.gradient
    width = count // 2
    added = [sum(first[i : i + width]) for i in range(0, count, width)]
    assert added == pytest.approx(whole, rel=1e-4, abs=1e-6)
    assert groups.improvement > 0.9 * steps.improvement


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error": "rouge_l"}, "got rouge_l, which reads the answer's text.*Use another sampler"),
        (
            {"error": ["cross_entropy", {"function": "sentence_similarity", "weight": 0.5}]},
            "got sentence_similarity, which reads the answer's text",
        ),
        ({"error": "accuracy", "labels": ["a", "b"]}, "got accuracy, which reads the answer's lab"),
        ({"error": {"function": "mse", "source": "text"}}, "got mse, which reads the answer's tex"),
        ({"error": "my.own:function"}, "got my.own:function"),
        (
            {"guardrails": [{"name": "r", "stimuli": "x", "error": "exact_match"}]},
            "guardrail r: the sampler gradient needs .* got exact_match",
        ),
        ({"engine": {"tensor_parallel_size": 2}}, "on one device.*tensor_parallel_size: 2"),
    ],
)
def test_what_cannot_be_differentiated_is_refused_before_anything_is_opened(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, [tmp_path / "a", tmp_path / "b", tmp_path / "c"], **changes)
    make_config(
        tmp_path, [tmp_path / "a", tmp_path / "b", tmp_path / "c"], **{**changes, "sampler": "gp"}
    )
