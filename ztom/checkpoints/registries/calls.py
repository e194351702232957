"""One call of a registry's REST interface, bounded in time, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from ztom.errors import ConfigError, NothingThereError, StorageError

#: How long a registry may take to begin to answer, seconds.
TIMEOUT_S = 10.0
_SHOWN = 300


def get_json(
    client: httpx.Client, path: str, query: Mapping[str, str], *, what: str, log_in: str
) -> dict[str, Any]:
    """Call and read a JSON object.

    Args:
        client: Client with the registry's address and credentials.
        path: Path of the call.
        query: Query of the call.
        what: Names what is looked up, in errors.
        log_in: Sentence that says how to get credentials.

    Raises:
        ConfigError: The registry refuses the credentials.
        StorageError: There is no such thing, no answer in time, or one that is no JSON object.
    """
    try:
        answer = client.get(path, params=dict(query))
    except httpx.HTTPError as error:
        raise unreachable(client, what, error) from error
    check_status(answer, what=what, log_in=log_in)
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StorageError(
            f"{what}: {client.base_url} is no registry of this kind",
            got=answer.headers.get("content-type", "no content type"),
            expected="a JSON object",
        )
    return content


def check_status(answer: httpx.Response, *, what: str, log_in: str) -> None:
    """Raise for every status but success.

    Raises:
        ConfigError: The registry refuses the credentials.
        StorageError: Any other refusal.
    """
    if answer.status_code in (401, 403):
        raise ConfigError(f"{what} may not be read", got=f"status {answer.status_code}", fix=log_in)
    if answer.status_code == 404:
        raise NothingThereError(f"there is no {what}", got=_message(answer))
    if not answer.is_success:
        raise StorageError(f"{what} cannot be read", got=_message(answer))


def unreachable(client: httpx.Client, what: str, error: Exception) -> StorageError:
    """The error for a registry that did not answer."""
    return StorageError(
        f"{what} cannot be looked up: no answer of {client.base_url}",
        got=f"{type(error).__name__}: {error}",
        fix=f"Is it running, and can this machine reach it? It is given {TIMEOUT_S:g} s.",
    )


def _message(answer: httpx.Response) -> str:
    """What the registry says, in one line."""
    try:
        content = answer.json()
        error = content.get("error") if isinstance(content.get("error"), dict) else content
        text = str(error.get("message") or "")
    except (ValueError, AttributeError):
        text = ""
    line = " ".join(text.split())[:_SHOWN]
    return f"status {answer.status_code}{f', {line}' if line else ''}"
