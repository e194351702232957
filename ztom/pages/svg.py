"""What the charts are drawn with: escaped elements, linear scales and round ticks.

Positions are percentages of the chart's size, which a style sheet sets, so a chart fills a phone or
a page alike while its texts and marks keep their size. Only lines and areas are drawn in a
stretched coordinate system of their own, 1000 by 1000.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_SHAPES = {
    "diamond": "M0-6 6 0 0 6-6 0z",
    "triangle": "M0-6 6 5-6 5z",
    "up": "M0-5 4 2-4 2z",
    "cross": "M-4-4 4 4M-4 4 4-4",
}


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element; attributes and texts are escaped, ``class_`` and ``stroke_width`` renamed."""
    shown = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, shown, inside)


def chart(label: str, *children: str, class_: str) -> Markup:
    """A whole chart; the label is what a screen reader says."""
    return tag("svg", *children, class_=class_, role="img", aria_label=label)


def text(x: str | float, y: str | float, content: str, **attributes: str | float) -> Markup:
    """A text."""
    return tag("text", content, x=x, y=y, **attributes)


def line(
    x1: str | float, y1: str | float, x2: str | float, y2: str | float, *, class_: str
) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def mark(shape: str, x: str | float, y: str | float, *, class_: str, title: str = "") -> Markup:
    """A mark of fixed size at a place; the title is shown under the pointer."""
    tooltip = tag("title", title) if title else Markup("")
    if shape == "circle":
        return tag("circle", tooltip, cx=x, cy=y, r=4.5, class_=class_)
    path = tag("path", tooltip, d=_SHAPES[shape])
    return tag("svg", path, x=x, y=y, class_=f"mark {class_}")


def stretched(*children: str) -> Markup:
    """Paths in thousandths of the chart's width and height."""
    return tag(
        "svg",
        *children,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
        class_="stretched",
    )


def path(points: Iterable[tuple[float, float]], *, class_: str, closed: bool = False) -> Markup:
    """A line through points given as shares of width and height."""
    steps = " ".join(f"{_short(1000 * x)} {_short(1000 * y)}" for x, y in points)
    return tag("path", d=f"M{steps}{'z' if closed else ''}", class_=class_)


@dataclass(frozen=True)
class Scale:
    """A linear map from values to shares, 0 at ``low`` and 1 at ``high``."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies; outside of 0 to 1 when it is outside of the scale."""
        return (value - self.low) / (self.high - self.low)

    def along(self, value: float) -> str:
        """Distance of a value from the left, as a percentage of the width."""
        return at(self.share(value))

    def up(self, value: float) -> str:
        """Distance of a value from the top, as a percentage of the height."""
        return at(1.0 - self.share(value))

    def ticks(self, wanted: int) -> list[float]:
        """Round values inside the scale, about ``wanted`` of them."""
        rough = (self.high - self.low) / max(wanted, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def padded(values: Sequence[float], *, pad: float = 0.06) -> Scale:
    """A scale that holds the values with some room on both sides, also when they are all equal."""
    low, high = min(values), max(values)
    room = pad * (high - low)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = 0.5 * abs(high) or 1.0
    return Scale(low - room, high + room)


def at(share: float) -> str:
    """A share as a percentage."""
    return f"{_short(100 * share)}%"


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else _short(value)


def _short(value: float) -> str:
    rounded = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if rounded == "-0" else rounded
