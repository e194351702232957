"""Answers that are errors, and whether a server is up."""

from __future__ import annotations

from ztom.wire.base import WireAnswer
from ztom.wire.examples import example


class Issue(WireAnswer):
    """What is wrong with one value of a request.

    Attributes:
        loc: Where the value stands, from the outside in.
        msg: What is wrong with it.
    """

    loc: tuple[str, ...]
    msg: str


class Problem(WireAnswer):
    """Why a request was refused or failed.

    Attributes:
        detail: A sentence, or one issue for each value that is malformed.
    """

    model_config = example(detail="there is no such project")

    detail: str | tuple[Issue, ...]


class Health(WireAnswer):
    """A server that is up.

    Attributes:
        status: Status of the server, ``ok``.
        version: Version of Z-TOM.
    """

    model_config = example(status="ok", version="0.9.0")

    status: str
    version: str
