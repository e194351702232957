"""Suites that nothing can pass say so; the examples can be passed."""

from __future__ import annotations

import pytest
from gate_helpers import make_run, make_suite

from ztom.evaluation.gate.attainable import warnings
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome
from ztom.evaluation.suites.read import load_suite
from ztom.evaluation.suites.scaffold import example_folder, example_names
from ztom.evaluation.suites.suite import Suite


def equal(suite: Suite, labels: list[int] | None = None) -> Outcome:
    """What the gate says of a candidate that is right wherever the champion is: everywhere."""
    n = len(suite.items)
    parts = {
        "macro_f1": [(float(label), float(label)) for label in labels or [0] * n],
        "span_f1": [(1.0, 1.0)] * n,
    }.get(suite.config.metric)
    ours, theirs = (
        make_run(suite, [1.0] * n, who, parts=parts) for who in ("candidate", "champion")
    )
    return decide([ours], [theirs], [suite]).outcome


def with_targets(suite: Suite, labels: list[int]) -> Suite:
    items = (
        item.model_copy(update={"target": f"c{label}"})
        for item, label in zip(suite.items, labels, strict=True)
    )
    return suite.model_copy(update={"items": tuple(items)})


@pytest.mark.parametrize("name", example_names())
def test_a_candidate_that_equals_the_champion_passes_the_examples(name: str) -> None:
    suite = load_suite(example_folder(name))
    labels = suite.config.labels
    places = [labels.index(str(item.target)) for item in suite.items] if labels else None
    assert equal(suite, places) is Outcome.PASS
    assert list(warnings(suite)) == []


@pytest.mark.parametrize("margin", [0.04, 0.049, 0.05, 0.06])
def test_single_items_are_told_as_the_gate_decides(margin: float) -> None:
    suite = make_suite(60, layer="task", margin=margin)
    assert bool(list(warnings(suite))) == (equal(suite) is not Outcome.PASS)


@pytest.mark.parametrize("margin", [0.1, 0.13, 0.15])
def test_clusters_are_told_as_the_gate_decides(margin: float) -> None:
    names = [f"c{i // 3}" if i < 60 else f"d{i}" for i in range(64)]
    suite = make_suite(64, layer="task", metric="rouge_l", margin=margin, clusters=names)
    assert bool(list(warnings(suite))) == (equal(suite) is not Outcome.PASS)


@pytest.mark.parametrize("margin", [0.1, 0.2, 0.24])
def test_rare_classes_are_told_as_the_gate_decides(margin: float) -> None:
    labels = [i % 3 for i in range(99)] + [3]
    suite = make_suite(100, layer="task", metric="macro_f1", margin=margin)
    suite = with_targets(suite, labels)
    assert bool(list(warnings(suite))) == (equal(suite, labels) is not Outcome.PASS)


def test_it_is_said_how_many_items_would_do() -> None:
    (told,) = warnings(make_suite(100, layer="task"))
    assert told == (
        "no candidate that is as good as its champion can pass: 100 items, worth 100 independent "
        "ones of equal size, show no margin below 0.0295, and 0.02 is asked for; about 149 items "
        "would do"
    )
    assert not list(warnings(make_suite(149, layer="task")))
    assert equal(make_suite(149, layer="task")) is Outcome.PASS
    (told,) = warnings(make_suite(100, layer="task", clusters=[f"c{i // 4}" for i in range(100)]))
    assert "worth 25 independent ones" in told
    assert told.endswith("about 594 items would do")
    (told,) = warnings(make_suite(100, layer="task", margin=0.0))
    assert told.endswith("no number of items shows a margin of 0")
    (told,) = warnings(make_suite(40, layer="task", margin=1e-6))
    assert told.endswith("no number of items in sight would do")


def test_other_layers_are_not_compared_by_a_margin() -> None:
    assert not list(warnings(make_suite(40)))
    assert not list(warnings(make_suite(40, layer="behavioural")))
