"""A verdict as GitHub's workflow commands, which mark lines of the suites' files.

GitHub shows ten errors and ten warnings of a step, so what decides comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from ztom.evaluation.gate.verdict import Outcome, SuiteVerdict, Verdict
from ztom.evaluation.render.commands import workflow_command
from ztom.evaluation.suites.read import ITEMS_FILE, SETTINGS_FILE
from ztom.evaluation.suites.suite import Suite

_LEVELS: dict[Outcome, Literal["error", "warning"]] = {
    Outcome.FAIL: "error",
    Outcome.INCONCLUSIVE: "warning",
}
_MOST_ITEMS = 10


@dataclass(frozen=True)
class SuiteFiles:
    """Where a suite lies, as seen from the root of the repository.

    Attributes:
        folder: Folder of the suite.
        lines: Number of each item's line, from 1, by id.
    """

    folder: PurePath
    lines: Mapping[str, int]

    @classmethod
    def of(cls, suite: Suite, folder: PurePath) -> SuiteFiles:
        """The files of a suite that was read: an item stands on each line."""
        return cls(folder, {item.id: line for line, item in enumerate(suite.items, start=1)})


def render_annotations(verdict: Verdict, files: Mapping[str, SuiteFiles] | None = None) -> str:
    """One command a line; empty for a pass.

    Args:
        verdict: What was decided.
        files: Files of each suite by name; without them the commands name no file.
    """
    known = files or {}
    order = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}
    suites = sorted(verdict.suites, key=lambda suite: order[suite.outcome])
    whole = [line for suite in suites for line in _findings(suite, known.get(suite.suite.name))]
    items = [line for suite in suites for line in _items(suite, known.get(suite.suite.name))]
    if verdict.outcome is not Outcome.PASS and not whole:
        whole = [_command(verdict.outcome, "gate", "; ".join(verdict.reasons))]
    return "".join(f"{line}\n" for line in whole + items)


def _findings(suite: SuiteVerdict, files: SuiteFiles | None) -> Iterator[str]:
    place = {"file": str(files.folder / SETTINGS_FILE), "line": "1"} if files else {}
    for finding in suite.findings:
        if finding.outcome is not Outcome.PASS:
            title = f"{suite.suite.name}: {finding.rule}"
            yield _command(finding.outcome, title, finding.reason, place)


def _items(suite: SuiteVerdict, files: SuiteFiles | None) -> Iterator[str]:
    for item, reason in list(_bad_items(suite).items())[:_MOST_ITEMS]:
        place = {"file": str(files.folder / ITEMS_FILE)} if files else {}
        if files and item in files.lines:
            place["line"] = str(files.lines[item])
        yield _command(Outcome.FAIL, f"{suite.suite.name}: {item}", reason, place)


def _bad_items(suite: SuiteVerdict) -> dict[str, str]:
    """What is wrong with which items of a suite that failed."""
    if suite.outcome is not Outcome.FAIL:
        return {}
    reasons = {
        flip.id: f"worse than the champion: {flip.champion:g} became {flip.candidate:g}"
        for flip in suite.flipped
        if flip.direction == "worse"
    }
    low = [rate for rate in suite.rates if rate.outcome is Outcome.FAIL]
    first = {rate.id: f"passed in {rate.passed} of {rate.repeats} repeats" for rate in low}
    first |= dict.fromkeys(suite.must_pass_failures, "has to be right, and is not")
    return {**first, **{item: reason for item, reason in reasons.items() if item not in first}}


def _command(
    outcome: Outcome, title: str, message: str, place: Mapping[str, str] | None = None
) -> str:
    level = _LEVELS[outcome]
    return workflow_command(level, message, {**(place or {}), "title": title})
