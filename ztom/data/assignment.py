"""Which split a row is in: by its group and the salt alone, so that a split stays as data grows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_PARTS = 10_000


def split_of(group: str, *, salt: str, shares: Mapping[str, float]) -> str:
    """Name of the split that a group is in.

    ``sha256(salt + group) mod 10000`` lies in one of consecutive ranges as long as the shares say.

    Args:
        group: Group of the row.
        salt: Salt of the data set.
        shares: Share of each split, in order; they add up to 1.
    """
    digest = hashlib.sha256((salt + group).encode()).digest()
    place = int.from_bytes(digest, "big") % _PARTS
    end = 0.0
    for name, share in shares.items():
        end += share
        if place < round(end * _PARTS):
            return name
    return list(shares)[-1]
