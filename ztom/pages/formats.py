"""Numbers and texts as people read them: sensible digits, and nothing invisible."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

_MINUS = "\N{MINUS SIGN}"
_MOST_DECIMALS = 12
#: Invisible, but part of ordinary writing: joiners of emoji and of Indic and Persian letters.
_JOINERS = "\u200c\u200d"


def number(value: float, *, resolve: float = 0.0, digits: int = 4) -> str:
    """A number with a few significant digits, or more.

    Args:
        value: Number to show.
        digits: Least number of significant digits.
        resolve: Difference that has to show two digits, so that 2.9071 and 2.9072 do not
            both become 2.907 where their difference is the point.
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if not 1e-6 <= abs(value) < 1e7:
        return f"{value:.3e}".replace("-", _MINUS)
    decimals = digits - 1 - _magnitude(value)
    if resolve and math.isfinite(resolve):
        decimals = max(decimals, 1 - _magnitude(resolve))
    text = f"{value:,.{min(max(decimals, 0), _MOST_DECIMALS)}f}"
    return text.replace("-", _MINUS)


def signed(value: float, *, resolve: float = 0.0, digits: int = 3) -> str:
    """The text of `number`, with a plus before what is positive."""
    return ("+" if value > 0 else "") + number(value, resolve=resolve, digits=digits)


def setting(value: float) -> str:
    """A number that a person chose: as short as it was written."""
    return f"{value:.6g}".replace("-", _MINUS)


def factor(value: float) -> str:
    """A scaling factor: always signed, so that columns of them line up."""
    return f"{value:+.4f}".replace("-", _MINUS) if value else "0"


def count(value: int) -> str:
    """A whole number with thousands set apart."""
    return f"{value:,}".replace("-", _MINUS)


def percent(share: float) -> str:
    """A share as a percentage with three significant digits."""
    value = 100.0 * share
    if value == 0:
        return "0 %"
    decimals = min(max(2 - _magnitude(value), 0), 3)
    return f"{value:,.{decimals}f} %".replace("-", _MINUS)


def duration(seconds: float) -> str:
    """Seconds, as hours, minutes and seconds where there are many."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.5:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def visible(text: str, *, lines: bool = False) -> str:
    """The text with everything that would be invisible, or change how it reads, written out.

    Control characters become their pictures, others (changes of direction, lone surrogates) become
    their code point.

    Args:
        text: Any text, from anywhere.
        lines: Line breaks stay line breaks.
    """
    return "".join(c if c == "\n" and lines else _shown(c) for c in text)


def name(text: str) -> str:
    """A name, in one line and at most 200 characters."""
    return visible(text if len(text) <= 200 else text[:199] + "\N{HORIZONTAL ELLIPSIS}")


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a text.

    Attributes:
        text: Characters as `visible` gives them.
        note: Note on how much was left out, empty when nothing was.
    """

    text: str
    note: str


def excerpt(text: str, *, limit: int = 2_000) -> Excerpt:
    """A text cut to ``limit`` characters, and a note on what was left out."""
    if len(text) <= limit:
        return Excerpt(visible(text, lines=True), "")
    note = f"cut: the first {count(limit)} of {count(len(text))} characters are shown"
    return Excerpt(visible(text[:limit], lines=True), note)


def _magnitude(value: float) -> int:
    """Power of ten of the first digit."""
    return math.floor(math.log10(abs(value)))


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if (hidden and character not in _JOINERS) or code & 0xFFFE == 0xFFFE:
        return (
            f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{code:04X}\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
        )
    return character
