"""Errors that are no finite numbers are refused, by the names of their stimuli."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztom.errors import ScoringError
from ztom.statistics.scores import Floats
from ztom.stimuli.records import Stimulus


def check_finite(errors: Floats, stimuli: Sequence[Stimulus], *, function: str) -> None:
    """Refuse NaN and infinite errors, naming the stimuli they belong to.

    Raises:
        ScoringError: There is no stimulus, or an error is not a finite number.
    """
    if errors.size == 0:
        raise ScoringError(f"{function} was given no stimuli", expected="at least one")
    bad = np.flatnonzero(~np.isfinite(errors))
    if bad.size:
        names = ", ".join(stimuli[i].id for i in bad[:3])
        raise ScoringError(
            f"{function} is not a finite number for {bad.size} of {errors.size} stimuli",
            got=f"{errors[bad[0]]} (first: {names})",
            expected="finite errors",
            fix="The blend may have overflowed; a smaller scaling factor limit avoids that.",
        )
