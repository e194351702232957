"""How answers are scored: references, traps, and what must never become a number."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ztom.errors import ConfigError, EvaluationError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.metrics.isolation import OwnFunction
from ztom.evaluation.metrics.protocol import Case, Scored
from ztom.evaluation.suites.read import load_suite
from ztom.evaluation.suites.scaffold import example_folder, example_names
from ztom.evaluation.suites.suite import Item, MetricName, Suite, SuiteConfig
from ztom.statistics.scores import MacroF1Scores, RatioScores


def make_suite(metric: str, targets: list[Any], **settings: Any) -> Suite:
    layer = "behavioural" if metric == "checks" else "task"
    config = SuiteConfig.model_validate(
        {"name": "s", "version": "1.0.0", "owner": "me", "layer": layer, "metric": metric}
        | settings
    )
    items = tuple(Item(id=str(i), input="ask", target=t) for i, t in enumerate(targets))
    return Suite(config=config, items=items, digest="0" * 64)


def score(
    metric: str, pairs: list[tuple[Any, str]], *, paths: list[str] | None = None, **settings: Any
) -> list[Scored]:
    """Score (target, answer) pairs."""
    suite = make_suite(metric, [target for target, _ in pairs], **settings)
    made = build_metric(suite, import_paths=paths)
    try:
        return made.score(
            [
                Case(item, "ask", (answer,))
                for item, (_, answer) in zip(suite.items, pairs, strict=True)
            ]
        )
    finally:
        made.close()


def values(metric: str, pairs: list[tuple[Any, str]], **settings: Any) -> list[float | None]:
    return [scored.value for scored in score(metric, pairs, **settings)]


def test_exact_match() -> None:
    pairs = [("Paris", " Paris\n"), ("Paris", "paris"), (["a b", "c"], "a  b"), ("x", "")]
    assert values("exact_match", pairs) == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("refund", True),
        ("  Refund.\n", True),
        ("It is a refund, I think.\nNot a complaint.", True),
        ("refund or complaint", False),
        ("I do not know", False),
        ("", False),
        ("first\nrefund", False),
        ("refunds", False),
    ],
)
def test_a_label_is_read_from_the_answer(answer: str, right: bool) -> None:
    (scored,) = score("accuracy", [("refund", answer)], labels=["refund", "complaint"])
    assert scored == Scored(value=float(right))


def test_the_longer_of_two_labels_counts() -> None:
    labels = ["urgent", "not urgent"]
    pairs = [("not urgent", "This is not urgent."), ("urgent", "This is not urgent.")]
    assert values("accuracy", pairs, labels=labels) == [1.0, 0.0]


def test_macro_f1_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    labels = ["a", "b", "c"]
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("c", "what?"), ("c", "c"), ("b", "a")]
    scored = score("macro_f1", pairs, labels=labels)
    assert scored[3].parts == (2.0, -1.0)
    import numpy as np

    expected, predicted = np.array([s.parts for s in scored], dtype=np.int64).T
    ours = 1.0 - MacroF1Scores(expected, predicted, 3).aggregate()[0]
    names = [*labels, "none"]
    theirs = f1_score(
        [t for t, _ in pairs], [names[p] for p in predicted], average="macro", labels=labels
    )
    assert ours == pytest.approx(theirs)


def test_labels_that_read_the_same_are_refused() -> None:
    with pytest.raises(EvaluationError, match="told apart"):
        build_metric(make_suite("accuracy", ["a"], labels=["a", "A!"]))


def test_a_target_that_is_no_label_is_a_problem_not_a_zero() -> None:
    (scored,) = score("accuracy", [("elsewhere", "a")], labels=["a", "b"])
    assert scored.value is None
    assert scored.problem


def test_span_f1() -> None:
    target = [{"text": "Aspirin", "label": "drug"}, {"text": "100 mg", "label": "dose"}]
    answers = [
        json.dumps(target),
        '```json\n[{"text": "aspirin", "label": "DRUG"}]\n```',
        '[{"text": "aspirin", "label": "dose"}]',
        "no idea",
        "[]",
        "",
    ]
    scored = score("span_f1", [(target, answer) for answer in answers])
    assert [s.value for s in scored] == [1.0, pytest.approx(2 / 3), 0.0, 0.0, 0.0, 0.0]
    assert [s.parts for s in scored[:3]] == [(4.0, 4.0), (2.0, 3.0), (0.0, 3.0)]


def test_a_model_that_loops_in_new_lines_is_scored() -> None:
    (scored,) = score("span_f1", [(["a"], "```json" + "\n" * 2_000_000)])
    assert scored.value == 0.0


def test_spans_without_labels_may_be_lines() -> None:
    pairs = [(["Rome", "New  York"], "- new york\n2. Rome"), (["Rome"], "Rome\nRome"), ([], "")]
    scored = score("span_f1", pairs)
    assert [s.value for s in scored] == [1.0, pytest.approx(2 / 3), 1.0]
    assert scored[2].parts == (0.0, 0.0)
    import numpy as np

    found, size = np.array([s.parts for s in scored]).T
    assert 1.0 - RatioScores(size - found, size).aggregate()[0] == pytest.approx(6 / 7)


@pytest.mark.parametrize("target", ["not JSON at all", {"text": "a"}, [1, 2], None, [{"text": 1}]])
def test_a_target_that_is_no_list_of_spans_is_a_problem(target: Any) -> None:
    (scored,) = score("span_f1", [(target, '["a"]')])
    assert scored.value is None
    assert scored.problem is not None
    assert "target" in scored.problem


@pytest.mark.parametrize("metric", ["exact_match", "rouge_l"])
@pytest.mark.parametrize("target", [None, 3, {"a": 1}, [1]])
def test_a_target_that_is_no_text_is_a_problem(metric: str, target: Any) -> None:
    (scored,) = score(metric, [(target, "a")])
    assert scored.value is None
    assert scored.problem


def test_rouge_l_counts_the_longest_common_subsequence() -> None:
    pairs = [("the cat sat down", "the cat lay down"), ("a b", ""), ("a", "a")]
    assert values("rouge_l", pairs) == [pytest.approx(0.75), 0.0, 1.0]


def test_an_empty_answer_is_like_nothing_and_the_same_text_like_itself() -> None:
    pairs = [("Yes.", ""), ("Yes.", " \n"), ("the cat sat", "the cat sat")]
    assert values("similarity", pairs) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("metric", ["exact_match", "rouge_l", "accuracy", "span_f1"])
def test_an_answer_of_ten_megabytes_is_scored_in_seconds(metric: str) -> None:
    answer = "lorem ipsum dolor\n" * (10 * 2**20 // 18)
    target: Any = ["lorem ipsum dolor"] if metric == "span_f1" else "ipsum lorem"
    began = time.process_time()
    (scored,) = score(metric, [(target, answer)])
    assert scored.problem is None
    assert scored.value is not None
    assert scored.value < 0.01
    assert time.process_time() - began < 20


def write_functions(folder: Path) -> list[str]:
    (folder / "mine.py").write_text(
        "import json, time\n"
        "def half(prompts, answers, targets):\n    return [0.5] * len(answers)\n"
        "def runs(prompts, answers, targets):\n"
        "    return [float(eval(a) == json.loads(t)['result'])"
        " for a, t in zip(answers, targets)]\n"
        "def agrees(prompts, answers, targets):\n"
        "    return [a == t for a, t in zip(answers, targets)]\n"
        "def seven(prompts, answers, targets):\n    return 7.0\n"
        "def sleeps(prompts, answers, targets):\n"
        "    time.sleep(60 if answers[0] == 'sleep' else 0)\n    return 1.0\n"
    )
    return [str(folder)]


def test_the_users_own_function(tmp_path: Path) -> None:
    paths = write_functions(tmp_path)
    assert values("user", [("x", "a"), ("x", "b")], paths=paths, function="mine:half") == [0.5, 0.5]
    (scored,) = score("user", [("x", "a")], paths=paths, function="mine:seven")
    assert scored.value is None
    assert "not a number from 0 to 1" in str(scored.problem)


def test_pass_at_1_and_an_answer_that_makes_the_check_raise(tmp_path: Path) -> None:
    paths = write_functions(tmp_path)
    pairs = [({"result": 4}, "2 + 2"), ({"result": 4}, "2 + 3"), ({"result": 4}, "1 / 0")]
    passed, failed, raised = score("pass_at_1", pairs, paths=paths, function="mine:runs")
    assert (passed.value, failed.value, raised.value) == (1.0, 0.0, None)
    assert "ZeroDivisionError" in str(raised.problem)
    (scored,) = score("pass_at_1", [("x", "a")], paths=paths, function="mine:half")
    assert "not 1 (passed) or 0" in str(scored.problem)


@pytest.mark.parametrize("metric", ["pass_at_1", "user"])
def test_true_is_1_and_false_is_0(tmp_path: Path, metric: str) -> None:
    paths = write_functions(tmp_path)
    pairs = [("x", "x"), ("x", "y")]
    assert values(metric, pairs, paths=paths, function="mine:agrees") == [1.0, 0.0]


def test_one_answer_that_hangs_costs_one_item(tmp_path: Path) -> None:
    config = make_suite("user", ["t"] * 3, function="mine:sleeps").config
    metric = OwnFunction(config, import_paths=write_functions(tmp_path), deadline_s=2.0)
    cases = [
        Case(Item(id=str(i), input="q", target="t"), "q", (answer,))
        for i, answer in enumerate(["a", "sleep", "b"])
    ]
    scored = metric.score(cases)
    metric.close()
    assert [s.value for s in scored] == [1.0, None, 1.0]
    assert "deadline" in str(scored[1].problem)


def test_a_function_that_cannot_be_imported_is_found_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        build_metric(make_suite("user", ["t"], function="nowhere:f"), import_paths=[str(tmp_path)])


def test_every_metric_can_be_built(tmp_path: Path) -> None:
    more: dict[str, dict[str, Any]] = {
        "pass_at_1": {"function": "mine:half"},
        "user": {"function": "mine:half"},
        "checks": {"checks": [{"kind": "refusal"}]},
    }
    paths = write_functions(tmp_path)
    for name in MetricName:
        suite = make_suite(str(name), ["a"], **more.get(str(name), {}))
        build_metric(suite, import_paths=paths).close()


@pytest.mark.parametrize("name", [name for name in example_names() if name != "probes"])
def test_the_targets_of_every_example_are_right_answers(name: str) -> None:
    suite = load_suite(example_folder(name))
    cases = []
    for item in suite.items:
        target = item.target
        if suite.config.metric is MetricName.SPAN_F1:
            target = json.dumps(target)
        cases.append(Case(item, "p", (target if isinstance(target, str) else target[0],)))
    assert {scored.value for scored in build_metric(suite).score(cases)} == {1.0}
