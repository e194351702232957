"""The version of Z-TOM, and the Pythons that it runs on, in a file that imports nothing.

It is readable for the Pythons that it refuses.
"""

from __future__ import annotations

__version__ = "0.1.0"

#: The oldest Python that Z-TOM runs on, and the first that it does not run on; as pyproject.toml.
PYTHON_FIRST, PYTHON_END = (3, 11), (3, 14)


def python_refusal(major: int, minor: int) -> str | None:
    """The sentence that refuses a Python of this version; None for one that Z-TOM runs on."""
    if PYTHON_FIRST <= (major, minor) < PYTHON_END:
        return None
    first, last = PYTHON_FIRST, (PYTHON_END[0], PYTHON_END[1] - 1)
    return (
        f"Z-TOM needs Python {first[0]}.{first[1]} to {last[0]}.{last[1]}, and this is Python "
        f"{major}.{minor}. Make an environment with another: python3.12 -m venv .venv"
    )
