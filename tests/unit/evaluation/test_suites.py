"""Suites: what is read, and everything that is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from suite_folders import ITEMS, SETTINGS, write

from ztom.errors import EvaluationError
from ztom.evaluation.suites.discover import FoundSuite, read_suites
from ztom.evaluation.suites.read import load_suite
from ztom.evaluation.suites.suite import Item, Turn
from ztom.evaluation.suites.templates import PromptTemplate
from ztom.stimuli.records import Message

PROBES = {
    "name": "p",
    "version": "1.0.0",
    "layer": "behavioural",
    "metric": "checks",
    "owner": "o",
    "labels": [],
}
REFUSAL = [{"kind": "refusal"}]


def one(**fields: Any) -> list[dict[str, Any]]:
    return [{"id": "a", "input": "It purrs.", "target": "cat", **fields}]


def problem(folder: Path) -> str:
    with pytest.raises(EvaluationError) as caught:
        load_suite(folder)
    return str(caught.value)


# --- reading ------------------------------------------------------------------------------------


def test_a_suite_is_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path))
    assert [item.id for item in suite.items] == ["a", "b", "c"]
    assert suite.config.labels == ("cat", "dog")
    assert suite.items[1].must_pass


def test_white_space_and_the_order_of_keys_do_not_matter_to_the_digest(tmp_path: Path) -> None:
    before = load_suite(write(tmp_path)).digest
    lines = [
        json.dumps(dict(reversed(item.items())), indent=None, separators=(" , ", " : "))
        for item in ITEMS
    ]
    (tmp_path / "items.jsonl").write_text("\r\n".join(lines) + "\n\n")
    (tmp_path / "suite.yaml").write_text(
        "# a comment\n" + yaml.safe_dump(dict(reversed(SETTINGS.items())), sort_keys=False)
    )
    assert load_suite(tmp_path).digest == before


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items.reverse(),
        lambda items: items.pop(),
        lambda items: items[0].update(target="dog"),
        lambda items: items[0].update(must_pass=True),
        lambda items: items[0].update(input="It purrs. "),
    ],
)
def test_what_items_say_and_their_order_matter_to_the_digest(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], object]
) -> None:
    before = load_suite(write(tmp_path)).digest
    items = [dict(item) for item in ITEMS]
    change(items)
    assert load_suite(write(tmp_path, items)).digest != before


def read(root: Path) -> tuple[FoundSuite, ...]:
    return read_suites([root], read=load_suite)


def test_suites_below_a_folder_come_by_folder(tmp_path: Path) -> None:
    write(tmp_path / "x", name="second")
    write(tmp_path / "deep" / "er", name="first")
    write(tmp_path / ".staging-1", name="first")
    assert [entry.suite.config.name for entry in read(tmp_path)] == ["first", "second"]
    write(tmp_path / "y", name="first")
    with pytest.raises(EvaluationError, match="two suites have one name: got first, first, second"):
        read(tmp_path)


def test_no_suite_is_not_an_empty_success(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(EvaluationError, match=r"there is no suite\.yaml"):
            read(folder)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (one(id="b") + one(id="b"), "line 2: an id occurs twice: got b, as in line 1"),
        (one(id="a\x1b[31m"), "line 1: id is not usable"),
        (one(id=" "), "line 1: id is not usable"),
        (one(slice="a\nb"), "line 1: slice is not usable"),
        (one(input="  "), "line 1: input is empty"),
        (one(input=[]), "do not end with something that a user says"),
        (one(input=[{"role": "assistant", "content": "Hm"}]), "do not end with something"),
        (one(input=[{"role": "tool", "content": "Hm"}]), "line 1: the line is not an item"),
        (one(source_ts="yesterday"), "line 1: source_ts is no time"),
        (one(colour="red"), "colour: no such key"),
        (one(id=None), "id: has to be text"),
        (one(target="bird"), "expected one of the 2 labels of the suite"),
        (one(target=1), "expected one of the 2 labels of the suite"),
        (one(target=["cat"]), "expected one of the 2 labels of the suite"),
        (one(target=None), "expected one of the 2 labels of the suite"),
    ],
)
def test_items_that_are_refused(tmp_path: Path, items: list[dict[str, Any]], message: str) -> None:
    found = problem(write(tmp_path, items))
    assert message in found
    assert "items.jsonl" in found
    assert "purrs" not in found
    assert "\x1b" not in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"\xef\xbb\xbf{}", "line 1: the line is not an item: id: missing"),
        (b"\xff\xfe{", "line 1: not UTF-16"),
        (b'{"id": "\0"}', "a NUL character"),
        (b'{"id": "a"}\n\xff', "line 2: not UTF-8"),
        (b'{"id": "a", "input": "\\ud800", "target": "cat"}', "half of a surrogate pair"),
        (b'{"id": "a", "id": "b"}', "a key twice"),
        (b'{"id": "a", "input": "x", "target": NaN}', "not finite"),
        (b'{"id": "a", "input": "x", "target": 1e999}', "not finite"),
        (b'{"id": "a", "input": "x", "target": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": "a", "input": "x", "target": "cat"}\n\n{}', "line 3: the line is not an item"),
        (b'{"id": "a", "input": "' + b"x" * 200_000 + b'"}', "a text is too long"),
        (b'{"id": "a", "input": "' + b"x" * 10_000_000 + b'"}', "line 1: the line is too long"),
        (b'["a"]', "the line is not an item"),
        (b"{", "line 1: not JSON"),
    ],
)
def test_hostile_lines_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path)
    (tmp_path / "items.jsonl").write_bytes(content)
    assert message in problem(tmp_path)


def test_limits_on_items_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setattr("ztom.evaluation.suites.read.MAX_ITEMS", 2)
    assert "too many items: got 3, expected at most 2" in problem(tmp_path)
    monkeypatch.setattr("ztom.evaluation.suites.read.MAX_ITEMS_BYTES", 50)
    assert "items.jsonl is too large" in problem(tmp_path)
    monkeypatch.setattr("ztom.evaluation.suites.read.MAX_SETTINGS_BYTES", 50)
    assert "suite.yaml is too large" in problem(tmp_path)


def test_files_that_are_missing_or_no_files(tmp_path: Path) -> None:
    assert "suite.yaml does not exist" in problem(tmp_path)
    write(tmp_path)
    (tmp_path / "items.jsonl").unlink()
    assert "items.jsonl does not exist" in problem(tmp_path)
    (tmp_path / "items.jsonl").mkdir()
    assert "not a regular file" in problem(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "suite.yaml, line 1: not usable YAML"),
        ("a: &x [1]\nb: *x", "suite.yaml, line 2: not usable YAML: an alias"),
        ("floor: 0.9\nfloor: 0.1", "suite.yaml, line 2: not usable YAML: a key twice"),
        ("name: !!python/object/apply:os.getcwd []", "not usable YAML"),
        ("name: 2025-01-01", "Put a date in quotes"),
        ("floor: .nan", "a value that JSON has not"),
        ('name: "\\ud800"', "a value that JSON has not"),
        ("[" * 5000, "nested too deeply"),
        ("- 1", "not a suite's settings"),
        ("{}", "name: missing"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
    assert message in problem(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "1.0"}, "version"),
        ({"version": 1.0}, "version"),
        ({"name": "../up"}, "name"),
        ({"floor": 1.5}, "floor"),
        ({"alpha": 0}, "alpha"),
        ({"colour": "red"}, "colour"),
        ({"owner": "a\x1b[0m"}, "cannot be printed"),
        ({"labels": ["cat", "dog", "Cat"]}, "two labels differ at most in case"),
        ({"labels": ["cat", "dog", "dog"]}, "two labels differ at most in case"),
        ({"metric": "exact_match"}, "labels go with the metrics accuracy and macro_f1"),
        ({"layer": "frozen", "floor": 0.9}, "a floor is for task suites"),
        ({"minimum_rate": 0.9}, "minimum_rate is for behavioural suites"),
        ({**PROBES, "checks": [{"kind": "forbidden", "strings": [" "]}]}, "strings"),
    ],
)
def test_values_that_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    assert message in problem(write(tmp_path, **settings))


def test_labels_that_are_not_listed_come_from_the_targets(tmp_path: Path) -> None:
    assert load_suite(write(tmp_path, labels=None)).config.labels == ()
    found = problem(write(tmp_path, one(id="a") + one(id="b", target="CAT"), labels=None))
    assert "two labels differ at most in case" in found


@pytest.mark.parametrize(
    "check",
    [
        {"kind": "regex", "pattern": "("},
        {"kind": "not_regex", "pattern": "a{99999999999}"},
        {"kind": "json_schema", "form": {"type": "thing"}},
    ],
)
def test_checks_that_are_malformed(tmp_path: Path, check: dict[str, Any]) -> None:
    found = problem(write(tmp_path, **{**PROBES, "checks": [check]}))
    assert f"suite.yaml, line 1: a check of kind {check['kind']} is malformed" in found


# --- targets ------------------------------------------------------------------------------------

SPAN = {"text": "aspirin", "label": "drug"}


@pytest.mark.parametrize(
    ("metric", "target", "fits"),
    [
        ("macro_f1", "cat", True),
        ("macro_f1", {"label": "cat"}, False),
        ("exact_match", "yes", True),
        ("exact_match", ["yes", "Yes"], True),
        ("exact_match", [], False),
        ("exact_match", ["yes", 1], False),
        ("exact_match", 3, False),
        ("rouge_l", "some text", True),
        ("rouge_l", ["some text"], False),
        ("similarity", "some text", True),
        ("similarity", " ", False),
        ("span_f1", [], True),
        ("span_f1", ["aspirin"], True),
        ("span_f1", [SPAN], True),
        ("span_f1", [SPAN, "aspirin"], False),
        ("span_f1", [{"text": "aspirin"}], False),
        ("span_f1", [{**SPAN, "start": 3}], False),
        ("span_f1", [{**SPAN, "label": None}], False),
        ("span_f1", "aspirin", False),
        ("span_f1", None, False),
        ("user", {"anything": [1, 2]}, True),
        ("user", None, True),
    ],
)
def test_targets_have_to_be_what_the_metric_takes(
    tmp_path: Path, metric: str, target: object, fits: bool
) -> None:
    function = "mine:score" if metric == "user" else None
    labels = ["cat", "dog"] if metric == "macro_f1" else []
    write(tmp_path, one(target=target), metric=metric, function=function, labels=labels)
    if fits:
        assert load_suite(tmp_path).items[0].target == target
    else:
        assert f"line 1: the target is not what {metric} takes" in problem(tmp_path)


def test_spans_have_one_form_in_a_suite(tmp_path: Path) -> None:
    items = one(id="a", target=[]) + one(id="b", target=[SPAN]) + one(id="c", target=["aspirin"])
    found = problem(write(tmp_path, items, metric="span_f1", labels=None))
    assert "line 3: spans with and without a label" in found


@pytest.mark.parametrize(
    ("checks", "target", "fits"),
    [
        (REFUSAL, "answer", True),
        (REFUSAL, "refuse", True),
        (REFUSAL, None, True),
        (REFUSAL, "maybe", False),
        ([{"kind": "regex", "pattern": "x"}], None, True),
        ([{"kind": "regex", "pattern": "x"}], "answer", False),
    ],
)
def test_targets_of_probes(
    tmp_path: Path, checks: list[dict[str, Any]], target: str | None, fits: bool
) -> None:
    write(tmp_path, one(target=target), **{**PROBES, "checks": checks})
    if fits:
        assert load_suite(tmp_path).items[0].target == target
    else:
        assert "the target is not what checks takes" in problem(tmp_path)


# --- templates ----------------------------------------------------------------------------------

ITEM = Item(id="i1", input="Say hi", target="hi", slice="polite")
CHAT = Item(
    id="i2",
    input=(Turn(role="system", content="Be short."), Turn(role="user", content="Say hi")),
    target="hi",
)


def test_a_template_makes_a_prompt() -> None:
    template = PromptTemplate("{% if slice %}[{{ slice | upper }}] {% endif %}{{ input }}\n")
    assert template.render(ITEM) == "[POLITE] Say hi\n"
    assert template.render(CHAT) == (
        Message("system", "Be short."),
        Message("user", "Say hi\n"),
    )


def test_what_an_item_says_is_no_template() -> None:
    item = ITEM.model_copy(update={"input": "{{ target }} {% for x in y %}"})
    assert PromptTemplate("{{ input }}").render(item) == "{{ target }} {% for x in y %}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ input", "the template is wrong in its line 1"),
        ("\n{% if %}", "the template is wrong in its line 2"),
        ("{{ inptu }}", "got inptu"),
        ("{{ target }}", "got target"),
        ("{{ input | nothing }}", "refused: got Filter nothing"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "For"),
        ("{{ 'x' * 99999999999 }}", "refused: got Mul"),
        ("{{ input.__class__.__mro__ }}", "refused: got Getattr"),
        ("{{ input.format(input) }}", "refused: got Call"),
        ("{% include '/etc/passwd' %}", "refused: got Include"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "refused"),
        ("{{ " + "(" * 5000 + "input" + ")" * 5000 + " }}", "nested too deeply"),
    ],
)
def test_templates_that_are_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        PromptTemplate(source)
    assert message in str(caught.value)
    found = problem(write(tmp_path, template=source))
    assert "suite.yaml" in found
    assert message in found


def test_a_template_that_fails_on_an_item_names_its_line(tmp_path: Path) -> None:
    found = problem(write(tmp_path, template="{{ slice | length }}{{ input }}"))
    assert "items.jsonl, line 1: the template fails on item a" in found
    found = problem(write(tmp_path, template="{% if slice %}{{ input }}{% endif %}"))
    assert "items.jsonl, line 1: the template makes an empty prompt" in found
