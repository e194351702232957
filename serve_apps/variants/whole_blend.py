"""A blend that always yields every tensor once, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from ztom.blending.plan import BlendPlan
from ztom.engines.pristine import HeldChain


class WholeBlend:
    """A `HeldChain` whose blend does not stop at an error but goes on with another blend.

    Args:
        held: The chain.
        instead: Planned from the same chain; supplies the tensors from the one that failed on.

    Attributes:
        failure: What went wrong; empty if nothing did.
    """

    def __init__(self, held: HeldChain, instead: BlendPlan) -> None:
        self.failure = ""
        self._held = held
        self._instead = instead

    @property
    def bytes_read(self) -> int:
        """As `HeldChain.bytes_read`."""
        return self._held.bytes_read

    def plan(self, factors: Sequence[float]) -> BlendPlan:
        """As `HeldChain.plan`."""
        return self._held.plan(factors)

    def blend(self, plan: BlendPlan) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of the plan, once.

        Raises:
            BlendError: The other blend fails too.
        """
        done = 0
        try:
            for pair in self._held.blend(plan):
                yield pair
                done += 1
        except Exception as error:  # whatever it is, the reload must come to its end
            self.failure = f"{type(error).__name__}: {error}"
        if self.failure:
            yield from self._held.blend(
                replace(self._instead, tensors=self._instead.tensors[done:])
            )
