"""How many items would it take? Sample sizes for the gate's tests.

By the normal approximation, a one-sided test at alpha sees a true gap with probability ``power`` on

    n = ((z_(1 - alpha) s_0 + z_power s_1) / gap)^2

items, s_1 being the standard deviation of one item and s_0 the same if the truth were the value
tested against. For a difference of paired answers, s^2 is the share of items on which they differ,
less the difference squared (Connor 1987, "Sample size for testing differences in proportions for
the paired-sample design"). It is a plan, not a promise: the figures it goes by are estimates.
"""

from __future__ import annotations

import math

import scipy

#: Chance to come to a decision that sample sizes are planned with.
POWER = 0.8
#: More items than this times the present number are not in sight.
FARTHEST = 1000
_ROUNDING = 1e-9


def items_needed(
    gap: float,
    *,
    spread: float,
    spread_at_threshold: float,
    alpha: float,
    power: float = POWER,
    limit: int | None = None,
) -> int | None:
    """Items that a one-sided test needs to see a gap; None: more than ``limit``.

    Where next to nothing varies the normal approximation asks for too few; what is needed at
    least is that a share as large as the gap would not stay unseen: (1 - gap)^n <= alpha.

    Args:
        gap: True value minus the value tested against; its sign does not matter.
        spread: Standard deviation of one item.
        spread_at_threshold: The same if the truth were the value tested against.
        alpha: Level of the test.
        power: Chance to see it.
        limit: No more than this.
    """
    gap = abs(gap)
    if gap <= _ROUNDING:
        return None
    spreads = (
        float(scipy.special.ndtri(1.0 - alpha)) * spread_at_threshold
        + float(scipy.special.ndtri(power)) * spread
    )
    unseen = math.log(alpha) / math.log1p(-gap) if gap < 1.0 else 1.0
    # Less the rounding, so that 100 does not become 101.
    needed = max(1, math.ceil(max((spreads / gap) ** 2, unseen) * (1.0 - _ROUNDING)))
    return None if limit is not None and needed > limit else needed


def items_needed_paired(
    difference: float,
    *,
    discordance: float,
    margin: float,
    alpha: float,
    power: float = POWER,
    limit: int | None = None,
) -> int | None:
    """Items that show whether a paired difference lies above -margin; None: more than ``limit``.

    Args:
        difference: Difference, candidate minus champion, as supposed.
        discordance: Share of items on which they differ, or mean squared difference of an item.
        margin: Largest loss of the candidate that is allowed.
        alpha: Level of the one-sided test.
        power: Probability of showing it.
        limit: Largest number of items that is tried.
    """
    return items_needed(
        difference + margin,
        spread=math.sqrt(max(0.0, discordance - difference**2)),
        spread_at_threshold=math.sqrt(max(0.0, max(discordance, margin) - margin**2)),
        alpha=alpha,
        power=power,
        limit=limit,
    )
