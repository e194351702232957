"""What a reader leaves out of a file, counted: nothing is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ztom.io.text import Place

#: Names of fields are the file's own: they are cut, and there are not endlessly many of them.
_MAX_NAME = 60
_MAX_ENTRIES = 200


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One thing that was left out of a file.

    Attributes:
        what: Words for it, such as ``field "source"`` or ``blank line``.
        count: Number of times that it was left out.
        first: Number of the first line, row or record that had it, from 1.
        is_stimulus: Whether the whole stimulus was left out, not a part of it.
    """

    what: str
    count: int
    first: int
    is_stimulus: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.count} (first in {self.first})"


class LeftOutCounter:
    """Counts while a file is read."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, bool], tuple[int, int]] = {}

    def add(self, what: str, place: Place, *, is_stimulus: bool = False) -> None:
        """Count one thing that is left out."""
        key = (what, is_stimulus)
        if key not in self._entries and len(self._entries) >= _MAX_ENTRIES:
            key = ("other fields", False)
        count, first = self._entries.get(key, (0, place.line))
        self._entries[key] = (count + 1, first)

    def add_fields(self, names: Iterable[str], place: Place, *, of: str = "") -> None:
        """Count fields by their names; ``of`` says what they are fields of."""
        for name in names:
            self.add(f'field "{_shown(name)}"{of}', place)

    @property
    def entries(self) -> tuple[LeftOut, ...]:
        """What was left out: whole stimuli first, then by where it occurs first."""
        entries = [
            LeftOut(what, count, first, is_stimulus)
            for (what, is_stimulus), (count, first) in self._entries.items()
        ]
        return tuple(sorted(entries, key=lambda entry: (not entry.is_stimulus, entry.first)))


def left_out_sentence(entries: Sequence[LeftOut], *, limit: int = 5) -> str:
    """What was left out in one line, such as ``blank line (3), field "source" (12)``."""
    parts = [f"{entry.what} ({entry.count})" for entry in entries[:limit]]
    rest = len(entries) - limit
    return ", ".join(parts) + (f" and {rest} more" if rest > 0 else "")


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:_MAX_NAME])
