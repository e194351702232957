"""Places in text files, for errors that name file and line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ztom.errors import StimuliError


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
