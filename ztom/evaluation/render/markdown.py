"""A verdict as Markdown, for the summary of a CI job or a comment.

Whatever comes from outside stands in code spans: nothing in them is markup, a link or a mention.
They are never in a table, where a vertical bar would end the cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ztom.evaluation.gate.verdict import Flip, Outcome, SuiteVerdict, Verdict
from ztom.evaluation.runs.results import ModelRef
from ztom.pages.formats import count, number, setting, signed, visible
from ztom.statistics.proportions import Estimate

_MOST_SHOWN = 20
_MOST_CHARACTERS = 1000


def render_markdown(verdict: Verdict) -> str:
    """The document."""
    return "\n".join(_lines(verdict)) + "\n"


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"# Gate: {verdict.outcome}"
    yield ""
    models = {"Champion": verdict.champion, "Base": verdict.base}
    yield f"- Candidate {_model(verdict.candidate)}"
    yield from (f"- {who} {_model(model)}" for who, model in models.items() if model)
    yield ""
    yield from (f"- {code(reason)}" for reason in verdict.reasons)
    yield ""
    yield "| suite | outcome | items | candidate | champion | difference | floor | margin |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    yield from map(_row, verdict.suites)
    for suite in verdict.suites:
        yield from _suite(suite)
    yield ""
    versions = ", ".join(f"{code(name)} {code(v)}" for name, v in sorted(verdict.versions.items()))
    yield f"Seed {verdict.seed}; {versions}"


def _row(suite: SuiteVerdict) -> str:
    cells = (
        suite.suite.name,
        f"**{suite.outcome}**",
        count(suite.n),
        _estimate(suite.candidate),
        _estimate(suite.champion),
        _estimate(suite.difference, sign=True),
        setting(suite.floor),
        setting(suite.margin),
    )
    return f"| {' | '.join(cells)} |"


def _suite(suite: SuiteVerdict) -> Iterator[str]:
    yield ""
    yield f"## {suite.suite.name} {suite.suite.version}: {suite.outcome}"
    yield ""
    for finding in suite.findings:
        yield f"- **{finding.outcome}**, {finding.rule}: {code(finding.reason)}"
    for part in suite.slices[:_MOST_SHOWN]:
        champion = "" if part.champion is None else f", champion {number(part.champion, digits=3)}"
        yield (
            f"- slice {code(part.name)}: {count(part.n)} items, "
            f"candidate {number(part.candidate, digits=3)}{champion}"
        )
    for rate in suite.rates:
        if rate.outcome is not Outcome.PASS:
            yield f"- probe {code(rate.id)}: {rate.passed} of {rate.repeats}, {rate.outcome}"
    for direction in ("worse", "better"):
        yield from _flips(direction, [f for f in suite.flipped if f.direction == direction])


def _flips(direction: str, flips: Sequence[Flip]) -> Iterator[str]:
    if flips:
        named = ", ".join(code(flip.id) for flip in flips[:_MOST_SHOWN])
        more = len(flips) - _MOST_SHOWN
        rest = f" and {count(more)} more" if more > 0 else ""
        yield f"- {direction} than the champion, {count(len(flips))}: {named}{rest}"


def _model(model: ModelRef) -> str:
    return f"{code(model.name)}, content {model.digest[:12]}"


def _estimate(estimate: Estimate | None, *, sign: bool = False) -> str:
    if estimate is None:
        return "–"
    size = estimate.high - estimate.low
    shown = signed if sign else number
    low, high = (number(value, resolve=size, digits=3) for value in (estimate.low, estimate.high))
    return f"{shown(estimate.value, resolve=size, digits=3)} ({low} to {high})"


def code(text: str) -> str:
    """A text as a code span, in one line and cut where it is long."""
    shown = visible(text[:_MOST_CHARACTERS]) + ("…" if len(text) > _MOST_CHARACTERS else "")
    runs = {len(run) for run in re.findall("`+", shown)}
    fence = "`" * next(n for n in range(1, len(shown) + 2) if n not in runs)
    pad = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) or not shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
