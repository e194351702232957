"""Endpoints: which variant answers under an alias, and for how much of its traffic."""

from __future__ import annotations

from ztom.rollout.routing import Match, Percent, RoutingTable, variant_id
from ztom.wire import examples
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.examples import example

_STABLE = f"support@{examples.OTHER_DIGEST[:12]}"
_CANARY = f"support@{examples.DIGEST[:12]}"


class TrafficShares(WireRequest):
    """Other shares of the candidate, in percent; None leaves one as it is."""

    model_config = example(canary=25, shadow=100)

    canary: Percent | None = None
    shadow: Percent | None = None


class EndpointChange(WireRequest):
    """A change of an endpoint; `version` is that of the table that its author looked at."""

    model_config = example(version=12)

    version: int | None = None


class RuleMatch(Match):
    """The rule that is to be taken away, by the requests that it is for."""

    model_config = example(header="x-customer", value="acme")


class EndpointRule(WireAnswer):
    """Requests that get a variant of their own.

    Attributes:
        header: Name of a header, in lower case.
        value: What the header has to say.
        key: Id of the API key.
        variant: Id of the variant.
    """

    header: str | None
    value: str | None
    key: str | None
    variant: str


class Endpoint(WireAnswer):
    """An alias, and where its requests go. Variants are named by their ids, ``name@digest``.

    Attributes:
        version: Of the routing table; it grows with each change.
        stable: The variant that answers unless something else is said.
        canary: The variant that answers a share.
        canary_percent: Share of the requests, 0 to 100.
        shadow: The variant that gets copies; users never see its answers.
        shadow_percent: Share of the requests that are copied, 0 to 100.
        previous: What was stable before, kept running for a rollback.
        rules: The first that fits is taken.
        release: Id of the release that moves the traffic.
    """

    model_config = example(
        alias="support",
        version=12,
        stable=_STABLE,
        canary=_CANARY,
        canaryPercent=25.0,
        shadow=None,
        shadowPercent=0.0,
        previous=None,
        rules=[{"header": "x-customer", "value": "acme", "key": None, "variant": _CANARY}],
        release="9c3e51d7",
    )

    alias: str
    version: int
    stable: str
    canary: str | None
    canary_percent: float
    shadow: str | None
    shadow_percent: float
    previous: str | None
    rules: tuple[EndpointRule, ...]
    release: str | None

    @classmethod
    def of(cls, alias: str, version: int, table: RoutingTable) -> Endpoint:
        """The endpoint in a routing table.

        Args:
            alias: Of the endpoint.
            version: Of the table.
            table: With a route for the alias.
        """
        route = table.routes[alias]

        def named(digest: str | None) -> str | None:
            return None if digest is None else _variant_id(table, digest)

        return cls(
            alias=alias,
            version=version,
            stable=_variant_id(table, route.stable),
            canary=named(route.canary),
            canary_percent=route.canary_percent,
            shadow=named(route.shadow),
            shadow_percent=route.shadow_percent,
            previous=named(route.previous),
            rules=tuple(
                EndpointRule(
                    header=rule.header,
                    value=rule.value,
                    key=rule.key,
                    variant=_variant_id(table, rule.variant),
                )
                for rule in route.rules
            ),
            release=route.release,
        )


def _variant_id(table: RoutingTable, digest: str) -> str:
    return variant_id(table.placements[digest].name, digest)
