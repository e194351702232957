"""Ids of answers, which say who answered: feedback can name an answer that nobody kept.

``<nonce>-<variant>-<role><step>-<release>-<seal>``: the seal (HMAC-SHA256, 64 bits) keeps clients
from making ids up. A prefix of the endpoint (``chatcmpl-``, ``cmpl-``, ``embd-``) stands
before it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from ztom.rollout.routing import SHORT, TrafficRole

_LETTERS = {
    "s": TrafficRole.STABLE,
    "c": TrafficRole.CANARY,
    "r": TrafficRole.RULE,
    "p": TrafficRole.PINNED,
}
_ROLES = {role: letter for letter, role in _LETTERS.items()}
_NO_RELEASE = "0" * 8
_SEAL = 16
_FORM = re.compile(
    r"(?:chatcmpl-|cmpl-|embd-)?([0-9a-f]{16}-([0-9a-f]{12})-([scrp])([0-9]{1,4})-([0-9a-f]{8}))"
    r"-([0-9a-f]{16})"
)


@dataclass(frozen=True, slots=True)
class ResponseOrigin:
    """The variant that gave an answer, and the step of the release in which it did."""

    variant: str
    role: TrafficRole
    release: str | None = None
    step: int = 0


class ResponseIds:
    """Makes ids and reads them.

    Args:
        key: Secret of the server.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"ztom response ids\0" + key).digest()

    @staticmethod
    def nonce() -> str:
        """What makes an id unlike every other."""
        return secrets.token_hex(8)

    def make(self, origin: ResponseOrigin, nonce: str) -> str:
        """An id, without OpenAI's prefix."""
        body = "-".join(
            (
                nonce,
                origin.variant[:SHORT],
                f"{_ROLES[origin.role]}{origin.step}",
                origin.release or _NO_RELEASE,
            )
        )
        return f"{body}-{self._seal(body)}"

    def read(self, text: str) -> tuple[str, ResponseOrigin] | None:
        """The id without its prefix, and what it says; None for what was not made here."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        body, variant, letter, step, release, seal = match.groups()
        if not hmac.compare_digest(self._seal(body), seal):
            return None
        known = None if release == _NO_RELEASE else release
        return f"{body}-{seal}", ResponseOrigin(variant, _LETTERS[letter], known, int(step))

    def _seal(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()[:_SEAL]
