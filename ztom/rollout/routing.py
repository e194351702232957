"""The routing table: which variant answers a request.

An *alias* is the model name that clients write. Its route names a stable variant, perhaps a canary
with its share of the traffic, perhaps a shadow that gets copies of requests, and rules by which
single customers get a variant of their own. A table is a value: changes make a new one, and a
request is routed by one table from beginning to end.

Who gets the canary follows from a hash of the alias, of the release (of the canary, where it is set
by hand) and of what identifies the caller, so a caller stays where they are while the share is the
same, and nobody leaves the canary when it grows. The gateway hashes the caller with a secret first
(`serve_apps.gateway.callers`): nobody works out a value that gets the canary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.errors import ConfigError
from ztom.io.problems import check_model

ALIAS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
#: Characters of a digest in a variant's id.
SHORT = 12
_SHORTEST = 8

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class TrafficRole(StrEnum):
    """Why a variant answered."""

    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"
    RULE = "rule"
    PINNED = "pinned"


class Match(BaseModel):
    """Some of the requests; what is given has to fit, and something must be.

    Attributes:
        header: Name of a header, in lower case.
        value: Value that the header has to have.
        key: Id of the API key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    header: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,100}$")
    value: str | None = Field(default=None, min_length=1, max_length=1000)
    key: str | None = Field(default=None, min_length=1, max_length=100)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.header is None) != (self.value is None):
            raise ValueError("a rule by header takes header and value")
        if self.header is None and self.key is None:
            raise ValueError("a rule needs a header and its value, or a key")
        return self

    def fits(self, headers: Mapping[str, str], key: str | None) -> bool:
        """Whether a request is one of those."""
        by_header = self.header is None or headers.get(self.header) == self.value
        return by_header and (self.key is None or self.key == key)

    @property
    def whom(self) -> tuple[str | None, str | None, str | None]:
        """Header, value and key."""
        return self.header, self.value, self.key


class RoutingRule(Match):
    """Requests that get a variant of their own.

    Attributes:
        variant: Digest of the variant.
    """

    variant: Digest


class Route(BaseModel):
    """Where the requests of one alias go.

    Attributes:
        stable: Digest of the variant that answers unless something else is said.
        previous: Digest of the variant that was stable before, kept running for a rollback.
        canary: Digest of the variant that answers a share of the requests.
        canary_percent: Percent of the requests that canary answers, 0 to 100.
        shadow: Digest of the variant that gets copies; users never see its answers.
        shadow_percent: Percent of the requests that shadow gets copies of, 0 to 100.
        rules: Rules in their order; the first that fits is taken.
        release: Id of the release that moves the traffic, with the number of its step.
        project: Id of the project whose members may call it; everybody may where there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stable: Digest
    previous: Digest | None = None
    canary: Digest | None = None
    canary_percent: Percent = 0.0
    shadow: Digest | None = None
    shadow_percent: Percent = 0.0
    rules: tuple[RoutingRule, ...] = Field(default=(), max_length=1000)
    release: str | None = None
    step: int = Field(default=0, ge=0)
    project: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.canary is None and self.canary_percent > 0:
            raise ValueError("a canary share without a canary")
        if self.shadow is None and self.shadow_percent > 0:
            raise ValueError("a shadow rate without a shadow")
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """Every variant it names, once."""
        named: list[str | None] = [self.stable, self.canary, self.shadow, self.previous]
        named += [rule.variant for rule in self.rules]
        return tuple(dict.fromkeys(digest for digest in named if digest is not None))


class Placement(BaseModel):
    """Where a variant runs.

    Attributes:
        name: Model name of the variant.
        app: Name of the Ray Serve application.
        deployment: Name of the Serve deployment in it that runs the variant.
        folder: Folder of the variant; an engine that adapters share loads it from there.
        timeout_s: Seconds until an answer must have begun.
        current: Digest of the variant that the application should answer with, where weights can be
            swapped in it.
        project: Id of the project whose members may call it; everybody may where there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=ALIAS_PATTERN)
    app: str
    deployment: str
    folder: str
    timeout_s: float = Field(default=60, gt=0, le=3600)
    current: Digest | None = None
    project: str | None = None


class RoutingTable(BaseModel):
    """Everything a gateway needs to know.

    Attributes:
        routes: Routes by alias.
        placements: Placements of the variants that are ready, by digest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    routes: dict[Annotated[str, Field(pattern=ALIAS_PATTERN)], Route] = Field(default_factory=dict)
    placements: dict[Digest, Placement] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _everything_named_is_placed(self) -> Self:
        for alias, route in self.routes.items():
            missing = [digest[:SHORT] for digest in route.variants if digest not in self.placements]
            if missing:
                raise ValueError(f"{alias} names variants that do not run: {', '.join(missing)}")
        return self

    def with_route(self, alias: str, route: Route | None) -> RoutingTable:
        """The table with another route for the alias; None takes the alias away."""
        routes = {name: route_there for name, route_there in self.routes.items() if name != alias}
        if route is not None:
            routes[alias] = route
        return self._check(routes=dict(sorted(routes.items())), placements=self.placements)

    def with_placement(self, digest: str, placement: Placement | None) -> RoutingTable:
        """The table with a variant that runs there; None takes it away."""
        placements = {
            placed: where for placed, where in self.placements.items() if placed != digest
        }
        if placement is not None:
            placements[digest] = placement
        return self._check(routes=self.routes, placements=dict(sorted(placements.items())))

    @property
    def used(self) -> frozenset[str]:
        """Every variant that some route names."""
        return frozenset(digest for route in self.routes.values() for digest in route.variants)

    @staticmethod
    def _check(**content: object) -> RoutingTable:
        return check_model(RoutingTable, content, wrong="the routing table does not hold together")


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant that answers a request.

    Attributes:
        digest: Digest of the variant.
        placement: Place in which the variant runs.
        role: Reason for this variant.
        alias: Alias that was asked for, where it was one.
        shadow: Digest of the variant that gets a copy.
        release: Id of the release that moves the route's traffic.
        step: Number of the release's step.
        project: Id of the project whose members may ask.
    """

    digest: str
    placement: Placement
    role: TrafficRole
    alias: str | None = None
    shadow: str | None = None
    release: str | None = None
    step: int = 0
    project: str | None = None


def choose(
    table: RoutingTable,
    model: str,
    *,
    caller: str,
    request: str,
    headers: Mapping[str, str],
    key: str | None = None,
) -> Choice | None:
    """Route one request.

    Args:
        table: Routing table that is in use.
        model: Text that the client wrote: an alias, ``alias@digest``, or a variant's id.
        caller: Text that stays with the same variant: a keyed hash of the API key with a header's
            value or a user, or the request itself.
        request: Id of the request; decides on the copy for the shadow.
        headers: Headers of the request by name in lower case.
        key: Id of the API key.

    Returns:
        None when no such model is served.
    """
    route = table.routes.get(model)
    if route is None:
        return _pinned(table, model)
    for rule in route.rules:
        if rule.fits(headers, key):
            return _choice(table, model, route, rule.variant, TrafficRole.RULE)
    whose = f"{model}\0{route.release or route.canary}"
    if route.canary is not None and bucket(whose, caller) < route.canary_percent:
        return _choice(table, model, route, route.canary, TrafficRole.CANARY, request)
    return _choice(table, model, route, route.stable, TrafficRole.STABLE, request)


def bucket(alias: str, caller: str) -> float:
    """A number from 0 to 100, evenly spread and always the same for a caller of an alias."""
    hashed = hashlib.sha256(f"{alias}\0{caller}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(hashed[:8], "big") / 2**64 * 100.0


def variant_id(name: str, digest: str) -> str:
    """How a variant is called in answers: its name, and the start of its digest."""
    return f"{name}@{digest[:SHORT]}"


def find_variant(table: RoutingTable, text: str) -> str | None:
    """The digest of the variant that runs under this id (``name@digest``), digest or start of one.

    Returns:
        None when there is none, or more than one.
    """
    name, _, start = text.rpartition("@")
    if len(start) < _SHORTEST or not all(c in "0123456789abcdef" for c in start):
        return None
    matches = [digest for digest in table.placements if digest.startswith(start)]
    if len(matches) != 1:
        return None
    digest = matches[0]
    if not name or name == table.placements[digest].name:
        return digest
    route = table.routes.get(name)
    return digest if route is not None and digest in route.variants else None


def _pinned(table: RoutingTable, model: str) -> Choice | None:
    digest = find_variant(table, model)
    if digest is None:
        return None
    alias = model.rpartition("@")[0]
    return Choice(
        digest=digest,
        placement=table.placements[digest],
        role=TrafficRole.PINNED,
        alias=alias if alias in table.routes else None,
        project=table.placements[digest].project,
    )


def _choice(
    table: RoutingTable, alias: str, route: Route, digest: str, role: TrafficRole, request: str = ""
) -> Choice:
    copied = role is TrafficRole.STABLE and route.shadow not in (None, digest)
    copied = copied and bucket(alias, f"shadow\0{request}") < route.shadow_percent
    return Choice(
        digest=digest,
        placement=table.placements[digest],
        role=role,
        alias=alias,
        shadow=route.shadow if copied else None,
        release=route.release if role in (TrafficRole.STABLE, TrafficRole.CANARY) else None,
        step=route.step,
        project=route.project,
    )


def promoted(route: Route, digest: str) -> Route:
    """The route once a variant is its stable one; what was stable is kept for a rollback."""
    previous = route.stable if route.stable != digest else route.previous
    return Route(stable=digest, previous=previous, rules=route.rules, project=route.project)


def rolled_back(route: Route) -> Route:
    """The route without its candidate; without one, with what was stable before.

    Raises:
        ConfigError: There is nothing to go back from.
    """
    if route.canary is not None or route.shadow is not None:
        return Route(
            stable=route.stable,
            previous=route.previous,
            rules=route.rules,
            project=route.project,
        )
    if route.previous is None:
        raise ConfigError(
            "there is nothing to roll back to",
            got="no candidate, and no variant that was stable before",
        )
    return Route(
        stable=route.previous, previous=route.stable, rules=route.rules, project=route.project
    )
