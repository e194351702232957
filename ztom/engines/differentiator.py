"""Derivatives of the errors of one model over one chain, with what is kept from call to call."""

from __future__ import annotations

from collections.abc import Sequence

from ztom.engines.derivatives import differentiate
from ztom.engines.factor_steps import FactorSteps
from ztom.engines.losses import LossInputs, LossSet
from ztom.engines.pristine import HeldChain
from ztom.engines.protocol import DerivativeMode, Derivatives
from ztom.scoring.differentiable import LossTerm
from ztom.stimuli.records import Stimulus

_Sets = Sequence[tuple[Sequence[Stimulus], Sequence[LossTerm]]]


class Differentiator:
    """Takes derivatives of the blend that the model holds; texts are tokenised once.

    Args:
        held: The chain that the model's weights are blended from.
        inputs: The model, and what it is given stimuli with.
    """

    def __init__(self, held: HeldChain, inputs: LossInputs) -> None:
        self._inputs = inputs
        self._steps = FactorSteps(inputs.model, held)
        self._factors = held.chain.factor_count
        self._sets: _Sets | None = None
        self._prepared: list[list[LossSet]] = []

    def take(self, sets: _Sets, *, mode: DerivativeMode) -> list[Derivatives]:
        """Errors and their derivatives by every factor; see `Differentiates.differentiate`."""
        if self._sets is None or self._sets != sets:
            self._prepared = [
                [self._inputs.prepare(stimuli, term) for term in terms] for stimuli, terms in sets
            ]
            self._sets = sets
        return differentiate(
            self._inputs.model, self._steps, self._factors, self._prepared, mode=mode
        )
