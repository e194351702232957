"""Suites: how they are read, what is refused, and what a lock notices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ztom.errors import EvaluationError
from ztom.evaluation.metrics.checks import passes
from ztom.evaluation.suites.digests import canonical, item_digest, settings_digest
from ztom.evaluation.suites.discover import FoundSuite, read_suites
from ztom.evaluation.suites.from_table import Table, draw, suite_from_table
from ztom.evaluation.suites.lock import compare, load_locked, lock_changes, lock_of, lock_suite
from ztom.evaluation.suites.read import load_suite
from ztom.evaluation.suites.scaffold import example_folder, example_names, new_suite
from ztom.evaluation.suites.suite import Item, MetricName, Suite, Turn
from ztom.evaluation.suites.templates import PromptTemplate
from ztom.stimuli.records import Message

SETTINGS = {
    "name": "animals",
    "version": "1.0.0",
    "layer": "task",
    "metric": "accuracy",
    "owner": "zoo",
    "labels": ["cat", "dog"],
}
ITEMS: list[dict[str, Any]] = [
    {"id": "a", "input": "It purrs.", "target": "cat"},
    {"id": "b", "input": "It barks.", "target": "dog", "slice": "loud", "must_pass": True},
    {"id": "c", "input": "It sleeps.", "target": "cat", "source_ts": "2025-05-01T10:00:00Z"},
]
PROBES = {
    "name": "p",
    "version": "1.0.0",
    "layer": "behavioural",
    "metric": "checks",
    "owner": "o",
    "labels": [],
}
REFUSAL = [{"kind": "refusal"}]


def write(folder: Path, items: list[dict[str, Any]] | None = None, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in {**SETTINGS, **settings}.items() if value is not None}
    (folder / "suite.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    lines = [json.dumps(item) for item in (ITEMS if items is None else items)]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


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
        (one(colour="red"), "colour: Extra inputs are not permitted"),
        (one(id=None), "id: Input should be a valid string"),
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
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        (b'{"id": "\0"}', "a NUL character"),
        (b'{"id": "a"}\n\xff', "line 2: not UTF-8"),
        (b'{"id": "a", "input": "\\ud800", "target": "cat"}', "half of a surrogate pair"),
        (b'{"id": "a", "id": "b"}', "a key twice"),
        (b'{"id": "a", "input": "x", "target": NaN}', "not finite"),
        (b'{"id": "a", "input": "x", "target": 1e999}', "not finite"),
        (b'{"id": "a", "input": "x", "target": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": "a"}\n\n{"id": "b"}', "line 2: the line is blank"),
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
        ("a: &x [1]\nb: *x", "suite.yaml, line 2: not usable YAML: got an alias"),
        ("floor: 0.9\nfloor: 0.1", "suite.yaml, line 2: not usable YAML: got a key twice"),
        ("name: !!python/object/apply:os.getcwd []", "not usable YAML"),
        ("name: 2025-01-01", "Put a date in quotes"),
        ("floor: .nan", "a value that JSON has not"),
        ('name: "\\ud800"', "a value that JSON has not"),
        ("[" * 5000, "nested too deeply"),
        ("- 1", "not a suite's settings"),
        ("{}", "name: Field required"),
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


# --- locks --------------------------------------------------------------------------------------


def test_a_locked_suite_is_what_its_lock_says(tmp_path: Path) -> None:
    lock = lock_suite(write(tmp_path))
    assert load_locked(tmp_path).digest == lock.digest
    assert not lock_changes(tmp_path).any
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "items.jsonl",
        "suite.lock",
        "suite.yaml",
    ]
    before = (tmp_path / "suite.lock").stat().st_mtime_ns
    assert lock_suite(tmp_path) == lock
    assert (tmp_path / "suite.lock").stat().st_mtime_ns == before


def test_a_suite_without_a_lock_does_not_count_as_locked(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"suite\.lock does not exist"):
        load_locked(write(tmp_path))


def test_changed_items_need_a_higher_version(tmp_path: Path) -> None:
    lock_suite(write(tmp_path))
    locked = (tmp_path / "suite.lock").read_bytes()
    items = [{**ITEMS[0], "target": "dog"}, ITEMS[2], {**ITEMS[1], "id": "d"}]
    write(tmp_path, items)
    changes = lock_changes(tmp_path)
    assert (changes.changed, changes.added, changes.removed) == (("a",), ("d",), ("b",))
    assert not changes.settings
    assert "Only a version above 1.0.0" in changes.advice()
    for refused in (load_locked, lock_suite):
        with pytest.raises(EvaluationError, match=r"1 added: d; 1 removed: b; 1 changed: a"):
            refused(tmp_path)
    for version in ("0.9.9", "1.0.0"):
        write(tmp_path, items, version=version)
        with pytest.raises(EvaluationError, match="not what its lock says"):
            lock_suite(tmp_path)
    assert (tmp_path / "suite.lock").read_bytes() == locked
    write(tmp_path, items, version="1.0.1")
    assert "`ztom suite lock` is missing" in lock_changes(tmp_path).advice()
    lock_suite(tmp_path)
    assert load_locked(tmp_path).config.version == "1.0.1"


def test_changed_settings_and_order_need_a_higher_version(tmp_path: Path) -> None:
    lock_suite(write(tmp_path))
    assert list(lock_changes(write(tmp_path, floor=0.5)).lines()) == ["settings changed"]
    reordered = lock_changes(write(tmp_path, [ITEMS[1], ITEMS[0], ITEMS[2]]))
    assert list(reordered.lines()) == ["items in another order"]
    for folder in (write(tmp_path, floor=0.5), write(tmp_path, [*reversed(ITEMS)])):
        with pytest.raises(EvaluationError):
            lock_suite(folder)


def test_versions_are_numbers_not_words(tmp_path: Path) -> None:
    lock_suite(write(tmp_path, version="1.9.0"))
    write(tmp_path, version="1.10.0", floor=0.1)
    assert lock_suite(tmp_path).version == "1.10.0"
    write(tmp_path, version="1.9.9")
    with pytest.raises(EvaluationError):
        lock_suite(tmp_path)
    write(tmp_path, version=f"{'9' * 5000}.0.0")
    assert lock_changes(tmp_path).raised


def test_a_lower_version_alone_is_no_lock(tmp_path: Path) -> None:
    lock_suite(write(tmp_path))
    with pytest.raises(EvaluationError, match="Only the version changed, and 0.1.0 is no higher"):
        lock_suite(write(tmp_path, version="0.1.0"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace('"version": "1.0.0"', '"version": "1.0.1"'), "hold together"),
        (lambda text: text.replace('"a":', '"z":'), "hold together"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "not a suite's lock"),
        (lambda text: "<<<<<<< ours\n" + text, "not JSON"),
        (lambda text: text[:100], "not JSON"),
        (lambda _: "[]", "not a suite's lock"),
        (lambda _: "", "the file is empty"),
    ],
)
def test_a_lock_that_was_edited_is_refused(
    tmp_path: Path, edit: Callable[[str], str], message: str
) -> None:
    lock_suite(write(tmp_path))
    file = tmp_path / "suite.lock"
    file.write_text(edit(file.read_text()))
    for reader in (load_locked, lock_changes, lock_suite):
        with pytest.raises(EvaluationError, match=message):
            reader(tmp_path)


def test_a_lock_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_suite(write(tmp_path))
    before = (tmp_path / "suite.lock").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    write(tmp_path, version="2.0.0")
    with pytest.raises(OSError, match="cannot be written"):
        lock_suite(tmp_path)
    assert (tmp_path / "suite.lock").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


# --- code ---------------------------------------------------------------------------------------

CODE = "def score(*lists):\n    return [1.0 for _ in lists[0]]\n"


def own(folder: Path, function: str = "check:score", **settings: Any) -> Path:
    return write(folder, metric="user", labels=None, function=function, **settings)


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("check:score", "check.py"),
        ("check:score", "check/__init__.py"),
        ("parts.check:score", "parts/check.py"),
    ],
)
def test_code_beside_the_suite_is_locked(tmp_path: Path, function: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(CODE)
    locked = lock_suite(own(tmp_path, function))
    assert locked.code == hashlib.sha256(CODE.encode()).hexdigest()
    assert load_locked(tmp_path).digest == locked.digest
    (tmp_path / file).write_text(CODE + "# another\n")
    assert load_suite(tmp_path).digest != locked.digest
    assert list(lock_changes(tmp_path).lines()) == ["the function's code changed"]
    for refused in (load_locked, lock_suite):
        with pytest.raises(EvaluationError, match="the function's code changed"):
            refused(tmp_path)
    own(tmp_path, function, version="2.0.0")
    assert lock_suite(tmp_path).code != locked.code
    load_locked(tmp_path)


def test_a_package_comes_before_a_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CODE)
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "__init__.py").write_text(CODE + "# package\n")
    before = load_suite(own(tmp_path)).code
    (tmp_path / "check.py").write_text("")
    assert load_suite(tmp_path).code == before
    assert before == hashlib.sha256((CODE + "# package\n").encode()).hexdigest()


def test_code_from_elsewhere_is_in_no_lock(tmp_path: Path) -> None:
    (tmp_path / "unrelated.py").write_text(CODE)
    locked = lock_suite(own(tmp_path))
    assert locked.code is None
    assert "code" not in (tmp_path / "suite.lock").read_text()
    (tmp_path / "check.py").write_text(CODE)
    with pytest.raises(EvaluationError, match="the function's code changed"):
        load_locked(tmp_path)


def test_suites_without_code_keep_their_digests(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CODE)
    suite = load_suite(write(tmp_path))
    assert suite.code is None
    items = {item.id: item_digest(item) for item in suite.items}
    whole = {
        "version": suite.config.version,
        "settings": settings_digest(suite.config),
        "items": list(items.items()),
    }
    assert suite.digest == hashlib.sha256(canonical(whole)).hexdigest()


def test_a_lock_whose_code_was_edited_is_refused(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CODE)
    locked = lock_suite(own(tmp_path))
    file = tmp_path / "suite.lock"
    file.write_text(file.read_text().replace(str(locked.code), "0" * 64))
    with pytest.raises(EvaluationError, match="hold together"):
        load_locked(tmp_path)


def test_code_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "check.py").write_text(CODE)
    own(tmp_path)
    read_bytes = Path.read_bytes

    def broken(self: Path) -> bytes:
        if self.name == "check.py":
            raise OSError(5, "Input/output error")
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(EvaluationError, match=r"check\.py cannot be read: Input/output error"):
        load_suite(tmp_path)


def test_long_lists_of_changes_are_cut(tmp_path: Path) -> None:
    many = [{**ITEMS[0], "id": f"n{i}"} for i in range(50)]
    old, new = load_suite(write(tmp_path / "a")), load_suite(write(tmp_path / "b", many))
    lines = list(compare(lock_of(old), lock_of(new)).lines())
    assert lines[0].startswith("50 added: n0, n1")
    assert lines[0].endswith("and 30 more")


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
    assert len(read(example_folder("probes").parent)) == 7


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
