"""What an account holds of a server, and how much of it it may hold."""

from __future__ import annotations

from ztom.wire.base import WireAnswer
from ztom.wire.examples import example


class Limit(WireAnswer):
    """One limit of an account.

    Attributes:
        name: What is counted, as in ``searches``.
        used: How much of it the account holds now.
        limit: How much of it the account may hold; more is refused with status 429.
    """

    model_config = example(name="searches", used=2, limit=32)

    name: str
    used: float
    limit: float
