"""The charts of a verdict's page as inline SVG."""

from __future__ import annotations

from markupsafe import Markup

from ztom.evaluation.gate.verdict import ProbeRate, SuiteVerdict
from ztom.pages.axes import interval_chart, ticks_below
from ztom.pages.formats import number, percent, setting, signed
from ztom.pages.svg import Scale, at, chart, line, tag, text
from ztom.statistics.proportions import Estimate

_SHARES = Scale(0.0, 1.0)


def models_chart(suite: SuiteVerdict) -> Markup | None:
    """Base, champion and candidate as bars with their bounds, the floor and the margin as lines.

    None where the candidate has no estimate.
    """
    if suite.candidate is None:
        return None
    rows = {"base": suite.base, "champion": suite.champion, "candidate": suite.candidate}
    shown = {who: estimate for who, estimate in rows.items() if estimate is not None}
    parts = [*ticks_below(_SHARES, 5)]
    for position, (who, estimate) in enumerate(shown.items()):
        parts += _bar(who, estimate, (position + 0.5) / len(shown), 0.6 / len(shown))
    parts += _lines(suite)
    title = "; ".join(f"{who} {_estimate_text(estimate)}" for who, estimate in shown.items())
    title = f"{suite.suite.metric} on {suite.suite.name}: {title}{_limits(suite)}"
    return chart(title, *parts, class_=f"plot models rows{len(shown)}")


def difference_chart(suite: SuiteVerdict) -> Markup | None:
    """Candidate minus champion with its bounds, beside zero and the margin."""
    if suite.difference is None:
        return None
    value, low, high = suite.difference.value, suite.difference.low, suite.difference.high
    size = high - low
    title = (
        f"Candidate minus champion on {suite.suite.name}: {signed(value, resolve=size)}, "
        f"bounds {signed(low, resolve=size)} and {signed(high, resolve=size)}, "
        f"margin {signed(-suite.margin)}"
    )
    return interval_chart(value, low, high, title=title, limit=-suite.margin, limit_name="margin")


def rate_bar(rate: ProbeRate) -> Markup:
    """How often a probe passed, with exact bounds; a mark where the champion is."""
    estimate = rate.rate
    parts = [
        tag("rect", x=0, y="25%", width="100%", height="50%", rx=2, class_="track"),
        tag("rect", x=0, y="25%", width=at(estimate.value), height="50%", rx=2, class_="candidate"),
        line(at(estimate.low), "50%", at(estimate.high), "50%", class_="bound"),
    ]
    if rate.champion is not None:
        parts.append(line(at(rate.champion), "5%", at(rate.champion), "95%", class_="was"))
    title = (
        f"{percent(estimate.value)}, bounds {percent(estimate.low)} and {percent(estimate.high)}"
    )
    return chart(title, *parts, class_="bar")


def _bar(who: str, estimate: Estimate, middle: float, height: float) -> list[Markup]:
    top, y = at(middle - height / 2), at(middle)
    low, high = _SHARES.along(estimate.low), _SHARES.along(estimate.high)
    shown = number(estimate.value, resolve=estimate.high - estimate.low, digits=3)
    return [
        tag("rect", x=0, y=top, width=at(estimate.value), height=at(height), rx=2, class_=who),
        line(low, y, high, y, class_="bound"),
        *(line(x, at(middle - 0.1), x, at(middle + 0.1), class_="bound") for x in (low, high)),
        text(0, y, who, dx=-10, dy=4, text_anchor="end"),
        text(high, y, shown, dx=9, dy=4, class_="strong"),
    ]


def _lines(suite: SuiteVerdict) -> list[Markup]:
    parts = []
    if suite.floor > 0:
        x = _SHARES.along(suite.floor)
        caption = f"floor {setting(suite.floor)}"
        parts += [line(x, 0, x, "100%", class_="limit"), _label(x, caption, y=0, dy=-6)]
    least = _least(suite)
    if least is not None:
        x = _SHARES.along(least)
        caption = f"champion − margin {setting(suite.margin)}"
        parts += [line(x, 0, x, "100%", class_="margin"), _label(x, caption, y="100%", dy=34)]
    return parts


def _label(x: str, caption: str, *, y: str | float, dy: float) -> Markup:
    return text(x, y, caption, dy=dy, text_anchor="middle", class_="small")


def _least(suite: SuiteVerdict) -> float | None:
    """Where the margin ends, as far as it is in the chart."""
    if suite.champion is None:
        return None
    return max(0.0, suite.champion.value - suite.margin)


def _limits(suite: SuiteVerdict) -> str:
    least = _least(suite)
    floor = f"; floor {setting(suite.floor)}" if suite.floor > 0 else ""
    return floor + ("" if least is None else f"; champion minus margin {number(least)}")


def _estimate_text(estimate: Estimate) -> str:
    size = estimate.high - estimate.low
    value, low, high = (
        number(bound, resolve=size) for bound in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value}, bounds {low} and {high}"
