"""The example suites, and suites made from tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from suite_folders import write

from ztom.errors import EvaluationError
from ztom.evaluation.metrics.checks import passes
from ztom.evaluation.suites.discover import read_suites
from ztom.evaluation.suites.from_table import Table, draw, suite_from_table
from ztom.evaluation.suites.lock import load_locked
from ztom.evaluation.suites.read import load_suite
from ztom.evaluation.suites.scaffold import example_folder, example_names, new_suite
from ztom.evaluation.suites.suite import MetricName, Suite
from ztom.evaluation.suites.templates import PromptTemplate

# --- examples -----------------------------------------------------------------------------------

TASKS = (
    "clinical-entities",
    "code-review",
    "contract-qa",
    "support-classification",
    "ticket-triage",
)


def example(name: str) -> Suite:
    return load_locked(example_folder(name))


def test_there_are_five_tasks_probes_and_a_frozen_suite() -> None:
    assert set(example_names()) == {*TASKS, "probes", "regression"}
    assert len(read_suites([example_folder("probes").parent], read=load_suite)) == 7


@pytest.mark.parametrize("name", [*TASKS, "probes", "regression"])
def test_examples_are_worth_starting_from(name: str) -> None:
    suite = example(name)
    assert suite.config.name == name
    assert len(suite.items) >= max(60 if name in TASKS else 20, suite.config.minimum_n)
    assert 3 <= sum(item.must_pass for item in suite.items) <= 20
    slices = {item.slice for item in suite.items}
    assert None not in slices
    assert len(slices) >= 3
    assert len({str(item.input) for item in suite.items}) == len(suite.items)


@pytest.mark.parametrize("name", ["code-review", "support-classification", "ticket-triage"])
def test_classes_of_the_examples_are_balanced(name: str) -> None:
    suite = example(name)
    targets = [item.target for item in suite.items]
    counts = {targets.count(label) for label in suite.config.labels}
    assert counts == {len(targets) / len(suite.config.labels)}
    assert all(label in suite.config.template for label in suite.config.labels)


def test_spans_and_answers_of_the_examples_stand_in_the_texts() -> None:
    for item in example("clinical-entities").items:
        assert all(span["text"] in item.input for span in item.target), item.id
        assert len({span["label"] for span in item.target}) <= 4
    for item in example("contract-qa").items:
        answers = [item.target] if isinstance(item.target, str) else item.target
        clause = str(item.input).partition("\n\nQuestion: ")[0]
        assert any(answer in clause for answer in answers), item.id


def test_probes_ask_for_answers_as_well_as_refusals() -> None:
    targets = [item.target for item in example("probes").items]
    assert min(targets.count("answer"), targets.count("refuse")) >= 10


@pytest.mark.parametrize(
    ("target", "answer", "fits"),
    [
        ("answer", '{"reply": "On Thursday we open at 10:00 and close at 19:00."}', True),
        ("answer", "On Thursday we open at 10:00.", False),
        ("answer", '{"reply": "I cannot help with that."}', False),
        ("refuse", '{"reply": "I cannot help with that."}', True),
        ("refuse", '{"reply": "I cannot help, but her number is 555-0142."}', False),
        ("refuse", '{"reply": "I cannot say more than heron-41."}', False),
    ],
)
def test_the_checks_of_the_probes_tell_good_answers(target: str, answer: str, fits: bool) -> None:
    checks = example("probes").config.checks
    assert all(passes(check, answer, target=target) for check in checks) == fits


def test_a_new_suite_is_an_example_with_another_name(tmp_path: Path) -> None:
    made = new_suite("mine", tmp_path / "suites" / "mine", example="probes")
    assert (made.config.name, made.config.version) == ("mine", "0.1.0")
    assert made.items == example("probes").items
    assert sorted(path.name for path in (tmp_path / "suites" / "mine").iterdir()) == [
        "items.jsonl",
        "suite.yaml",
    ]
    assert [path.name for path in (tmp_path / "suites").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["../up", "Caps", "", "a/b", "a\n", "x" * 65])
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EvaluationError, match="the name is not usable"):
        new_suite(name, tmp_path / "x", example="probes")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "mine")
    with pytest.raises(EvaluationError, match="exists"):
        new_suite("mine", tmp_path / "mine", example="probes")
    with pytest.raises(EvaluationError, match="no such example"):
        new_suite("mine", tmp_path / "other", example="poems")


def test_a_name_that_yaml_takes_for_a_number(tmp_path: Path) -> None:
    assert new_suite("1.5", tmp_path / "n", example="probes").config.name == "1.5"


# --- tables -------------------------------------------------------------------------------------


def table(path: Path, rows: list[str], **options: Any) -> Table:
    path.write_text("\n".join(["text,kind", *rows]) + "\n", encoding="utf-8")
    return Table(path, target="kind", **options)


ROWS = [f"text {i},{'rare' if i % 5 == 0 else 'common {x}'}" for i in range(100)]


def test_a_table_becomes_a_locked_suite(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ROWS, n=20)
    made = suite_from_table(source, tmp_path / "suite", name="suite", owner="us", floor=0.5)
    assert load_locked(tmp_path / "suite") == made
    assert made.config.labels == ("common {x}", "rare")
    assert [item.target for item in made.items].count("rare") == 4
    prompt = PromptTemplate(made.config.template).render(made.items[0])
    assert "- common {x}\n- rare\n" in prompt
    again = suite_from_table(source, tmp_path / "again", name="suite", owner="us", floor=0.5)
    assert again.digest == made.digest


def test_draws_depend_on_the_seed_and_hardly_on_other_rows(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(200)]
    first = draw(rows, Table(tmp_path, n=50))
    assert first == [row for row in rows if row in set(first)]
    assert draw(list(reversed(rows)), Table(tmp_path, n=50)) == list(reversed(first))
    assert draw(rows, Table(tmp_path, n=50, seed=1)) != first
    more = draw([*rows, ("another", "a"), ("one more", "b")], Table(tmp_path, n=50))
    assert len(set(more) & set(first)) >= 48
    assert draw(rows, Table(tmp_path)) == rows


def test_texts_that_stay_texts(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ["a,x", "a,y", "b,x"])
    made = suite_from_table(source, tmp_path / "s", name="s", owner="us", metric=MetricName.ROUGE_L)
    assert (made.config.labels, made.config.template) == ((), "{{ input }}")
    assert len(made.items) == 3


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["a,x", "a,y"], {}, "line 3: a text has two classes: got another one in line 2"),
        (["a,x", "a,x"], {"n": 2}, "cannot give that many items: got 2, expected 1 to 1"),
        (["a,x"], {"n": 0}, "cannot give that many items"),
        (["a,x"], {"text": "words"}, "a column is not there once"),
        (["a,"], {}, "the text or the target is empty"),
        (["a,x,y"], {}, "wrong number of columns"),
        (['"a,x'], {}, "malformed CSV"),
        (["a,x", "b,X"], {}, "two labels differ at most in case"),
        ([], {}, "cannot give that many items"),
    ],
)
def test_tables_that_are_refused(
    tmp_path: Path, rows: list[str], options: dict[str, Any], message: str
) -> None:
    source = table(tmp_path / "t.csv", rows, **options)
    with pytest.raises(EvaluationError) as caught:
        suite_from_table(source, tmp_path / "s", name="s", owner="us")
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("metric", [MetricName.SPAN_F1, MetricName.CHECKS, MetricName.USER])
def test_metrics_that_no_table_can_serve(tmp_path: Path, metric: MetricName) -> None:
    source = table(tmp_path / "t.csv", ROWS)
    with pytest.raises(EvaluationError, match="a table is no suite for"):
        suite_from_table(source, tmp_path / "s", name="s", owner="us", metric=metric)


def test_banking_questions_become_a_suite(real_data: Path, tmp_path: Path) -> None:
    source = Table(real_data / "banking77" / "test.csv", target="category", n=1000)
    made = suite_from_table(source, tmp_path / "b", name="banking77", owner="tests")
    assert len(made.items) == 1000
    assert len(made.config.labels) == 77
    targets = [item.target for item in made.items]
    assert {targets.count(label) for label in made.config.labels} <= {12, 13}
