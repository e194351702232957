"""What is wrong with what was typed, said as everything else that is wrong is said."""

from __future__ import annotations

import re
from typing import Any, cast

import typer

from ztom.errors import ConfigError
from ztom.io.problem_words import words_for

#: What wrong options raise: ClickException, wherever this version of typer keeps it.
OPTION_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


def is_help_request(error: Exception) -> bool:
    """Whether a group was named without a command: its help is printed already."""
    return type(error).__name__ == "NoArgsIsHelpError"


def usage_error(error: Any) -> ConfigError:
    """An error of typer's parser (`OPTION_ERROR`) as one of ours."""
    context = getattr(error, "ctx", None)
    command = "ztom" if context is None else context.command_path
    fix = f"`{command} --help` says what it takes."
    values = getattr(error.__cause__, "errors", None)
    if callable(values) and getattr(error, "param", None) is not None:
        first = values()[0]  # pydantic's, which typer reads values with
        reason = re.sub(r"^.* is not (?=one of)", "has to be ", words_for(first))
        return ConfigError(
            f"invalid value for {error.param.get_error_hint()}",
            reason=reason,
            got=first["input"],
            fix=fix,
        )
    message = " ".join(error.format_message().split()).rstrip(".")
    message = re.sub(r"\. Did you mean (.*)\?$", r" (did you mean \1?)", message)
    return ConfigError(message[:1].lower() + message[1:], fix=fix)
