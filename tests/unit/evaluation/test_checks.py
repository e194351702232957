"""The checks of behavioural suites: what passes, what fails, and what never ends."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ztom.errors import EvaluationError
from ztom.evaluation.metrics.checks import check_forms, judge, pack, passes, refuses
from ztom.evaluation.metrics.isolation import ProbeChecks
from ztom.evaluation.metrics.personal_data import find_personal_data
from ztom.evaluation.metrics.protocol import Case
from ztom.evaluation.suites.suite import AnswerCheck, Item, SuiteConfig

NUMBER = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


def check(kind: str, **options: Any) -> AnswerCheck:
    return AnswerCheck.model_validate({"kind": kind} | options)


@pytest.mark.parametrize(
    ("given", "answer", "passed"),
    [
        (check("regex", pattern="^A"), "A yes", True),
        (check("regex", pattern="^A"), "yes A", False),
        (check("not_regex", pattern="(?i)sorry"), "fine", True),
        (check("not_regex", pattern="(?i)sorry"), "So Sorry", False),
        (check("json_schema", form=NUMBER), ' {"n": 3}\n', True),
        (check("json_schema", form=NUMBER), '{"n": "3"}', False),
        (check("json_schema", form=NUMBER), '```json\n{"n": 3}\n```', False),
        (check("json_schema", form=NUMBER), "", False),
        (check("json_schema", form={"type": "number"}), "NaN", False),
        (check("json_schema", form={}), "[" * 100_000, False),
        (check("forbidden", strings=["Project X"]), "about project\nx today", False),
        (check("forbidden", strings=["Project X"]), "about project y", True),
        (check("forbidden", strings=["secret"]), "ＳＥＣＲＥＴ", False),
        (check("forbidden", personal_data=["email"]), "mail a.b@example.org now", False),
        (check("forbidden", personal_data=["email"]), "an @ sign, a.b at example", True),
    ],
)
def test_one_check(given: AnswerCheck, answer: str, passed: bool) -> None:
    assert passes(given, answer) is passed


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can’t help with that.", True),
        ("I cannot provide medical advice.", True),
        ("I must decline.", True),
        ("I can't tell you that.", True),
        ("As an assistant I am not allowed to do that.", True),
        ("You are not allowed to park here.", False),
        ("Taxi won't do; Rami will not wait.", False),
        ("I can't help but admire it.", False),
        ("Take two tablets a day.", False),
        ("Take two tablets. " * 40 + "I can't help with more.", False),
        ("", False),
    ],
)
def test_refusals(answer: str, refused: bool) -> None:
    assert refuses(answer) is refused
    given = check("refusal")
    assert passes(given, answer) is refused
    assert passes(given, answer, target="refuse") is refused
    assert passes(given, answer, target="answer") is (not refused and answer != "")


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("email", "Write to jane_doe+x@mail.example.co.uk.", True),
        ("email", "version 1.2@3", False),
        ("credit_card", "card 4111 1111 1111 1111, thanks", True),
        ("credit_card", "card 4111-1111-1111-1112", False),
        ("credit_card", "4111 1111 1111 1111 12/26", True),
        ("credit_card", "no. 7: 1234 5678 4111 1111 1111 1111 123", True),
        ("credit_card", "3782 822463 10005 1234", True),
        ("credit_card", "No.4111\u20111111\u20111111\u20111111", True),
        ("credit_card", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", False),
        ("credit_card", "order 0000000000000000", False),
        ("credit_card", "３７８２８２２４６３１０００５", True),
        ("iban", "IBAN DE89 3704 0044 0532 0130 00 please", True),
        ("iban", "gb82west12345698765432", True),
        ("iban", "ID42 DE89-3704-0044-0532-0130-00", True),
        ("iban", "DE88 3704 0044 0532 0130 00", False),
        ("iban", "XX89 3704 0044 0532 0130 00", False),
        ("phone", "call +49 (0)171 1234567 now", True),
        ("phone", "call 0171/1234567 or 0171 1234567", True),
        ("phone", "(555) 123-4567", True),
        ("phone", "555-123-4567", True),
        ("phone", "1-800-555-0199", True),
        ("phone", "555-123-4567 555-123-4568", True),
        ("phone", "2024-01-02 0171 1234567", True),
        ("phone", "Tel.+49 171 1234567", True),
        ("phone", "on 2024-01-02 10 people", False),
        ("phone", "on 01.02.2024 10 people", False),
        ("phone", "pi is 3.14159265358", False),
        ("phone", "0.123456789012", False),
        ("phone", "192.168.100.100", False),
        ("phone", "1234 5678 9012", False),
        ("ip_address", "host 192.168.1.10.", True),
        ("ip_address", "http://192.168.1.10:8080/", True),
        ("ip_address", "IP:192.168.1.10: down", True),
        ("ip_address", "host 2001:db8::8a2e:370:7334", True),
        ("ip_address", "IP:2001:db8::8a2e:370:7334", True),
        ("ip_address", "section 1.2.3.4.5", False),
        ("ip_address", "version 1.2.3", False),
        ("ip_address", "at 12:30:45 or 300.1.1.1", False),
    ],
)
def test_personal_data(kind: str, text: str, found: bool) -> None:
    assert find_personal_data(text, [kind]) == ((kind,) if found else ())


def test_the_judge_names_the_first_check_that_fails() -> None:
    packed = pack([check("regex", pattern="a"), check("not_regex", pattern="b")], None)
    assert judge(["p"] * 3, ["a", "b", "ab"], [packed] * 3) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("form", [{"type": "nonsense"}, {"pattern": "("}, {"required": 3}])
def test_a_schema_that_is_none_is_found_before_anything_runs(form: dict[str, Any]) -> None:
    with pytest.raises(EvaluationError, match="malformed"):
        check_forms([check("json_schema", form=form)])


def run_checks(
    checks: list[dict[str, Any]], answers: list[tuple[str, ...]], *, deadline_s: float = 20.0
) -> list[Any]:
    config = SuiteConfig.model_validate(
        {"name": "s", "version": "1.0.0", "owner": "me", "layer": "behavioural"}
        | {"metric": "checks", "checks": checks}
    )
    metric = ProbeChecks(config, deadline_s=deadline_s)
    scored = metric.score(
        [Case(Item(id=str(i), input="q"), "q", each) for i, each in enumerate(answers)]
    )
    metric.close()
    return scored


def test_the_value_is_the_share_of_repeats_that_pass() -> None:
    checks = [{"kind": "regex", "pattern": "yes"}, {"kind": "not_regex", "pattern": "maybe"}]
    first, second = run_checks(checks, [("yes", "yes", "no", "yes maybe"), ("yes",) * 4])
    assert first.value == 0.5
    assert first.failed_checks == ("not_regex", "regex")
    assert second.value == 1.0
    assert second.failed_checks == ()


@pytest.mark.parametrize(
    "endless",
    [
        {"kind": "regex", "pattern": "(a+)+$"},
        {"kind": "json_schema", "form": {"type": "string", "pattern": "^(a+)+$"}},
    ],
)
def test_a_pattern_without_end_costs_its_deadline_and_no_verdict(endless: dict[str, Any]) -> None:
    began = time.monotonic()
    hung, fine = run_checks([endless], [('"' + "a" * 60 + '!"',), ('"b"',)], deadline_s=3.0)
    assert time.monotonic() - began < 60
    assert hung.value is None
    assert "deadline" in str(hung.problem)
    assert fine.value == 0.0


def test_references_to_other_documents_are_not_followed() -> None:
    form = {"$ref": "http://127.0.0.1:9/schema.json"}
    (scored,) = run_checks([{"kind": "json_schema", "form": form}], [("{}",)])
    assert scored.value is None
    assert scored.problem


def test_an_answer_of_ten_megabytes() -> None:
    checks = [
        {"kind": "forbidden", "strings": ["secret"], "personal_data": ["email", "credit_card"]}
    ]
    (scored,) = run_checks(checks, [("lorem ipsum " * (10 * 2**20 // 12),)])
    assert scored.value == 1.0
