"""Places: how many requests are in work at once, on each side of the server and by each caller.

A request gets its place when it is known who sends it, before a byte of its body is read, and gives
it back when its answer has been sent. One side that is full leaves the others alone, and one caller
who holds all of their places leaves the other callers' alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_apps.control_plane.addresses import client_address, client_scheme
from serve_apps.control_plane.errors import BUSY, problem
from serve_apps.control_plane.limit_settings import LimitSettings

#: Under this name of a request's scope stand its `Terms`.
TERMS = "ztom.terms"
#: Answers whatever else goes on.
ALWAYS_ANSWERED = "/health"

_CREDENTIALS = (b"authorization", b"x-api-key")


class ServerSide(StrEnum):
    """A side of the server, by what its requests are called."""

    ANONYMOUS = "requests without an account"
    CONTROL = "requests"
    MODELS = "requests to models"
    STREAMS = "event streams"
    WAITS = "waiting calls"


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many places a side has.

    Attributes:
        total: Number of places for all callers.
        own: Number of places that one caller may hold.
    """

    total: int
    own: int


class Places:
    """Counts who holds which places; one event loop takes and gives them back.

    Args:
        capacities: Capacity of each side.
    """

    def __init__(self, capacities: Mapping[ServerSide, Capacity]) -> None:
        self._capacities = capacities
        self._total: Counter[ServerSide] = Counter()
        self._own: Counter[tuple[ServerSide, str]] = Counter()

    @classmethod
    def of(cls, settings: LimitSettings) -> Self:
        """The places that the operator has set."""
        return cls(
            {
                ServerSide.ANONYMOUS: Capacity(
                    settings.anonymous_requests, settings.anonymous_requests_per_address
                ),
                ServerSide.CONTROL: Capacity(settings.max_requests, settings.requests_per_caller),
                ServerSide.MODELS: Capacity(
                    settings.max_model_requests, settings.model_requests_per_caller
                ),
                ServerSide.STREAMS: Capacity(settings.max_streams, settings.streams_per_caller),
                ServerSide.WAITS: Capacity(settings.max_waits, settings.waits_per_caller),
            }
        )

    def capacity(self, side: ServerSide) -> Capacity:
        """The capacity of a side."""
        return self._capacities[side]

    def held(self, side: ServerSide, caller: str) -> int:
        """Number of places that a caller holds on a side."""
        return self._own[side, caller]

    def take(self, side: ServerSide, caller: str) -> None:
        """Take a place.

        Args:
            side: Side on which the place is.
            caller: Id of the account, or address of who has none.

        Raises:
            HTTPException: 429, the caller holds all places that one may hold; 503, or 429 to
                clients of models, all places are taken.
        """
        capacity = self._capacities[side]
        if self._own[side, caller] >= capacity.own:
            raise HTTPException(429, _all_held(side, capacity.own), headers=BUSY)
        if self._total[side] >= capacity.total:
            # to clients of models, too many requests at once are too many requests
            status = 429 if side is ServerSide.MODELS else 503
            raise HTTPException(status, "The server is busy.", headers=BUSY)
        self._total[side] += 1
        self._own[side, caller] += 1

    def give_back(self, side: ServerSide, caller: str) -> None:
        """Give a place back."""
        self._total[side] -= 1
        self._own[side, caller] -= 1
        if not self._own[side, caller]:
            del self._own[side, caller]


@dataclass(slots=True)
class Terms:
    """What one request may use.

    Attributes:
        address: Address that it came from.
        is_known: Whether it is known who sends it: only then its body may be long.
    """

    places: Places
    address: str
    is_known: bool = False
    _held: list[tuple[ServerSide, str]] = field(default_factory=list)
    _at_end: list[Callable[[], None]] = field(default_factory=list)

    def enter(self, side: ServerSide, caller: str) -> None:
        """Take a place, once a side; see `Places.take`."""
        if (side, caller) in self._held:
            return
        self.places.take(side, caller)
        self._held.append((side, caller))

    def enter_unknown(self) -> None:
        """Take a place for somebody who has no account; see `Places.take`."""
        self.enter(ServerSide.ANONYMOUS, self.address)

    def enter_known(self, side: ServerSide, caller: str) -> None:
        """Take a place for an account, instead of a stranger's; see `Places.take`."""
        self.leave()
        self.enter(side, caller)
        self.is_known = True

    def leave(self) -> None:
        """Give every place back."""
        while self._held:
            self.places.give_back(*self._held.pop())

    def at_end(self, release: Callable[[], None]) -> None:
        """Have a function called when the request has ended."""
        self._at_end.append(release)

    def end(self) -> None:
        """Give back everything that was held for the request."""
        self.leave()
        for release in self._at_end:
            release()


class PlaceKeeper:
    """Gives each request its terms, and takes its places back when it has ended.

    A request that names no account takes its place here, one that does where that is checked.

    Args:
        app: ASGI application that gets the requests.
        places: Places of the server.
        settings: Settings that name the operator's proxies.
    """

    def __init__(self, app: ASGIApp, *, places: Places, settings: LimitSettings) -> None:
        self._app = app
        self._places = places
        self._trusted = frozenset(settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        terms = Terms(self._places, client_address(scope, trusted=self._trusted))
        scope[TERMS] = terms
        scope["scheme"] = client_scheme(scope)
        try:
            if not _names_an_account(scope) and scope["path"] != ALWAYS_ANSWERED:
                terms.enter_unknown()
        except HTTPException as error:
            answer = problem(error.status_code, error.detail, error.headers, path=scope["path"])
            await answer(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            terms.end()


def _names_an_account(scope: Scope) -> bool:
    return any(name in _CREDENTIALS for name, _ in scope["headers"])


def _all_held(side: ServerSide, count: int) -> str:
    whose = "your address has" if side is ServerSide.ANONYMOUS else "your account has"
    return (
        f"{count} of {count} {side} that {whose} at once are in work. "
        "Wait until one of them has ended, then send it again."
    )
