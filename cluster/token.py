"""The token that opens a cluster: where a client of one finds it."""

from __future__ import annotations

import os
from pathlib import Path

#: Where Ray looks for the token, the first that is set; then in `TOKEN_FILE`.
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TOKEN_FILE = "~/.ray/auth_token"


def has_token() -> bool:
    """Whether this process would find a token."""
    return any(os.environ.get(name) for name in TOKEN_VARIABLES) or token_file().exists()


def token_file() -> Path:
    """File of the token, whether it is there or not."""
    return Path(TOKEN_FILE).expanduser()


def use_token() -> None:
    """Have Ray's clients in this process show the token, where there is one.

    They read whether to do so when Ray is imported.
    """
    if has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
