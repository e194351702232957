"""Racing: a blend that is clearly worse than the best one so far is not asked the rest.

Where there are many stimuli they are answered in blocks. After each block but the last the
differences to the incumbent's errors, stimulus by stimulus, are looked at (F-Race, Birattari et al.
2002, with one opponent): the trial ends early where their mean is above z standard errors. Of N
stimuli k were drawn without putting back, so

    D = sum_i w_i (e_i - e*_i) / sum_i w_i                                                  (eq. 1)
    s^2 = (1 - k / N) / (k (k - 1)) sum_i (w_i (e_i - e*_i - D) / mean w)^2                 (eq. 2)

with weights w_i that the error function gives the stimuli (tokens, or 1). What a stopped trial
leaves is an estimate, the incumbent's error plus D; it never becomes the answer.

Blocks and their order depend on the number of stimuli and the seed alone: a study repeats itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ztom.statistics.scores import Floats

#: Blocks that the stimuli are cut into, and the least stimuli of one: an engine's batch.
_BLOCKS, _LEAST = 8, 64


class RacingConfig(BaseModel):
    """Whether clearly worse blends are stopped early.

    Attributes:
        from_stimuli: Number of search stimuli from which on trials race; 0 never lets them.
        standard_errors: A trial ends when it is worse than the best by so many standard errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_stimuli: int = Field(default=256, ge=0)
    standard_errors: float = Field(default=3.0, ge=1, le=100, allow_inf_nan=False)


@dataclass(frozen=True)
class Incumbent:
    """The best blend so far, on every stimulus.

    Attributes:
        number: Number of its trial.
        error: Error on the whole set.
        per_stimulus: Error of each stimulus, in their order.
    """

    number: int
    error: float
    per_stimulus: tuple[float, ...]

    def __str__(self) -> str:
        return f"trial {self.number}"


@dataclass(frozen=True)
class Race:
    """How a study's trials race.

    Attributes:
        blocks: Places of the stimuli of each block, in the order in which they are answered.
        standard_errors: Standard errors above which a trial is stopped.
    """

    blocks: tuple[tuple[int, ...], ...]
    standard_errors: float


@dataclass(frozen=True)
class Margin:
    """Where a trial stands against the incumbent.

    Attributes:
        difference: Mean difference of the errors, above 0 where the trial is worse. (eq. 1)
        standard_error: Standard error of the difference. (eq. 2)
    """

    difference: float
    standard_error: float

    def is_worse(self, standard_errors: float) -> bool:
        """Whether the trial is worse beyond so many standard errors."""
        return self.difference > standard_errors * self.standard_error


def make_race(config: RacingConfig, stimuli: int, *, seed: int) -> Race | None:
    """Blocks of a study's stimuli; None where they are too few to race.

    Args:
        config: Number of stimuli to race from, and how sure a stop has to be.
        stimuli: Number of stimuli of the search set.
        seed: Seed that the order is drawn from.
    """
    if not config.from_stimuli or stimuli < max(config.from_stimuli, 2 * _LEAST):
        return None
    order = np.random.default_rng(seed).permutation(stimuli)
    size = max(_LEAST, math.ceil(stimuli / _BLOCKS))
    cut = tuple(
        tuple(int(i) for i in order[start : start + size]) for start in range(0, stimuli, size)
    )
    return Race(cut, config.standard_errors)


def margin_to(
    errors: Floats, places: Sequence[int], incumbent: Incumbent, *, weights: Floats
) -> Margin:
    """Where a trial stands after some stimuli.

    Args:
        errors: Errors of the trial on them, float64, shape (answered,).
        places: Places of these stimuli among all.
        incumbent: The best so far.
        weights: Weight of each of these stimuli, positive float64, shape (answered,).
    """
    count, total = len(places), len(incumbent.per_stimulus)
    differences = errors - np.asarray(incumbent.per_stimulus)[list(places)]
    mean = float(np.average(differences, weights=weights))  # (eq. 1)
    residuals = weights * (differences - mean) / weights.mean()
    left = 1 - count / total
    variance = left * float(residuals @ residuals) / (count * max(1, count - 1))  # (eq. 2)
    return Margin(mean, math.sqrt(variance))
