"""Packages that one command or option needs: there, or an error that says what to install.

Which package belongs to which extra, and why, stands in ``pyproject.toml``.
"""

from __future__ import annotations

import importlib.util

from ztom.errors import ConfigError


def require_extra(module: str, *, extra: str, purpose: str) -> None:
    """Look whether a package is installed, without importing it.

    Args:
        module: Name of its module.
        extra: Name of the extra of ``ztom`` that brings it.
        purpose: What needs it, as the subject of the error's sentence.

    Raises:
        ConfigError: It is not installed.
    """
    if not _is_installed(module):
        raise ConfigError(
            f"{purpose} needs the package {module}, which is not installed",
            fix=f'Install it with: pip install "ztom[{extra}]"',
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what the module is part of is missing
        return False
