"""How the commands print tables."""

from __future__ import annotations

import sys

from rich.console import Console


def plain_console() -> Console:
    """Names and reasons are text: brackets and colons in them mean nothing.

    Piped output is not cut to the width of a terminal that is not there.
    """
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False)
