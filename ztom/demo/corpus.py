"""What the demo's model is taught: one-sentence answers about things of the standard library.

They are read by `ztom.demo.stdlib_docs` in an interpreter of its own, without site packages and
environment variables, so that the same Python always gives the same entries, whatever the calling
process has imported or patched.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ztom.errors import ConfigError

_SCRIPT = Path(__file__).with_name("stdlib_docs.py")
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented thing of the standard library.

    Attributes:
        name: Dotted name as a user writes it, e.g. ``str.join``; unique.
        topic: A key of `ztom.demo.stdlib_docs.TOPICS`.
        answer: First sentence of its documentation, ASCII, one line; unique.
    """

    name: str
    topic: str
    answer: str


def stdlib_entries(*, python: str = sys.executable) -> list[Entry]:
    """All entries of the standard library of ``python``, in a fixed order; takes half a second.

    Raises:
        ConfigError: The interpreter cannot be run or did not finish.
    """
    try:
        finished = subprocess.run(
            [python, "-I", "-S", str(_SCRIPT)],
            capture_output=True,
            check=True,
            timeout=_TIMEOUT_S,
            text=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            "the documentation of the standard library could not be read",
            got=getattr(error, "stderr", None) or error,
            expected=f"{python} to run {_SCRIPT.name}",
            fix="Use a complete CPython 3.11 or newer.",
        ) from error
    return [
        Entry(name=name, topic=topic, answer=answer)
        for name, topic, answer in json.loads(finished.stdout)
    ]
