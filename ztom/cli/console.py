"""How the commands print tables and times."""

from __future__ import annotations

import sys
from datetime import datetime

from rich.console import Console


def moment(time: str) -> str:
    """A time of the ledger, in ISO 8601, to the second."""
    return datetime.fromisoformat(time).isoformat(timespec="seconds")


def plain_console() -> Console:
    """Names and reasons are text: brackets and colons in them mean nothing.

    Piped output is not cut to the width of a terminal that is not there.
    """
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False)
