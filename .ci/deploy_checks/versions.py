"""Versions of the lock files."""

from __future__ import annotations

import re

from deploy_checks.tools import ROOT

LOCK = ROOT / "requirements" / "cpu.txt"


def locked_version(package: str) -> str:
    """The version of a package in the lock file.

    Raises:
        ValueError: It is not in it.
    """
    found = re.search(rf"^{re.escape(package)}==(\S+)$", LOCK.read_text(encoding="utf-8"), re.M)
    if found is None:
        raise ValueError(f"{package} is not in {LOCK.name}")
    return found[1]
