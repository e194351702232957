"""What was asked and answered on the items that a reader of the verdict wants to see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ztom.evaluation.gate.verdict import Flip, Outcome, SuiteVerdict, Verdict
from ztom.evaluation.runs.results import ItemResult, SuiteRun
from ztom.evaluation.suites.suite import Item, Suite
from ztom.evaluation.suites.templates import PromptTemplate
from ztom.stimuli.prompts import prompt_text

#: Items shown of each kind and suite.
MOST_SHOWN = 20
_MOST_REPEATS = 3


@dataclass(frozen=True)
class ItemTexts:
    """One item.

    Attributes:
        title: What the item itself says, without what is the same for every item.
        prompt: Prompt as the models were asked.
        target: Target of the item; None where it has none.
        candidate: Answer of the candidate; the first ones of several.
        champion: Answer of the champion; None without a champion.
    """

    title: str
    prompt: str
    target: str | None
    candidate: str | None
    champion: str | None


#: By suite's name and item's id.
Texts = dict[tuple[str, str], ItemTexts]


def flips(suite: SuiteVerdict, direction: str) -> list[Flip]:
    """Items that became worse, or better, the largest change first."""
    flips_there = [flip for flip in suite.flipped if flip.direction == direction]
    return sorted(flips_there, key=lambda flip: -abs(flip.candidate - flip.champion))


def shown_items(suite: SuiteVerdict) -> Iterator[str]:
    """Ids of the items whose texts a page shows, some of them twice."""
    for direction in ("worse", "better"):
        yield from (flip.id for flip in flips(suite, direction)[:MOST_SHOWN])
    yield from suite.must_pass_failures[:MOST_SHOWN]
    low = [rate.id for rate in suite.rates if rate.outcome is not Outcome.PASS]
    yield from low[:MOST_SHOWN]


def item_texts(
    verdict: Verdict,
    suites: Sequence[Suite],
    candidate: Sequence[SuiteRun],
    champion: Sequence[SuiteRun] | None,
) -> Texts:
    """The texts of every item that a page shows.

    Args:
        verdict: What was decided, on exactly these.
        suites: Suites with the prompts and targets.
        candidate: Results of the candidate with its answers.
        champion: Results of the champion with its answers; None without one.
    """
    by_name = {suite.config.name: suite for suite in suites}
    ours, theirs = _by_item(candidate), _by_item(champion or ())
    texts: Texts = {}
    for judged in verdict.suites:
        suite = by_name[judged.suite.name]
        template = PromptTemplate(suite.config.template)
        items = {item.id: item for item in suite.items}
        for item_id in shown_items(judged):
            key = (judged.suite.name, item_id)
            texts[key] = ItemTexts(
                title=_title(items[item_id]),
                prompt=prompt_text(template.render(items[item_id])),
                target=_target(items[item_id]),
                candidate=_answers(ours.get(key)),
                champion=_answers(theirs.get(key)),
            )
    return texts


def _by_item(runs: Sequence[SuiteRun]) -> dict[tuple[str, str], ItemResult]:
    return {(run.suite.name, result.id): result for run in runs for result in run.items}


def _title(item: Item) -> str:
    return item.input if isinstance(item.input, str) else item.input[-1].content


def _target(item: Item) -> str | None:
    if item.target is None or isinstance(item.target, str):
        return item.target
    return json.dumps(item.target, ensure_ascii=False, indent=1)


def _answers(result: ItemResult | None) -> str | None:
    if result is None or not result.answers:
        return None
    if len(result.answers) == 1:
        return result.answers[0]
    several = [f"({n}) {text}" for n, text in enumerate(result.answers[:_MOST_REPEATS], start=1)]
    more = len(result.answers) - _MOST_REPEATS
    return "\n".join([*several, *([f"(and {more} more)"] if more > 0 else [])])
