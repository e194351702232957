"""Endpoints in a declarative file, for people who keep state in git: what is to change.

```yaml
endpoints:
  support:
    stable: {path: variants/support-4, options: {max_replicas: 2}}
    rollout: release            # how another stable variant gets in: release, now, or a plan
    candidate: {path: variants/support-5, canary: 5, shadow: 20}
    rules:
      - {header: x-customer, value: acme, path: variants/acme-1}
```

`differences` is a pure function of the file and of what is there. What is under way already, such
as a release to the wanted stable variant, is no difference; so applying a file twice changes
nothing the second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ztom.ledger.deployments import DeploymentRecord, DeploymentState
from ztom.ledger.rollouts import RolloutRecord
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import ReleasePlan
from ztom.rollout.routing import SHORT, Match, Route, RoutingTable
from ztom.wire.apply import WantedEndpoint, WantedVariant


@dataclass(frozen=True, slots=True)
class Difference:
    """One change.

    Attributes:
        alias: Alias of the endpoint.
        action: Kind of the change.
        text: The change in words, for people.
        deploy: Fields of a deployment, where one is needed.
        canary: Percent of the requests that the candidate answers, of a change of traffic.
        shadow: Percent of the requests that the candidate gets copies of, of a change of traffic.
        match: Requests that a rule which goes has matched.
    """

    alias: str
    action: Literal["deploy", "traffic", "withdraw", "unrule", "remove"]
    text: str
    deploy: Mapping[str, Any] | None = None
    canary: float | None = None
    shadow: float | None = None
    match: Match | None = None


def differences(
    wanted: Mapping[str, WantedEndpoint],
    *,
    table: RoutingTable,
    records: Sequence[DeploymentRecord],
    rollouts: Sequence[RolloutRecord],
    digest_of: Callable[[str], str],
    prune: Sequence[str] = (),
) -> list[Difference]:
    """What has to change, in the order in which it has to.

    Args:
        wanted: Endpoints that are wanted, by alias.
        table: Routing table that is in use.
        records: Deployments that are not retired.
        rollouts: Releases that are under way.
        digest_of: Function that gives the digest of the variant at a path.
        prune: Aliases that are removed when they are not wanted.
    """
    there = _There(table, records, rollouts)
    changes = []
    for alias, endpoint in wanted.items():
        changes += _of_endpoint(alias, endpoint, there, digest_of)
    changes += [
        Difference(alias, "remove", f"- {alias}: remove the endpoint")
        for alias in prune
        if alias not in wanted
    ]
    return changes


class _There:
    """What is there, and what is under way."""

    def __init__(
        self,
        table: RoutingTable,
        records: Sequence[DeploymentRecord],
        rollouts: Sequence[RolloutRecord],
    ) -> None:
        self.table = table
        self.records = {record.digest: record for record in records}
        self._rollouts = rollouts

    def intended(self, alias: str, kind: str) -> dict[str, Intent]:
        """Deployments of this alias that wait for their traffic, by digest."""
        intents = {}
        for digest, record in self.records.items():
            if record.intent is None or record.state is DeploymentState.FAILED:
                continue
            if (record.intent.alias, record.intent.kind) == (alias, kind):
                intents[digest] = record.intent
        return intents

    def candidate_of_release(self, alias: str) -> str | None:
        """What a release is about to make stable."""
        return next((r.candidate for r in self._rollouts if r.alias == alias), None)

    def is_served_so(self, digest: str, wanted: WantedVariant) -> bool:
        """Whether it runs, or starts, with these options."""
        record = self.records.get(digest)
        return (
            record is not None
            and record.state is not DeploymentState.FAILED
            and _placeless(record.options) == _placeless(wanted.options)
        )


def _of_endpoint(
    alias: str, wanted: WantedEndpoint, there: _There, digest_of: Callable[[str], str]
) -> list[Difference]:
    route = there.table.routes.get(alias)
    changes = _stable(alias, wanted, route, there, digest_of)
    changes += _candidate(alias, wanted, route, there, digest_of)
    return changes + _rules(alias, wanted, route, there, digest_of)


def _stable(
    alias: str,
    wanted: WantedEndpoint,
    route: Route | None,
    there: _There,
    digest_of: Callable[[str], str],
) -> list[Difference]:
    digest = digest_of(wanted.stable.path)
    is_there = route is not None and route.stable == digest
    coming = digest in there.intended(alias, "main") or digest == there.candidate_of_release(alias)
    if (is_there or coming) and there.is_served_so(digest, wanted.stable):
        return []
    now = is_there or wanted.rollout == "now"
    fields = _fields(wanted.stable) | ({"now": True} if now else {})
    if isinstance(wanted.rollout, ReleasePlan) and not now:
        fields["plan"] = wanted.rollout
    how = "other options" if is_there else "at once" if now or route is None else "by a release"
    text = f"+ {alias}: stable {digest[:SHORT]} ({wanted.stable.path}), {how}"
    return [Difference(alias, "deploy", text, deploy=fields)]


def _candidate(
    alias: str,
    wanted: WantedEndpoint,
    route: Route | None,
    there: _There,
    digest_of: Callable[[str], str],
) -> list[Difference]:
    present = None if route is None or route.release else route.canary or route.shadow
    candidate = wanted.candidate
    if candidate is None:
        if present is None:
            return []
        return [Difference(alias, "withdraw", f"- {alias}: candidate {present[:SHORT]}")]
    digest = digest_of(candidate.path)
    text = f"{alias}: candidate {digest[:SHORT]} ({candidate.path}), "
    text += f"canary {candidate.canary:g} %, shadow {candidate.shadow:g} %"
    waiting = there.intended(alias, "candidate").get(digest)
    if waiting is not None and _shares(waiting) == (candidate.canary, candidate.shadow):
        return []
    if present != digest or route is None or not there.is_served_so(digest, candidate):
        shares = {"canary": candidate.canary, "shadow": candidate.shadow}
        return [Difference(alias, "deploy", f"+ {text}", deploy=_fields(candidate) | shares)]
    if (route.canary_percent, route.shadow_percent) == (candidate.canary, candidate.shadow):
        return []
    return [
        Difference(alias, "traffic", f"~ {text}", canary=candidate.canary, shadow=candidate.shadow)
    ]


def _rules(
    alias: str,
    wanted: WantedEndpoint,
    route: Route | None,
    there: _There,
    digest_of: Callable[[str], str],
) -> list[Difference]:
    present = {} if route is None else {rule.whom: rule for rule in route.rules}
    waiting = {
        (intent.rule.whom, digest)
        for digest, intent in there.intended(alias, "rule").items()
        if intent.rule is not None
    }
    changes = []
    for rule in wanted.rules:
        digest, whom = digest_of(rule.path), rule.match.whom
        same = whom in present and present[whom].variant == digest
        if (same and there.is_served_so(digest, rule)) or (whom, digest) in waiting:
            continue
        text = f"+ {alias}: rule {_said(rule.match)}: {digest[:SHORT]} ({rule.path})"
        fields = _fields(rule) | {"rule": rule.match}
        changes.append(Difference(alias, "deploy", text, deploy=fields))
    kept = {rule.match.whom for rule in wanted.rules}
    for whom, existing in present.items():
        if whom not in kept:
            match = Match(header=existing.header, value=existing.value, key=existing.key)
            text = f"- {alias}: rule {_said(match)}"
            changes.append(Difference(alias, "unrule", text, match=match))
    return changes


def _fields(variant: WantedVariant) -> dict[str, Any]:
    names = ("path", "name", "options", "verdict", "insist")
    return {name: getattr(variant, name) for name in names}


def _shares(intent: Intent) -> tuple[float, float]:
    return intent.canary or 0.0, intent.shadow or 0.0


def _said(match: Match) -> str:
    header = f"{match.header}: {match.value}" if match.header else ""
    return f"{header} {f'key {match.key}' if match.key else ''}".strip()


def _placeless(options: DeployOptions) -> DeployOptions:
    """Options, whatever running application a variant is swapped into."""
    return options.model_copy(update={"swap_into": None})
