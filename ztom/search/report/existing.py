"""The report's table of what exists already: checkpoints and their average beside the blend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from markupsafe import Markup

from ztom.pages.formats import number
from ztom.pages.svg import at, chart, tag
from ztom.search.existing import Standing
from ztom.search.result import SearchResult

_WORDS = {"checkpoint": "alone", "trained": "the trained model", "average": "of all checkpoints"}
STATES = {Standing.BETTER: "good", Standing.NOT_DISTINGUISHABLE: "open", Standing.WORSE: "bad"}


@dataclass(frozen=True)
class ExistingRow:
    """One model with its errors.

    Attributes:
        name: Name of the checkpoint, the average or the blend.
        what: What it is, in words.
        search: Error on the search set; None where it is not known.
        holdout: Error on the holdout; None where it is not known.
        reason: Reason why it could not be evaluated; None otherwise.
        is_blend: Whether it is what the search came to.
        is_best: Whether it is the best checkpoint on the search set.
        bar: The error as a bar, on the holdout, or without one on the search set.
    """

    name: str
    what: str
    search: float | None
    holdout: float | None
    reason: str | None
    is_blend: bool
    is_best: bool
    bar: Markup | None


def existing_rows(result: SearchResult) -> tuple[ExistingRow, ...]:
    """The models in the chain's order, the blend last; none in results that did not measure any."""
    if not result.existing:
        return ()
    rows = tuple(_rows(result))
    shown = [value for row in rows if (value := _shown(result, row)) is not None]
    longest = max((abs(value) for value in shown), default=0.0)
    return tuple(_with_bar(result, row, longest) for row in rows)


def _rows(result: SearchResult) -> Iterator[ExistingRow]:
    best, proof = result.best_existing, result.proof
    for model in result.existing:
        yield ExistingRow(
            name=", ".join((model.name, *model.also)),
            what=_WORDS[model.kind] + ("" if model.keeps_guardrails else ", breaks a guardrail"),
            search=model.search_error,
            holdout=model.holdout_error,
            reason=model.reason,
            is_blend=False,
            is_best=best is not None and (best.name, best.kind) == (model.name, model.kind),
            bar=None,
        )
    yield ExistingRow(
        name="blend",
        what="what the search came to",
        search=result.optimized_model_error,
        holdout=None if proof is None else proof.optimized_model_error,
        reason=None,
        is_blend=True,
        is_best=False,
        bar=None,
    )


def _shown(result: SearchResult, row: ExistingRow) -> float | None:
    return row.search if result.proof is None else row.holdout


def _with_bar(result: SearchResult, row: ExistingRow, longest: float) -> ExistingRow:
    value = _shown(result, row)
    if value is None or value < 0 or not longest:
        return row
    track = tag("rect", x=0, y="25%", width="100%", height="50%", rx=2, class_="track")
    filled = tag(
        "rect",
        x=0,
        y="25%",
        width=at(value / longest),
        height="50%",
        rx=2,
        class_="plus" if row.is_blend else "known",
    )
    return replace(row, bar=chart(number(value), track, filled, class_="bar"))
