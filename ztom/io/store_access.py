"""Whether a store answers at all, and with which login: looked at once, before anything waits.

The clients of Google and S3 look for credentials in many places and try again for minutes where
there are none; nobody should wait that long to hear that they are not logged in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ztom.errors import StorageError

#: Seconds after which a store that has not answered is said not to: with what a command takes to
#: start, nobody waits longer than 10.
DEADLINE_S = 8.0

_LOGINS = {
    "gs": "Log in with `gcloud auth application-default login`, or name a key's file in "
    "GOOGLE_APPLICATION_CREDENTIALS.",
    "s3": "Log in with `aws configure` or `aws sso login`, or set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL names a store of your own.",
}
_PLACES = {
    "gs": (
        ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"),
        ("~/.config/gcloud/application_default_credentials.json",),
    ),
    "s3": (
        ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ("~/.aws/credentials", "~/.aws/config"),
    ),
}
_reached: set[tuple[str, str]] = set()


def require_answer(
    scheme: str,
    path: str,
    look: Callable[[], Any],
    *,
    is_transient: Callable[[Exception], bool],
    deadline_s: float = DEADLINE_S,
) -> None:
    """Look at a store once per bucket, in bounded time.

    That something is missing, or fails for a moment, is left to whoever reads it.

    Args:
        scheme: Scheme of the store, ``gs`` or ``s3``; others are not looked at.
        path: Place in the store, ``bucket/folder``.
        look: Call that makes the store answer.
        is_transient: Whether an error may pass.
        deadline_s: Seconds after which it is given up.

    Raises:
        StorageError: It does not answer in time, or refuses; the message says how to log in.
    """
    bucket = path.partition("/")[0]
    if scheme not in _LOGINS or (scheme, bucket) in _reached:
        return
    error = _answer_of(look, deadline_s)
    where = f"{scheme}://{bucket}"
    if isinstance(error, TimeoutError):
        raise StorageError(
            f"{where} does not answer",
            reason=f"nothing came within {deadline_s:g} s{_guess(scheme)}",
            fix=f"{_LOGINS[scheme]} Is the network there?",
        )
    if error is not None and not isinstance(error, FileNotFoundError) and not is_transient(error):
        raise StorageError(
            f"{where} refuses to be read{_guess(scheme)}",
            reason=f"{type(error).__name__}: {error}",
            fix=_LOGINS[scheme],
        ) from error
    _reached.add((scheme, bucket))


def _guess(scheme: str) -> str:
    return "" if has_credentials(scheme) else ", and no login is to be found on this machine"


def has_credentials(scheme: str) -> bool:
    """Whether a login is where a store's client looks first; the metadata of a cloud is not."""
    variables, files = _PLACES[scheme]
    return any(os.environ.get(name) for name in variables) or any(
        Path(file).expanduser().is_file() for file in files
    )


def _answer_of(look: Callable[[], Any], deadline_s: float) -> Exception | None:
    """What looking raised; the thread of a look that never ends does not keep the process."""
    errors: list[Exception | None] = []

    def work() -> None:
        try:
            look()
        except Exception as error:
            errors.append(error)
        else:
            errors.append(None)

    thread = threading.Thread(target=work, name="store-access", daemon=True)
    thread.start()
    thread.join(deadline_s)
    return errors[0] if errors else TimeoutError()
