"""Who asks, without saying so: keyed hashes of API keys (HMAC-SHA256).

Without the server's secret nobody can tell from a hash whose it is, nor work out a value that a
hash would send to the canary.
"""

from __future__ import annotations

import hashlib
import hmac

#: Characters of a caller's hash: 64 bits tell callers apart.
_SHORT = 16


class CallerHashes:
    """Hashes callers.

    Args:
        key: Secret of the server, which stays as it is.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"ztom callers\0" + key).digest()

    def caller(self, key_id: str) -> str:
        """Name of a caller in counts and records: one for each API key."""
        return self._hash("caller", key_id)[:_SHORT]

    def sticky(self, key_id: str, value: str) -> str:
        """What decides on the canary for requests of a key that bear the same value."""
        return self._hash("sticky", key_id, value)

    def _hash(self, *parts: str) -> str:
        text = "\0".join(parts).encode(errors="surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()
