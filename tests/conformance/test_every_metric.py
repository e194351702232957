"""What every metric of suites has to do: those that come with the package, and a user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.metrics.protocol import Case, Metric
from ztom.evaluation.suites.suite import Suite, SuiteConfig
from ztom.testing import MetricConformance

_CASES = MetricConformance.cases


def suite_of(metric: str, **settings: Any) -> Suite:
    config = SuiteConfig.model_validate(
        {"name": "s", "version": "1.0.0", "owner": "me", "layer": "task", "metric": metric}
        | settings
    )
    items = tuple(case.item for case in _CASES)
    return Suite(config=config, items=items, digest="0" * 64)


def with_target(case: Case, target: object) -> Case:
    return replace(case, item=case.item.model_copy(update={"target": target}))


@pytest.mark.parametrize("name", ["exact_match", "accuracy", "macro_f1", "rouge_l"])
class TestTexts(MetricConformance):
    unscorable = with_target(_CASES[0], None)

    @pytest.fixture
    def metric(self, name: str) -> Metric:
        return build_metric(suite_of(name))


class TestSpans(MetricConformance):
    cases = tuple(
        replace(with_target(case, [str(case.item.target)]), answers=(json.dumps(["yes"]),))
        for case in _CASES
    )
    unscorable = _CASES[0]

    @pytest.fixture
    def metric(self) -> Metric:
        return build_metric(suite_of("span_f1"))


class TestChecks(MetricConformance):
    @pytest.fixture
    def metric(self) -> Iterator[Metric]:
        checks = [{"kind": "regex", "pattern": "^yes"}]
        metric = build_metric(suite_of("checks", layer="behavioural", checks=checks))
        yield metric
        metric.close()


@pytest.mark.parametrize("name", ["user", "pass_at_1"])
class TestUsersOwn(MetricConformance):
    unscorable = with_target(_CASES[0], "raise")

    @pytest.fixture
    def metric(self, name: str, tmp_path: Path) -> Iterator[Metric]:
        (tmp_path / "my_metrics.py").write_text(
            "def same(prompts, answers, targets):\n"
            "    if 'raise' in targets:\n"
            "        raise ValueError(targets)\n"
            "    return [float(a == t) for a, t in zip(answers, targets)]\n"
        )
        suite = suite_of(name, function="my_metrics:same")
        metric = build_metric(suite, import_paths=[str(tmp_path)])
        yield metric
        metric.close()
