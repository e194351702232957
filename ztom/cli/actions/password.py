"""Where a password comes from: never from the command line."""

from __future__ import annotations

import getpass
import os
import sys

from ztom.errors import ConfigError

#: Where a password is looked for when nobody can type one.
PASSWORD_VARIABLE = "ZTOM_PASSWORD"


def read_password(*, stdin: bool, twice: bool) -> str:
    """Typed, or from standard input or the environment; never from the command line.

    Raises:
        ConfigError: There is nobody to type it, or it was typed differently.
    """
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    from_environment = os.environ.get(PASSWORD_VARIABLE)
    if from_environment is not None:
        return from_environment
    if not sys.stdin.isatty():
        raise ConfigError(
            "there is nobody to ask for the password",
            fix=f"Give --password-stdin, or set {PASSWORD_VARIABLE}.",
        )
    password = getpass.getpass("password: ")
    if twice and getpass.getpass("once more: ") != password:
        raise ConfigError("the two passwords differ")
    return password
