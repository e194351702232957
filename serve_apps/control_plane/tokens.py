"""Tokens: JSON Web Tokens (RFC 7519), HS384, signed with a key that is this server's alone.

Times in a token are of the clock of the machine that issued it. A few seconds between two clocks,
or of one that was set back, count as nothing; by more than that a token does not hold.

The key file holds one key a line, base64. The first one signs, all of them verify: a new line at
the top rotates the key, and taking the old line away ends the tokens that it signed.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from ztom.errors import ConfigError
from ztom.io.files import write_whole
from ztom.io.private import is_private, private_folder

ALGORITHM = "HS384"
MIN_KEY_BYTES = 48
KEY_VARIABLE = "ZTOM_JWT_KEY"
#: Used twice, for tokens and for addresses of artifacts: neither passes for the other.
LOGIN, ARTIFACT = "ztom-login", "ztom-artifact"
#: Seconds by which clocks may differ.
LEEWAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Claims:
    """Content of a valid token.

    Attributes:
        subject: Id of the user, or of the request whose artifact it opens.
        session: Number of the user's session when they logged in.
    """

    subject: str
    session: int


class Tokens:
    """Signs and checks tokens.

    Args:
        keys: Each of at least 48 bytes; the first one signs.
        clock: Function that gives the time, seconds since 1970.
    """

    def __init__(self, keys: tuple[bytes, ...], *, clock: Callable[[], float] = time.time) -> None:
        if not keys or any(len(key) < MIN_KEY_BYTES for key in keys):
            raise ConfigError(
                "the key that signs tokens is too short",
                got=f"{min(map(len, keys), default=0)} bytes",
                expected=f"at least {MIN_KEY_BYTES}",
                fix="Remove it: a new one is made at the next start.",
            )
        self._keys = keys
        self._clock = clock

    def issue(self, subject: str, *, audience: str, seconds: float, session: int = 0) -> str:
        """A token that holds for some seconds."""
        now = int(self._clock())
        claims = {
            "sub": subject,
            "aud": audience,
            "iat": now,
            "exp": now + max(1, int(seconds)),
            "ses": session,
        }
        return jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)

    def check(self, token: str, *, audience: str) -> Claims | None:
        """What it says; None when it does not hold, for whatever reason."""
        for key in self._keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[ALGORITHM],
                    audience=audience,
                    options={
                        "require": ["exp", "iat", "sub", "aud", "ses"],
                        "verify_exp": False,  # by our clock, below
                        "verify_iat": False,
                        "verify_nbf": False,
                    },
                )
            except jwt.InvalidTokenError:
                continue
            if isinstance(claims["ses"], int) and self._is_time_for(claims):
                return Claims(claims["sub"], claims["ses"])
        return None

    def _is_time_for(self, claims: Mapping[str, Any]) -> bool:
        """Whether it was issued by now and has not ended, give or take `LEEWAY_S`."""
        issued, ends = claims["iat"], claims["exp"]
        begins = claims.get("nbf", issued)
        if not all(isinstance(at, int | float) for at in (issued, begins, ends)):
            return False
        now = self._clock()
        return bool(max(issued, begins) - LEEWAY_S <= now < ends + LEEWAY_S)


def load_keys(path: Path) -> tuple[bytes, ...]:
    """Keys of a server: from the environment, else from the file, which is made if need be.

    Raises:
        ConfigError: A key is too short or malformed, or others can read the file.
    """
    given = os.environ.get(KEY_VARIABLE)
    if given is not None:
        return (decode_key(given, KEY_VARIABLE),)
    if not path.exists():
        _write(path, [new_key()])
    if not is_private(path):
        raise ConfigError(
            f"{path} can be read by others", fix=f"chmod 600 {path}, and rotate the key."
        )
    lines = path.read_text(encoding="ascii", errors="replace").split()
    return tuple(decode_key(line, str(path)) for line in lines)


def rotate(path: Path) -> None:
    """Put a new key on top of the file and keep the one before.

    Raises:
        ConfigError: The file cannot be used.
    """
    _write(path, with_new_key([base64.b64encode(key).decode() for key in load_keys(path)]))


def with_new_key(lines: Sequence[str]) -> list[str]:
    """A new key, base64, above the one that has signed up to now."""
    return [new_key(), *lines[:1]]


def new_key() -> str:
    """A random key, base64."""
    return base64.b64encode(secrets.token_bytes(MIN_KEY_BYTES)).decode()


def decode_key(text: str, where: str) -> bytes:
    """The key that a text stands for: Base64, or a passphrase that is long enough.

    Args:
        text: One line.
        where: Where it is from, for the message.

    Raises:
        ConfigError: It is too short.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = text.encode()  # a passphrase is a key too, when it is long enough
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(
            f"the key in {where} is too short",
            got=f"{len(key)} bytes",
            expected=f"at least {MIN_KEY_BYTES}",
            fix="openssl rand -base64 48 makes one.",
        )
    return key


def _write(path: Path, lines: list[str]) -> None:
    private_folder(path.parent)
    write_whole(path, "\n".join(lines) + "\n", private=True)
