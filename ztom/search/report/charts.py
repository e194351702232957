"""The report's charts as inline SVG: every one takes plain values and gives markup.

Colours are classes of the report's style sheet, which knows light, dark and paper.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from ztom.pages import axes
from ztom.pages.axes import grid, ticks_below
from ztom.pages.formats import count, duration, factor, name, number, percent, setting, signed
from ztom.pages.svg import Scale, at, chart, line, mark, padded, path, stretched, tag, text
from ztom.search.result import SensitivityEntry, TrialEntry
from ztom.statistics.bootstrap import Interval

KINDS = ("baseline", "startup", "search", "confirm")
_SHAPE = {"baseline": "diamond", "confirm": "triangle"}
_CELLS = 200
_CROWD = 200
_BAND = 2.0


def symbol(kind: str) -> Markup:
    """A legend's mark: a trial's kind, ``failed``, ``beyond`` or ``infeasible``."""
    shape = {"failed": "cross", "beyond": "up"}.get(kind, _SHAPE.get(kind, "circle"))
    drawn = mark(shape, "50%", "50%", class_="search hollow" if kind == "infeasible" else kind)
    return tag("svg", drawn, class_="symbol", aria_hidden="true")


def interval_chart(interval: Interval, label: str, *, limit: float | None = None) -> Markup:
    """An estimate with its interval beside zero, and beside a limit where there is one."""
    size = interval.high - interval.low
    description = (
        f"{label}: {signed(interval.estimate, resolve=size)}, "
        f"{setting(100 * interval.confidence)} % interval {number(interval.low, resolve=size)} "
        f"to {number(interval.high, resolve=size)}"
    )
    return axes.interval_chart(
        interval.estimate, interval.low, interval.high, title=description, limit=limit
    )


def convergence_chart(trials: Sequence[TrialEntry], *, trained: float, optimized: float) -> Markup:
    """Every trial's error by its number, with the best feasible one so far as a line."""
    scale, last = (
        error_scale(trials, trained, optimized),
        max((t.number for t in trials), default=0),
    )
    across = Scale(-0.5, last + 0.5)
    parts = [*grid(scale), *ticks_below(across, 6, whole=True)]
    parts.append(line(0, scale.up(trained), "100%", scale.up(trained), class_="trained"))
    parts += [_trial_mark(trial, across, scale) for trial in trials if trial.status != "running"]
    best = _best_so_far(trials, across, scale)
    if best:
        parts.append(stretched(path(best, class_="best")))
    parts.append(text("100%", "100%", "trial", dy=36, text_anchor="end", class_="small"))
    description = (
        f"Error of each of {count(len(trials))} trials by number. The trained model's error is "
        f"{number(trained)}, the optimized model's {number(optimized)}."
    )
    crowded = " many" if len(trials) > _CROWD else ""
    return chart(description, *parts, class_=f"plot convergence{crowded}")


def error_scale(trials: Sequence[TrialEntry], trained: float, optimized: float) -> Scale:
    """Errors worth telling apart: far outliers above are left outside of the scale."""
    errors = [t.error for t in trials if t.error is not None]
    kept = [trained, optimized]
    if errors:
        first, third = np.quantile(errors, [0.25, 0.75])
        ceiling = third + 3.0 * (third - first) if third > first else math.inf
        kept += [error for error in errors if error <= max(ceiling, trained)]
    return padded(kept)


def sensitivity_scale(entries: Sequence[SensitivityEntry]) -> Scale:
    """One scale for all factors, so that their effects compare."""
    ends = [
        error + side * _BAND * spread
        for entry in entries
        for error, spread in zip(entry.errors, entry.spreads, strict=True)
        for side in (-1, 1)
    ]
    return padded(ends or [0.0])


def sensitivity_chart(entry: SensitivityEntry, scale: Scale) -> Markup:
    """The estimated error along one factor: a line in a band of two standard deviations."""
    across = padded(entry.values, pad=0.0)
    curve = list(zip(entry.values, entry.errors, entry.spreads, strict=True))
    points = [(across.share(v), 1 - scale.share(e)) for v, e, _ in curve]
    upper = [(across.share(v), 1 - scale.share(e + _BAND * s)) for v, e, s in curve]
    lower = [(across.share(v), 1 - scale.share(e - _BAND * s)) for v, e, s in curve]
    at_best = float(np.interp(entry.best, entry.values, entry.errors))
    where, height = across.along(entry.best), scale.up(at_best)
    parts = [
        *grid(scale, 3),
        *ticks_below(across, 3),
        stretched(
            path(upper + lower[::-1], class_="band", closed=True), path(points, class_="curve")
        ),
        line(where, 0, where, "100%", class_="here"),
        mark("circle", where, height, class_="confirm", title=f"best: {factor(entry.best)}"),
    ]
    description = (
        f"Error along {name(entry.name)}, from {number(min(entry.errors))} to "
        f"{number(max(entry.errors))}; the best factor is {factor(entry.best)}."
    )
    return chart(description, *parts, class_="plot sensitivity")


def factor_bar(value: float, low: float, high: float) -> Markup:
    """One factor as a bar from zero, between its bounds."""
    scale = Scale(min(low, 0.0), max(high, 0.0))
    left, right = sorted((scale.share(0.0), scale.share(value)))
    parts = [
        tag("rect", x=0, y="42%", width="100%", height="16%", rx=2, class_="track"),
        tag(
            "rect",
            x=at(left),
            y="18%",
            width=at(right - left),
            height="64%",
            rx=2,
            class_="plus" if value >= 0 else "minus",
        ),
        line(scale.along(0.0), 0, scale.along(0.0), "100%", class_="zero"),
    ]
    description = f"{factor(value)}, between {setting(low)} and {setting(high)}"
    return chart(description, *parts, class_="bar")


def share_bar(share: float, *, low: bool) -> Markup:
    """A share of 1 as a bar; a low one is coloured as a warning."""
    inside = min(max(share, 0.0), 1.0)
    parts = [
        tag("rect", x=0, y="25%", width="100%", height="50%", rx=2, class_="track"),
        tag(
            "rect",
            x=0,
            y="25%",
            width=at(inside),
            height="50%",
            rx=2,
            class_="warn" if low else "plus",
        ),
    ]
    return chart(percent(share), *parts, class_="bar")


def scatter_chart(before: Sequence[float], after: Sequence[float]) -> Markup:
    """Each stimulus by its error before and after; below the diagonal it improved.

    Stimuli at one place become one circle with their number as its area, so that whole-number
    errors (a class right or wrong) and large holdouts both stay readable.
    """
    scale = padded([*before, *after], pad=0.04)
    cells = Counter(
        (round(_CELLS * scale.share(x)), round(_CELLS * scale.share(y)))
        for x, y in zip(before, after, strict=True)
    )
    parts = [*grid(scale), *ticks_below(scale, 4), line(0, "100%", "100%", 0, class_="here")]
    parts += [_scatter_mark(x, y, number_of) for (x, y), number_of in sorted(cells.items())]
    parts += [
        text("100%", "100%", "error before", dy=36, text_anchor="end", class_="small"),
        text(0, 0, "error after", dx=-44, dy=-10, class_="small"),
        text("97%", "97%", "improved", text_anchor="end", class_="small good-ink"),
        text("3%", "5%", "worse", dy=4, class_="small bad-ink"),
    ]
    description = f"Errors of {count(len(before))} holdout stimuli, before against after."
    return chart(description, *parts, class_="plot scatter")


def phases_chart(phases: Mapping[str, float]) -> Markup:
    """Seconds by phase as one divided bar."""
    total, start, parts = sum(phases.values()), 0.0, []
    for index, (phase, seconds) in enumerate(phases.items()):
        share = seconds / total if total > 0 else 0.0
        tooltip = tag("title", f"{name(phase)}: {duration(seconds)}")
        parts.append(
            tag(
                "rect",
                tooltip,
                x=at(start),
                y=0,
                width=at(share),
                height="100%",
                class_=f"phase{index % 6}",
            )
        )
        start += share
    description = ", ".join(
        f"{name(phase)} {duration(seconds)}" for phase, seconds in phases.items()
    )
    return chart(description, *parts, class_="bar phases")


def _trial_mark(trial: TrialEntry, across: Scale, scale: Scale) -> Markup:
    x, what = across.along(trial.number), f"trial {trial.number}, {name(trial.kind)}"
    if trial.error is None:
        return mark(
            "cross", x, -10, class_="failed", title=f"{what}: failed, {name(trial.reason or '')}"
        )
    title = f"{what}: {number(trial.error)}{'' if trial.feasible else ', breaks a guardrail'}"
    kind = trial.kind if trial.kind in KINDS else "search"
    class_ = kind if trial.feasible else f"{kind} hollow"
    if trial.error > scale.high:
        return mark("up", x, 6, class_=class_, title=f"{title} (above the chart)")
    return mark(_SHAPE.get(kind, "circle"), x, scale.up(trial.error), class_=class_, title=title)


def _best_so_far(
    trials: Sequence[TrialEntry], across: Scale, scale: Scale
) -> list[tuple[float, float]]:
    """The corners of a staircase through the lowest feasible error so far."""
    corners: list[tuple[float, float]] = []
    best = math.inf
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.error is None or not trial.feasible or not trial.error < best:
            continue
        x = across.share(trial.number)
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, max(1 - scale.share(trial.error), 0.0)))
        best = trial.error
    return [*corners, (1.0, corners[-1][1])] if corners else []


def _scatter_mark(x: int, y: int, stimuli: int) -> Markup:
    side = "good" if y < x else "bad" if y > x else "same"
    radius = min(3.0 * math.sqrt(stimuli), 16.0)
    title = tag("title", f"{count(stimuli)} stimuli") if stimuli > 1 else ""
    return tag("circle", title, cx=at(x / _CELLS), cy=at(1 - y / _CELLS), r=radius, class_=side)
