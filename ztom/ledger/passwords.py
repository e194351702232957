"""Passwords, kept as Argon2id hashes (RFC 9106) with the parameters that argon2-cffi recommends."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from ztom.errors import ConfigError

MIN_LENGTH = 10
#: Longer ones would only cost time to hash.
MAX_LENGTH = 1000

_HASHER = PasswordHasher()
# Each takes 64 MiB: many logins at once wait for each other rather than for memory.
_AT_ONCE = threading.BoundedSemaphore(4)
# Checked for an unknown name, so that it takes as long as a wrong password. Written out: to make it
# costs a quarter of a second in every process that imports the ledger. A test compares its
# parameters with those of new hashes.
_NOBODY = (
    "$argon2id$v=19$m=65536,t=3,p=4"
    "$Lg5V2OOGH4g3flbX3A+dqg$eaS0DDdZoeVUoOTjq5PBeoIAmtw5w4l72brJbsp8S1U"
)


def hash_password(password: str) -> str:
    """The hash to keep; takes tens of milliseconds and 64 MiB on purpose.

    Raises:
        ConfigError: Too short or too long; the message does not show it.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise ConfigError(
            "the password has the wrong length",
            got=f"{len(password)} characters",
            expected=f"{MIN_LENGTH} to {MAX_LENGTH}",
        )
    with _AT_ONCE:
        kept: str = _HASHER.hash(password)
    return kept


def is_password(password: str, kept: str | None) -> bool:
    """Whether the hash is that of the password; None stands for an account that does not exist."""
    if len(password) > MAX_LENGTH:
        return False
    try:
        with _AT_ONCE:
            return _HASHER.verify(kept or _NOBODY, password) and kept is not None
    except (VerifyMismatchError, InvalidHashError):
        return False
