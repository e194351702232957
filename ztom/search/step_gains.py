"""How much of a search's gain each step of the chain is: the answer without that step's factor.

``gain_i = m(answer with alpha_i = 0) - m(answer)``, m being the surrogate's posterior mean. Steps
act together, so the gains need not add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ztom.search.space import Factors
from ztom.search.surrogate import Surrogate


class StepGain(BaseModel):
    """What one factor of the answer is worth.

    Attributes:
        name: Name of the step.
        gain: Rise of the estimated error when this factor alone is put back to 0; below 0 the
            factor does harm.
        share: The same as a share of the answer's whole estimated gain; None where there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    gain: float
    share: float | None


def step_gains(surrogate: Surrogate, answer: Factors, names: Sequence[str]) -> tuple[StepGain, ...]:
    """One entry for each step, in the chain's order.

    Args:
        surrogate: Surrogate that was fitted to the study's trials.
        answer: Scaling factors that the search came to.
        names: Name of each factor.
    """
    trained = (0.0,) * len(answer)
    without = [answer[:i] + (0.0,) + answer[i + 1 :] for i in range(len(answer))]
    means, _ = surrogate.posterior([answer, trained, *without])
    whole = float(means[1] - means[0])
    gains = [
        float(mean - means[0]) if factor else 0.0
        for factor, mean in zip(answer, means[2:], strict=True)
    ]
    return tuple(
        StepGain(name=name, gain=gain, share=gain / whole if whole > 0 else None)
        for name, gain in zip(names, gains, strict=True)
    )
