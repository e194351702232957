"""A verdict as JUnit XML: a testsuite per suite, a testcase per rule.

JUnit knows no third outcome. What is inconclusive is an ``error`` there, because what is skipped
counts as fine in most tools, and nothing but a pass is fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from ztom.evaluation.gate.verdict import Finding, Outcome, SuiteVerdict, Verdict
from ztom.pages.formats import visible

_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
_ELEMENTS = {Outcome.FAIL: "failure", Outcome.INCONCLUSIVE: "error"}


def render_junit(verdict: Verdict) -> str:
    """The XML document. Characters that XML does not allow are written out."""
    suites = [
        _testsuite(suite.suite.name, [_case(suite, finding) for finding in suite.findings])
        for suite in verdict.suites
    ]
    if verdict.outcome is not Outcome.PASS and not any(map(_bad, suites)):
        suites.append(_testsuite("gate", [_overall(verdict)]))  # never green without a pass
    root = ElementTree.Element("testsuites", {"name": "ztom gate", **_counts(suites)})
    root.extend(suites)
    ElementTree.indent(root)
    return f"{_DECLARATION}\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _testsuite(name: str, cases: Sequence[ElementTree.Element]) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=name)
    suite.extend(cases)
    suite.attrib |= _counts([suite])
    return suite


def _case(suite: SuiteVerdict, finding: Finding) -> ElementTree.Element:
    case = _testcase(suite.suite.name, finding.rule, finding.outcome, finding.reason)
    if finding.outcome is Outcome.PASS:
        ElementTree.SubElement(case, "system-out").text = visible(finding.reason)
    return case


def _overall(verdict: Verdict) -> ElementTree.Element:
    return _testcase("all", "outcome", verdict.outcome, "; ".join(verdict.reasons))


def _testcase(suite: str, name: str, outcome: Outcome, reason: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=f"gate.{suite}", name=name)
    if outcome is not Outcome.PASS:
        text = visible(reason)
        ElementTree.SubElement(case, _ELEMENTS[outcome], type=outcome, message=text).text = text
    return case


def _bad(suite: ElementTree.Element) -> bool:
    return (suite.get("failures"), suite.get("errors")) != ("0", "0")


def _counts(suites: Sequence[ElementTree.Element]) -> dict[str, str]:
    tags = {"tests": "testcase", "failures": "failure", "errors": "error"}
    return {
        name: str(sum(len(list(suite.iter(tag))) for suite in suites)) for name, tag in tags.items()
    }
