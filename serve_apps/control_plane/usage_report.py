"""What usage comes to: lines by what is asked for, with their cost, from sums of the ledger.

    cost = (busy + idle + held) / 3600 * price of an hour of a replica
         + prompt tokens / 1000 * their price + completion tokens / 1000 * theirs

The price of an hour is the one that is given, else the ``price_per_hour`` that the variant was
deployed with last. The functions are pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ztom.ledger.usage import Counter, UsageCounts, UsageDimension, UsageKey, UsageNames
from ztom.rollout.routing import SHORT, variant_id
from ztom.wire.usage import UsageBy, UsageLine

_HOUR_S = 3600.0
DIMENSIONS = {
    UsageBy.KEY: UsageDimension.KEY,
    UsageBy.PROJECT: UsageDimension.PROJECT,
    UsageBy.VARIANT: UsageDimension.VARIANT,
    UsageBy.DAY: UsageDimension.DAY,
}
Sums = Sequence[tuple[UsageKey, UsageCounts]]


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices, in whatever unit; None is no price.

    Attributes:
        hour: Price of an hour of a replica; None for what each variant was deployed with.
        prompt: Price of 1,000 tokens of prompts.
        completion: Price of 1,000 generated tokens.
    """

    hour: float | None = None
    prompt: float | None = None
    completion: float | None = None

    def cost(self, counts: UsageCounts, deployed: float | None) -> float | None:
        """What some usage of one variant costs; None where no price is known of any part.

        Args:
            counts: What was used.
            deployed: Price of an hour with which the variant was deployed.
        """
        hour = deployed if self.hour is None else self.hour
        seconds = counts.busy_s + counts.idle_s + counts.held_s
        parts = [
            (hour, seconds / _HOUR_S),
            (self.prompt, counts.prompt_tokens / 1000),
            (self.completion, counts.completion_tokens / 1000),
        ]
        known = [price * amount for price, amount in parts if price is not None]
        return sum(known) if known else None


def usage_lines(
    sums: Sums, by: Collection[UsageBy], names: UsageNames, prices: Prices
) -> tuple[UsageLine, ...]:
    """Lines of usage, told apart by what is asked for.

    Args:
        sums: Sums that are told apart by all that, and by variant, as prices are.
        by: What lines are told apart by.
        names: What ids are called, and prices of variants.
        prices: Prices that are given.
    """
    together: dict[UsageKey, tuple[UsageCounts, list[float]]] = {}
    for key, counts in sums:
        kept = replace(key, **{str(DIMENSIONS[name]): "" for name in UsageBy if name not in by})
        total, costs = together.setdefault(kept, (UsageCounts(), []))
        total.add(counts)
        cost = prices.cost(counts, names.prices.get(key.digest))
        if cost is not None:
            costs.append(cost)
    lines = [
        _line(key, counts, sum(costs) if costs else None, by, names)
        for key, (counts, costs) in together.items()
    ]
    return tuple(sorted(lines, key=_order))


def total_line(lines: Sequence[UsageLine]) -> UsageLine:
    """All lines together."""
    costs = [line.cost for line in lines if line.cost is not None]
    return UsageLine(
        requests=sum(line.requests for line in lines),
        failed=sum(line.failed for line in lines),
        prompt_tokens=sum(line.prompt_tokens for line in lines),
        completion_tokens=sum(line.completion_tokens for line in lines),
        busy_seconds=sum(line.busy_seconds for line in lines),
        idle_seconds=sum(line.idle_seconds for line in lines),
        held_seconds=sum(line.held_seconds for line in lines),
        cost=sum(costs) if costs else None,
    )


def lost_sentences(lost: Sequence[Counter]) -> tuple[str, ...]:
    """What is not counted, for people."""
    return tuple(
        f"a {counter.kind} on {counter.node} was killed after {counter.seen}: what it counted in "
        "the second or two after that is missing"
        for counter in lost
    )


def _line(
    key: UsageKey,
    counts: UsageCounts,
    cost: float | None,
    by: Collection[UsageBy],
    names: UsageNames,
) -> UsageLine:
    by_key, by_project = UsageBy.KEY in by, UsageBy.PROJECT in by
    by_variant = UsageBy.VARIANT in by
    return UsageLine(
        day=key.day if UsageBy.DAY in by else None,
        key_id=key.key_id if by_key else None,
        key=names.keys.get(key.key_id) if by_key else None,
        project_id=key.project_id if by_project else None,
        project=names.projects.get(key.project_id) if by_project else None,
        digest=key.digest if by_variant else None,
        variant=_variant(key.digest, names) if by_variant else None,
        requests=counts.requests,
        failed=counts.failed,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        busy_seconds=counts.busy_s,
        idle_seconds=counts.idle_s,
        held_seconds=counts.held_s,
        cost=cost,
    )


def _variant(digest: str, names: UsageNames) -> str:
    name = names.variants.get(digest)
    return digest[:SHORT] if name is None else variant_id(name, digest)


def _order(line: UsageLine) -> tuple[str, float, str, str, str]:
    seconds = line.busy_seconds + line.idle_seconds + line.held_seconds
    return line.day or "", -seconds, line.project_id or "", line.key_id or "", line.digest or ""
