"""Places in text files, for errors that name file and line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ztom.errors import StimuliError, with_text


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file something stands.

    Attributes:
        path: Path of the file.
        line: Number of the line, from 1; or of the record, where the file has no lines.
        unit: Word for what is counted: ``line``, ``record`` or ``row``.
    """

    path: Path
    line: int
    unit: str = "line"

    def error(
        self,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
        reason: object = None,
    ) -> StimuliError:
        """An error that begins with the file and the line."""
        return StimuliError(
            f"{self.path}, {self.unit} {self.line}: {what}",
            got=got,
            expected=expected,
            fix=fix,
            reason=reason,
        )


def renamed(error: StimuliError, path: Path, name: str, names: Sequence[str] = ()) -> StimuliError:
    """The same error, speaking of a copy as whoever sent the original calls it.

    Args:
        error: Error that may speak of the copy.
        path: Path of the copy.
        name: Name to say instead.
        names: Name of the file that each line of the copy came from, where it was put together
            from files of one line each.
    """

    def line_named(match: re.Match[str]) -> str:
        line = int(match[2])
        return names[line - 1] if 0 < line <= len(names) else f"{name}, {match[1]} {line}"

    def change(text: str) -> str:
        text = re.sub(re.escape(str(path)) + r", (line|record|row) (\d+)", line_named, text)
        return text.replace(str(path), name)

    return with_text(error, change)
