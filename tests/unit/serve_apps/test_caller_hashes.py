"""Callers are known by a hash that takes the server's secret."""

from __future__ import annotations

from serve_apps.gateway.callers import CallerHashes
from ztom.rollout.routing import Placement, Route, RoutingTable, TrafficRole, choose

A, B = "a" * 64, "b" * 64


def table(release: str | None = None) -> RoutingTable:
    placement = Placement(name="toy", app="v", deployment="v", folder="/")
    route = Route(stable=A, canary=B, canary_percent=50, release=release)
    return RoutingTable(routes={"support": route}, placements={A: placement, B: placement})


def canaries(hashes: CallerHashes, key: str, release: str | None = None) -> frozenset[str]:
    """Sticky values of a key that get the canary."""
    return frozenset(
        value
        for value in map(str, range(64))
        if choose(
            table(release),
            "support",
            caller=hashes.sticky(key, value),
            request="r",
            headers={},
        ).role
        is TrafficRole.CANARY
    )


def test_a_value_that_gets_the_canary_is_good_for_one_key_one_release_and_one_server() -> None:
    hashes = CallerHashes(b"secret")
    aimed = canaries(hashes, "mallory", "r1")
    assert aimed == canaries(CallerHashes(b"secret"), "mallory", "r1"), "requests stay there"
    others = (
        canaries(hashes, "ada", "r1"),
        canaries(hashes, "mallory", "r2"),
        canaries(CallerHashes(b"another"), "mallory", "r1"),
    )
    assert len({aimed, *others}) == 4


def test_a_caller_is_told_apart_and_not_by_name() -> None:
    hashes = CallerHashes(b"secret")
    names = {hashes.caller(f"key-{number}") for number in range(1000)}
    assert len(names) == 1000
    assert all(len(name) == 16 and "key" not in name for name in names)
    assert hashes.caller("k") != CallerHashes(b"other").caller("k")
