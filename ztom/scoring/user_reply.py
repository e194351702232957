"""What the child process of a user's function says, and why it says nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

_LARGEST_REPLY = 64 * 2**20


class ChildFailedError(Exception):
    """The child did not answer as it should; it has been killed.

    Attributes:
        tail: The last that it printed.
    """

    def __init__(self, reason: str, *, tail: str = "") -> None:
        super().__init__(reason)
        self.tail = tail


class ChildLateError(ChildFailedError):
    """The child was not done before its deadline; it has been killed."""


@dataclass(frozen=True)
class ChildReply:
    """What a child says: a result, or what its function raised.

    Attributes:
        call: Number of the call that is answered; None for the word that it has started.
        result: Value that the function returned: a number, or a list of numbers.
        error: Name of the exception's class; None when nothing was raised.
        message: Message of the exception, at most 2,000 characters.
        place: File and line of the function where it was raised; None where that is not known.
        lacks: Ways to contain the function that the system did not allow, when it has started.
    """

    call: int | None = None
    result: object = None
    error: str | None = None
    message: str = ""
    place: str | None = None
    lacks: tuple[str, ...] = ()


def read_reply(data: bytearray) -> ChildReply | None:
    """The whole message in ``data``, or None as long as there is only part of one."""
    if len(data) < 8:
        return None
    length = int.from_bytes(data[:8], "big")
    if length > _LARGEST_REPLY:
        raise ChildFailedError("its reply is too large or not a reply")
    if len(data) < 8 + length:
        return None
    try:
        message = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or len(data) > 8 + length:
        raise ChildFailedError("something else wrote where its reply belongs")
    return _reply(message)


def _reply(message: Mapping[str, object]) -> ChildReply:
    """The message as a reply; the function shares the process, so nothing in it is certain."""
    call, error, place = message.get("call"), message.get("error"), message.get("place")
    return ChildReply(
        call=call if isinstance(call, int) else None,
        result=message.get("result"),
        error=None if error is None else str(error),
        message=str(message.get("message") or ""),
        place=None if place is None else str(place),
        lacks=tuple(map(str, lacks)) if isinstance(lacks := message.get("lacks"), list) else (),
    )
