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
        line: Number of the line, from 1.
    """

    path: Path
    line: int

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
            f"{self.path}, line {self.line}: {what}",
            got=got,
            expected=expected,
            fix=fix,
            reason=reason,
        )
