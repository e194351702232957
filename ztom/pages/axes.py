"""Parts of charts that know numbers: grids, ticks, an estimate with its interval."""

from __future__ import annotations

import math

from markupsafe import Markup

from ztom.pages.formats import count, number, signed
from ztom.pages.svg import Scale, chart, line, padded, tag, text


def interval_chart(
    estimate: float,
    low: float,
    high: float,
    *,
    title: str,
    limit: float | None = None,
    limit_name: str = "allowed",
) -> Markup:
    """An estimate with its interval beside zero, and beside a limit where there is one.

    Args:
        estimate: The value itself.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
        title: Estimate and interval in words, for a screen reader.
        limit: Value that the estimate is compared with.
        limit_name: Name of the limit.
    """
    edges = [0.0, low, high] + ([] if limit is None else [limit])
    # The numbers beside the interval's ends need room: the scale is much wider than the interval.
    scale = padded(edges, pad=0.32)
    left, middle, right = (scale.along(value) for value in (low, estimate, high))
    parts = [
        *ticks_below(scale, 4),
        line(scale.along(0), 0, scale.along(0), "100%", class_="zero"),
    ]
    if limit is not None:
        parts += [
            line(scale.along(limit), 0, scale.along(limit), "100%", class_="limit"),
            text(scale.along(limit), -5, limit_name, text_anchor="middle", class_="small"),
        ]
    shown = signed(estimate, resolve=high - low, digits=1)
    first, last = (number(value, resolve=high - low, digits=1) for value in (low, high))
    parts += [
        line(left, "60%", right, "60%", class_="whisker"),
        line(left, "48%", left, "72%", class_="whisker"),
        line(right, "48%", right, "72%", class_="whisker"),
        tag("circle", cx=middle, cy="60%", r=6, class_="estimate"),
        text(middle, "30%", shown, text_anchor="middle", class_="strong"),
        text(left, "60%", first, dx=-8, dy=4, text_anchor="end"),
        text(right, "60%", last, dx=8, dy=4),
    ]
    return chart(title, *parts, class_="plot interval")


def grid(scale: Scale, wanted: int = 5) -> list[Markup]:
    """Horizontal lines with their values on the left."""
    step = scale.ticks(wanted)
    resolve = step[1] - step[0] if len(step) > 1 else 0.0
    drawn = []
    for value in step:
        y = scale.up(value)
        drawn.append(line(0, y, "100%", y, class_="grid"))
        drawn.append(text(0, y, _tick(value, resolve), dx=-8, dy=4, text_anchor="end"))
    return drawn


def ticks_below(scale: Scale, wanted: int, *, whole: bool = False) -> list[Markup]:
    """Values under the chart."""
    step = [v for v in scale.ticks(wanted) if not whole or (v == round(v) and v >= 0)]
    resolve = step[1] - step[0] if len(step) > 1 else 0.0
    drawn = [line(0, "100%", "100%", "100%", class_="axis")]
    for value in step:
        x, shown = scale.along(value), count(round(value)) if whole else _tick(value, resolve)
        drawn.append(text(x, "100%", shown, dy=18, text_anchor="middle"))
    return drawn


def _tick(value: float, step: float) -> str:
    """A tick's value with as many decimals as the step between ticks needs."""
    if abs(value) < 1e-9 * step or value == 0:
        return "0"
    if step == 0 or not 1e-5 <= step < 1e7:
        return number(value)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")
