"""How much of a search's gain each step of the chain is: the answer without that step's factor.

``gain_i = m(answer with alpha_i = 0) - m(answer)``, m being the surrogate's posterior mean. Steps
act together, so the gains need not add up to the whole. With groups of tensors, all factors of a
step are put back to 0 at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ztom.search.space import Factors
from ztom.search.surrogate import Surrogate


class StepGain(BaseModel):
    """What one step of the answer is worth.

    Attributes:
        name: Name of the step.
        gain: Rise of the estimated error when the factors of this step alone are put back to 0;
            below 0 they do harm.
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
        names: Name of each step.
    """
    trained, width = (0.0,) * len(answer), len(answer) // len(names)
    steps = [answer[i : i + width] for i in range(0, len(answer), width)]
    without = [
        answer[: i * width] + (0.0,) * width + answer[(i + 1) * width :] for i in range(len(steps))
    ]
    means, _ = surrogate.posterior([answer, trained, *without])
    whole = float(means[1] - means[0])
    gains = [
        float(mean - means[0]) if any(step) else 0.0
        for step, mean in zip(steps, means[2:], strict=True)
    ]
    return tuple(
        StepGain(name=name, gain=gain, share=gain / whole if whole > 0 else None)
        for name, gain in zip(names, gains, strict=True)
    )
