"""Which variant answers: aliases, canaries, shadows, rules, pins."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ztom.errors import ConfigError
from ztom.rollout.routing import (
    Placement,
    Route,
    RoutingRule,
    RoutingTable,
    TrafficRole,
    bucket,
    choose,
    promoted,
    rolled_back,
    variant_id,
)

A, B, C = (letter * 64 for letter in "abc")


def table(route: Route, *, names: dict[str, str] | None = None) -> RoutingTable:
    placements = {
        digest: Placement(
            name=(names or {}).get(digest, "toy"), app=f"v-{digest[:4]}", deployment="v", folder="/"
        )
        for digest in (A, B, C)
    }
    return RoutingTable(routes={"support": route}, placements=placements)


def ask(where: RoutingTable, model: str = "support", caller: str = "ada", **more):
    more = {"request": "r1", "headers": {}, **more}
    return choose(where, model, caller=caller, **more)


def test_an_alias_goes_to_its_stable_variant() -> None:
    choice = ask(table(Route(stable=A)))
    assert (choice.digest, choice.role, choice.alias) == (A, TrafficRole.STABLE, "support")
    assert ask(table(Route(stable=A)), "other") is None


def test_the_canary_gets_its_share_and_callers_stay() -> None:
    callers = [f"user-{i}" for i in range(4000)]
    shares = []
    for percent in (0.0, 5.0, 25.0, 50.0, 100.0):
        where = table(Route(stable=A, canary=B, canary_percent=percent))
        chosen = {caller for caller in callers if ask(where, caller=caller).digest == B}
        assert abs(len(chosen) / len(callers) * 100 - percent) < 2.5
        assert chosen == {c for c in callers if ask(where, caller=c, request="r2").digest == B}
        shares.append(chosen)
    for smaller, larger in pairwise(shares):
        assert smaller <= larger, "somebody left the canary when it grew"
    assert not shares[0]
    assert shares[-1] == set(callers)


@given(st.text(), st.text())
def test_buckets_are_percentages(alias: str, caller: str) -> None:
    assert 0.0 <= bucket(alias, caller) < 100.0


def test_the_shadow_copies_stable_requests_only() -> None:
    where = table(Route(stable=A, canary=B, canary_percent=50, shadow=B, shadow_percent=30))
    copied = 0
    for i in range(3000):
        choice = ask(where, caller=f"u{i}", request=f"r{i}")
        assert choice.shadow in (None, B)
        assert choice.role is TrafficRole.STABLE or choice.shadow is None
        copied += choice.shadow is not None
    assert abs(copied / 1500 - 0.3) < 0.05


def test_rules_come_first_by_header_and_key() -> None:
    rules = (
        RoutingRule(header="x-customer", value="acme", variant=C),
        RoutingRule(key="k7", variant=B),
    )
    where = table(Route(stable=A, rules=rules))
    assert ask(where, headers={"x-customer": "acme"}).digest == C
    assert ask(where, headers={"x-customer": "acme"}).role is TrafficRole.RULE
    assert ask(where, headers={"x-customer": "other"}).digest == A
    assert ask(where, key="k7").digest == B
    both = Route(stable=A, rules=(RoutingRule(header="a", value="b", key="k", variant=C),))
    assert ask(table(both), headers={"a": "b"}).digest == A
    assert ask(table(both), headers={"a": "b"}, key="k").digest == C


@pytest.mark.parametrize(
    "bad", [{}, {"header": "a"}, {"value": "b"}, {"header": "A b", "value": "x"}]
)
def test_rules_that_say_nothing_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        RoutingRule(variant=A, **bad)


def test_versions_are_named_by_alias_name_or_digest() -> None:
    where = table(Route(stable=A, canary=B, canary_percent=1), names={C: "acme"})
    assert ask(where, f"support@{B[:12]}").digest == B
    assert ask(where, f"support@{B[:12]}").role is TrafficRole.PINNED
    assert ask(where, variant_id("acme", C)).digest == C
    assert ask(where, C).digest == C
    assert ask(where, f"support@{C[:12]}") is None, "not a version of this alias"
    assert ask(where, "support@bbb") is None, "too short to mean anything"
    assert ask(where, "support@" + "d" * 12) is None


def test_an_ambiguous_start_of_a_digest_names_nothing() -> None:
    twins = ["a" * 63 + "1", "a" * 63 + "2"]
    placement = Placement(name="toy", app="x", deployment="v", folder="/")
    where = RoutingTable(placements=dict.fromkeys(twins, placement))
    assert ask(where, "toy@" + "a" * 12) is None
    assert ask(where, twins[0]).digest == twins[0]


def test_what_a_route_names_must_run() -> None:
    with pytest.raises(ConfigError, match="do not run"):
        table(Route(stable=A)).with_route("new", Route(stable="d" * 64))
    with pytest.raises(ConfigError, match="do not run"):
        table(Route(stable=A)).with_placement(A, None)


@pytest.mark.parametrize("percent", [-1, 101, float("nan"), float("inf"), "many"])
def test_shares_are_percentages(percent: object) -> None:
    with pytest.raises(ValidationError):
        RoutingTable.model_validate(
            {"routes": {"s": {"stable": A, "canary": B, "canary_percent": percent}}}
        )


def test_misspelt_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="canray"):
        RoutingTable.model_validate({"routes": {"s": {"stable": A, "canray": B}}})


def test_promotion_and_rollback() -> None:
    route = Route(stable=A, canary=B, canary_percent=5, rules=(RoutingRule(key="k", variant=C),))
    after = promoted(route, B)
    assert (after.stable, after.previous, after.canary, after.rules) == (B, A, None, route.rules)
    back = rolled_back(after)
    assert (back.stable, back.previous) == (A, B)
    assert rolled_back(route).stable == A
    assert rolled_back(route).canary is None
    with pytest.raises(ConfigError, match="nothing to roll back"):
        rolled_back(Route(stable=A))


def test_a_table_survives_json() -> None:
    where = table(Route(stable=A, canary=B, canary_percent=12.5))
    assert RoutingTable.model_validate(where.model_dump(mode="json")) == where
