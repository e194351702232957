"""Verdicts of the gate on results that tests make up."""

from gate_helpers import make_run

from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Finding, GateRule, SuiteVerdict, Verdict


def judge(suite, candidate, champion=None, **options) -> Verdict:
    """The verdict on one suite, given values."""
    ours = [make_run(suite, candidate)]
    theirs = None if champion is None else [make_run(suite, champion, "champion")]
    return decide(ours, theirs, [suite], **options)


def only(verdict: Verdict) -> SuiteVerdict:
    (suite,) = verdict.suites
    return suite


def finding(verdict: Verdict, rule: GateRule) -> Finding:
    (found,) = [each for each in only(verdict).findings if each.rule is rule]
    return found
