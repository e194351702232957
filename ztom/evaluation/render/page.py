"""``verdict.html``: a verdict as one file that explains itself, without scripts or requests.

The texts of items are not part of a verdict: whoever has the suites and results hands them over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from ztom.evaluation.gate.verdict import Outcome, ProbeRate, SuiteVerdict, Verdict
from ztom.evaluation.render.charts import difference_chart, models_chart, rate_bar
from ztom.evaluation.render.texts import MOST_SHOWN, ItemTexts, Texts, flips
from ztom.pages.formats import setting
from ztom.pages.page import page_template

_STATES = {Outcome.PASS: "good", Outcome.FAIL: "bad", Outcome.INCONCLUSIVE: "open"}
_WORDS = {
    Outcome.PASS: ("Pass", "Every suite passed: the candidate may ship."),
    Outcome.FAIL: ("Fail", "At least one rule is broken: the candidate does not ship."),
    Outcome.INCONCLUSIVE: (
        "Inconclusive",
        "Nothing is shown to be broken, and not everything is shown to be right: "
        "the candidate does not ship until it is.",
    ),
}


@dataclass(frozen=True)
class ShownItem:
    """An item as the page shows it.

    Attributes:
        id: Id of the item.
        change: Change in figures; empty where none belong to it.
        texts: Texts of the item; None where nobody handed them over.
    """

    id: str
    change: str
    texts: ItemTexts | None


@dataclass(frozen=True)
class ItemGroup:
    """Items with something in common.

    Attributes:
        title: What it is.
        state: State that sets the colour.
        items: The first ones.
        left_out: Number of further items that are not shown.
    """

    title: str
    state: str
    items: tuple[ShownItem, ...]
    left_out: int


@dataclass(frozen=True)
class SuiteSection:
    """A suite as the page shows it."""

    verdict: SuiteVerdict
    state: str
    models: Markup | None
    difference: Markup | None
    bound: str
    rates: tuple[tuple[ProbeRate, Markup], ...]
    groups: tuple[ItemGroup, ...]


def render_page(verdict: Verdict, texts: Texts | None = None) -> str:
    """The page as the text of one HTML file; the same verdict gives the same text.

    Args:
        verdict: What was decided.
        texts: Texts of items (`ztom.evaluation.render.texts.item_texts`).
    """
    word, sentence = _WORDS[verdict.outcome]
    return _template().render(
        verdict=verdict,
        state=_STATES[verdict.outcome],
        word=word,
        sentence=sentence,
        sections=[_section(suite, texts or {}) for suite in verdict.suites],
        states=_STATES,
        most_slices=200,
    )


def _section(suite: SuiteVerdict, texts: Texts) -> SuiteSection:
    return SuiteSection(
        verdict=suite,
        state=_STATES[suite.outcome],
        models=models_chart(suite),
        difference=difference_chart(suite),
        bound=f"{setting(100 * (1 - suite.alpha))} %",
        rates=tuple((rate, rate_bar(rate)) for rate in _by_outcome(suite.rates)),
        groups=tuple(group for group in _groups(suite, texts) if group.items),
    )


def _by_outcome(rates: Sequence[ProbeRate]) -> list[ProbeRate]:
    return sorted(rates, key=lambda rate: rate.rate.value)


def _groups(suite: SuiteVerdict, texts: Texts) -> list[ItemGroup]:
    low = [rate for rate in _by_outcome(suite.rates) if rate.outcome is not Outcome.PASS]
    failures = [(item, "") for item in suite.must_pass_failures]
    probes = [(rate.id, f"{rate.passed} of {rate.repeats}") for rate in low]
    worse, better = (
        [(f.id, f"{setting(f.champion)} → {setting(f.candidate)}") for f in flips(suite, direction)]
        for direction in ("worse", "better")
    )

    def group(title: str, state: str, items: list[tuple[str, str]]) -> ItemGroup:
        name = suite.suite.name
        shown = [ShownItem(id_, change, texts.get((name, id_))) for id_, change in items]
        return ItemGroup(title, state, tuple(shown[:MOST_SHOWN]), max(0, len(shown) - MOST_SHOWN))

    return [
        group("Have to be right, and are not", "bad", failures),
        group("Probes that passed too rarely", "bad", probes),
        group("Worse than the champion", "bad", worse),
        group("Better than the champion", "good", better),
    ]


@cache
def _template() -> jinja2.Template:
    return page_template(Path(__file__).with_name("verdict.html.jinja"))
