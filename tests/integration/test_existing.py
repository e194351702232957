"""A chain whose base alone is better than what a small limit can reach, from data to card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toys import make_chain

from tune_search.command import result_lines
from ztom.search.config_files import parse_config
from ztom.search.existing import Standing

ADVICE = "checkpoint base alone is better: use it"
WORDS = ("heart", "lung", "pain", "cold", "sleep", "skin", "salt", "iron", "walk")


def write_questions(path: Path, count: int, *, first: int) -> str:
    lines = [
        {
            "prompt": f"{WORDS[i % 9]} and {WORDS[(i * 5 + 1) % 9]} {i * 37} days?",
            "expected": f"{WORDS[(i * 7) % 9]} {WORDS[(i * 2) % 9]} {i}",
        }
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_base_that_is_better_than_the_blend_is_said_first(
    local_ray: None, tmp_path: Path
) -> None:
    from tune_search.run import report_path, result_path, search_and_prove

    folders = make_chain(tmp_path / "chain", members=3, step=1.5)  # each step makes it worse
    members = [
        {"reference": str(folder), "tag": tag}
        for folder, tag in zip(folders, ("base", "one", "two"), strict=True)
    ]
    content: dict[str, Any] = {
        "chain": {"checkpoints": members},
        "stimuli": write_questions(tmp_path / "search.jsonl", 12, first=0),
        "holdout": write_questions(tmp_path / "holdout.jsonl", 24, first=100),
        "error": "cross_entropy",
        "scaling_factor_limit": 0.05,
        "engine": {"name": "torch", "dtype": "float32"},
        "inference_config": {"max_new_tokens": 2},
        "budget": {"evaluations": 3},
        "insist": True,
        "output": str(tmp_path / "out"),
    }
    config = parse_config(content)
    result = search_and_prove(config)

    assert [(m.name, m.kind) for m in result.existing] == [
        ("base", "checkpoint"),
        ("one", "checkpoint"),
        ("two", "trained"),
        ("average", "average"),
    ]
    base, one, trained, mean = result.existing
    assert base.factors == (-1.0, -1.0)
    assert mean.factors == pytest.approx((-1 / 3, -2 / 3))
    proof = result.proof
    assert proof is not None
    assert trained.search_error == result.trained_model_error
    assert trained.holdout_error == proof.trained_model_error
    for model in (base, one, mean):
        assert model.search_error < trained.search_error  # type: ignore[operator]
        assert model.holdout_error < trained.holdout_error  # type: ignore[operator]
    assert result.baseline_inferences == 3 + 3
    assert result.number_of_inferences == 2 + 3 + 3
    assert len(result.step_gains) == 2

    best = result.best_existing
    assert best is not None
    assert (best.name, best.outcome, result.advice) == ("base", Standing.WORSE, ADVICE)
    assert best.improvement is not None
    difference = base.holdout_error - proof.optimized_model_error  # type: ignore[operator]
    assert best.improvement.estimate == pytest.approx(difference)
    assert best.improvement.high < 0

    assert json.loads(result_path(config).read_text())["best_existing"]["outcome"] == "worse"
    assert result_lines(result, config, tmp_path / "search.yaml")[0] == ADVICE
    report = report_path(config).read_text()
    assert report.index(ADVICE) < report.index("<section")
    card = (tmp_path / "out" / "variant" / "README.md").read_text()
    assert card.split("---\n")[2].lstrip().startswith(f"**{ADVICE}**")
    recipe = json.loads((tmp_path / "out" / "variant" / "recipe.json").read_text())
    assert recipe["evidence"]["best_existing"]["name"] == "base"
