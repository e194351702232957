"""A verdict in every form: what has to be in it, and that no text in it is anything but text."""

from __future__ import annotations

import re
from pathlib import PurePath
from xml.etree import ElementTree

import pytest
from gate_helpers import make_run, make_suite, right
from html_page import Page

from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome, SliceResult, Verdict
from ztom.evaluation.render.annotations import SuiteFiles, render_annotations
from ztom.evaluation.render.junit import render_junit
from ztom.evaluation.render.markdown import code, render_markdown
from ztom.evaluation.render.page import render_page
from ztom.evaluation.render.texts import ItemTexts, item_texts
from ztom.evaluation.runs.results import ModelRef, SuiteRun
from ztom.evaluation.suites.suite import Suite

HOSTILE = (
    "</script></pre><img src=x onerror=alert(1)><script>alert(2)</script>",
    "a | b | c",
    "first\n::error file=x::second\r\n# heading\n- [x](http://evil.example) @octocat",
    "::error::x, y: z % %0A",
    "##[error]x",
    "`one` ``two`` ```three",
    "\x1b[31mred\x1b[0m \x00 \ufffe \u202egnp.exe \ud800",
    "]]> <!-- &amp; ' \"",
)


def with_answers(run: SuiteRun) -> SuiteRun:
    items = tuple(
        item.model_copy(update={"answers": (f"{run.model.name} on {item.id}",)})
        for item in run.items
    )
    return run.model_copy(update={"items": items})


@pytest.fixture(scope="module")
def suites() -> list[Suite]:
    slices = [("mail", "chat")[i % 2] for i in range(120)]
    return [
        make_suite(120, layer="task", name="refunds", floor=0.5, margin=0.05, slices=slices),
        make_suite(80, name="stays", must_pass=(0, 1)),
        make_suite(3, layer="behavioural", name="manners", repeats=9, minimum_n=1),
    ]


def sides(suites: list[Suite]) -> tuple[list[SuiteRun], list[SuiteRun], list[SuiteRun]]:
    """A candidate that is better on the task, breaks the rest, and what it is compared with."""
    values = {
        "candidate": (right(120, wrong=range(20)), right(80, wrong=range(30)), [1.0, 0.0, 8 / 9]),
        "champion": (right(120, wrong=range(10, 40)), right(80), [1.0, 1.0, 1.0]),
        "base": (right(120, wrong=range(90)), right(80, wrong=range(40)), [0.0, 0.0, 0.0]),
    }
    runs = {
        who: [with_answers(make_run(s, v, who)) for s, v in zip(suites, each, strict=True)]
        for who, each in values.items()
    }
    return runs["candidate"], runs["champion"], runs["base"]


@pytest.fixture(scope="module")
def verdict(suites: list[Suite]) -> Verdict:
    candidate, champion, base = sides(suites)
    return decide(candidate, champion, suites, base=base)


@pytest.fixture(scope="module")
def passed() -> Verdict:
    suite = make_suite(60)
    return decide([make_run(suite, right(60))], [make_run(suite, right(60), "champion")], [suite])


def hostile(verdict: Verdict, text: str) -> Verdict:
    """The verdict with a text wherever one from outside can be."""
    model = ModelRef(name=text, digest="0" * 64)
    suites = tuple(
        each.model_copy(
            update={
                "findings": tuple(f.model_copy(update={"reason": text}) for f in each.findings),
                "flipped": tuple(f.model_copy(update={"id": text}) for f in each.flipped[:3]),
                "rates": tuple(r.model_copy(update={"id": text}) for r in each.rates),
                "must_pass_failures": (text,),
                "slices": (SliceResult(name=text, n=1, candidate=1.0),),
            }
        )
        for each in verdict.suites
    )
    return verdict.model_copy(
        update={
            "suites": suites,
            "reasons": (text, text),
            "candidate": model,
            "champion": model,
            "base": model,
            "versions": {text: text},
            "created": text,
        }
    )


# JUnit


def test_junit_has_a_suite_for_each_and_a_case_for_each_rule(verdict: Verdict) -> None:
    root = ElementTree.fromstring(render_junit(verdict).encode())
    assert [suite.get("name") for suite in root] == ["manners", "refunds", "stays"]
    for told, judged in zip(root, verdict.suites, strict=True):
        assert [case.get("name") for case in told] == [f.rule for f in judged.findings]
        for case, finding in zip(told, judged.findings, strict=True):
            failure, error = case.find("failure"), case.find("error")
            assert (failure is not None) == (finding.outcome is Outcome.FAIL)
            assert (error is not None) == (finding.outcome is Outcome.INCONCLUSIVE)
            if failure is not None:
                assert failure.get("message") == finding.reason
        failed = sum(finding.outcome is Outcome.FAIL for finding in judged.findings)
        assert (told.get("failures"), told.get("tests")) == (str(failed), str(len(told)))
    assert int(root.get("failures", "")) > 0


def test_junit_is_green_for_a_pass_only(verdict: Verdict, passed: Verdict) -> None:
    def bad(text: str) -> int:
        root = ElementTree.fromstring(text.encode())
        return sum(1 for _ in root.iter("failure")) + sum(1 for _ in root.iter("error"))

    assert bad(render_junit(passed)) == 0
    silent = tuple(suite.model_copy(update={"findings": ()}) for suite in passed.suites)
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        told = passed.model_copy(update={"suites": silent, "outcome": outcome})
        assert bad(render_junit(told)) == 1
        assert bad(render_junit(told.model_copy(update={"suites": ()}))) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_junit_stays_well_formed(verdict: Verdict, text: str) -> None:
    raw = render_junit(hostile(verdict, text)).encode("utf-8")
    assert not re.search(rb"[\x00-\x08\x0b-\x1f]", raw)
    root = ElementTree.fromstring(raw)
    assert {each.tag for each in root.iter()} <= {
        *("testsuites", "testsuite", "testcase", "failure", "error", "system-out")
    }


# Markdown


def test_markdown_says_what_was_decided(verdict: Verdict) -> None:
    text = render_markdown(verdict)
    assert text.startswith("# Gate: fail\n")
    for reason in verdict.reasons:
        assert f"- {code(reason)}" in text
    assert "| stays | **fail** | 80 |" in text
    assert "- slice `mail`: 60 items, candidate 0.833, champion 0.750" in text
    assert "- worse than the champion, 30: `i0000`, `i0001`" in text
    assert "and 10 more" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {9}


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_outside_is_outside_of_code_spans(verdict: Verdict, text: str) -> None:
    usual, strange = (render_markdown(hostile(verdict, each)) for each in ("usual", text))
    assert len(strange.splitlines()) == len(usual.splitlines())
    outside = [re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", each) for each in (usual, strange)]
    assert outside[0] == outside[1]
    assert "\x1b" not in strange
    assert all("`" not in line for line in strange.splitlines() if line.startswith("|"))


def test_a_code_span_holds_any_text() -> None:
    assert code("a") == "`a`"
    assert code("`a` ``b``") == "``` `a` ``b`` ```"
    assert code("") == "`  `"
    assert len(code("x" * 100_000)) < 1_100


# Annotations


def test_annotations_mark_lines_of_the_suites(verdict: Verdict, suites: list[Suite]) -> None:
    files = {s.config.name: SuiteFiles.of(s, PurePath("suites", s.config.name)) for s in suites}
    lines = render_annotations(verdict, files).splitlines()
    assert lines[0].startswith("::error file=suites/manners/suite.yaml,line=1,title=manners%3A ")
    right_one = "::error file=suites/stays/items.jsonl,line=1,title=stays%3A i0000::has to be right"
    assert any(line.startswith(right_one) for line in lines)
    assert any("line=2,title=manners%3A i0001::passed in 0 of 9" in line for line in lines)
    assert sum("stays/items.jsonl" in line for line in lines) == 10
    assert len(render_annotations(verdict).splitlines()) == len(lines)
    assert "file=" not in render_annotations(verdict)


def test_a_pass_has_no_annotations(passed: Verdict) -> None:
    assert render_annotations(passed) == ""
    open_one = passed.model_copy(update={"outcome": Outcome.INCONCLUSIVE, "suites": ()})
    assert render_annotations(open_one).startswith("::warning title=gate::passed")


@pytest.mark.parametrize("text", HOSTILE)
def test_an_annotation_is_one_command(verdict: Verdict, text: str) -> None:
    usual, strange = (render_annotations(hostile(verdict, each)) for each in ("usual", text))
    assert len(strange.splitlines()) == len(usual.splitlines())
    for line in strange.splitlines():
        properties, _, message = line.removeprefix("::").partition("::")
        assert re.fullmatch(r"(error|warning) title=[^:,]*", properties)
        assert re.fullmatch(r"([^%]|%25|%0A|%0D)*", message)
        assert line.isprintable()


# The page


def page_of(text: str) -> Page:
    page = Page(text)
    page.check()
    assert {"verdict", "suites", "suite-1", "provenance"} <= set(page.ids)
    return page


def test_the_page_shows_bars_lines_slices_and_texts(verdict: Verdict, suites: list[Suite]) -> None:
    candidate, champion, _ = sides(suites)
    text = render_page(verdict, item_texts(verdict, suites, candidate, champion))
    page = page_of(text)
    assert "://" not in text
    assert "Fail At least one rule is broken" in page.text
    for reason in verdict.reasons:
        assert reason in page.text
    models = [c["aria-label"] or "" for c in page.charts if "models" in (c["class"] or "")]
    assert len(models) == 2
    assert re.match(
        r"exact_match on refunds: base 0\.2500, bounds .* and .*; champion 0\.7500.*; "
        r"candidate 0\.8333.*; floor 0\.5; champion minus margin 0\.7000",
        models[0],
    )
    assert "floor 0.5" in page.text
    assert "champion − margin 0.05" in page.text
    assert "mail 60 0.833 0.750" in page.text
    assert page.text.count("candidate on i0009") == 2  # worse on both suites
    assert page.text.count("candidate on i0029") == 1  # better; worse, but not of the first 20
    for shown in ("champion on i0000", "candidate on i0000", "The item has no target."):
        assert shown in page.text
    assert "10 more are in verdict.json." in page.text
    for digest in (verdict.candidate.digest, *(s.suite.digest for s in verdict.suites)):
        assert digest in page.text


def test_the_page_of_the_same_verdict_is_the_same(verdict: Verdict) -> None:
    again = Verdict.from_bytes(verdict.to_bytes())
    assert render_page(again) == render_page(verdict)
    assert "The texts are in the suite and in the results." in page_of(render_page(again)).text


def test_what_was_not_measured_is_left_out() -> None:
    suite = make_suite(40, layer="task", floor=0.5)
    alone = decide([make_run(suite, right(40))], None, [suite], first=True)
    page = page_of(render_page(alone))
    assert "there is no champion yet" in page.text
    assert "Pass Every suite passed" in page.text
    unscored = decide([make_run(suite, [None] * 40)], None, [suite])
    page = page_of(render_page(unscored))
    assert not page.charts
    assert "Inconclusive Nothing is shown to be broken" in page.text


@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_takes_any_text_as_text(verdict: Verdict, text: str) -> None:
    strange = hostile(verdict, text)
    shown = {
        (suite.suite.name, text): ItemTexts(text, text, text, text, text)
        for suite in strange.suites
    }
    usual = page_of(render_page(hostile(verdict, "usual"), {}))
    for texts in ({}, shown):
        raw = render_page(strange, texts)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", raw)
        page = page_of(raw)
        if not texts:
            assert page.names == usual.names


def test_long_texts_are_cut_with_a_note(verdict: Verdict) -> None:
    long = "word " * 100_000
    texts = {("stays", "i0000"): ItemTexts(long, long, long, long, None)}
    raw = render_page(verdict, texts)
    assert "cut: the first 2,000 of 500,000 characters are shown" in raw
    assert len(raw) < 300_000


def test_several_answers_of_a_probe_are_told_apart(suites: list[Suite]) -> None:
    candidate, champion, _ = sides(suites)
    manners = candidate[2].model_copy(
        update={
            "items": tuple(
                i.model_copy(update={"answers": tuple("abcdefghi")}) for i in candidate[2].items
            )
        }
    )
    runs = [*candidate[:2], manners]
    texts = item_texts(decide(runs, champion, suites), suites, runs, champion)
    assert texts["manners", "i0001"].candidate == "(1) a\n(2) b\n(3) c\n(and 6 more)"
