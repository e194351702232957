"""Labelled quality: has the share of wrong answers risen above the reference's?

Only labels that were drawn at random count. The default is a CUSUM whose threshold knows how sure
the reference is (`ztom.statistics.cusum`). The option ``e_process`` asks for evidence that the
share lies above what the reference's share is at most, at 80 %: anytime-valid, so that one may look
after every label; it takes longer to see a slow decay, because what went well before counts too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from ztom.drift.config import QualityConfig
from ztom.drift.findings import DriftFinding, Signal
from ztom.drift.observations import Observation
from ztom.statistics.cusum import Characteristics, CusumDesign, characteristics, threshold
from ztom.statistics.sequential import log_evidence_below

#: Confidence of the bound that the e-process is tested against.
_BOUND = 0.8


class QualityState(BaseModel):
    """What is kept from window to window.

    Attributes:
        statistic: The CUSUM.
        labels: Number of labels of each window so far, within the horizon.
        wrong: Number of wrong answers so far.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    statistic: float = Field(default=0.0, ge=0.0)
    labels: tuple[int, ...] = ()
    wrong: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class QualityMonitor:
    """The labelled monitor.

    Attributes:
        config: Options of it.
        wrong: Number of wrong answers in the reference.
        total: Number of labels in the reference, at least 1.
        horizon: Number of windows that alpha is for.
        seed: Seed of the simulations.
    """

    config: QualityConfig
    wrong: int
    total: int
    horizon: int
    seed: int

    def look(
        self, state: QualityState, rows: Sequence[Observation]
    ) -> tuple[DriftFinding, QualityState]:
        """The finding of a window, and the state after it.

        Args:
            state: State before the window.
            rows: Observations of the window.
        """
        judged = [row.correct for row in rows if row.random and row.correct is not None]
        wrong, total = judged.count(False), len(judged)
        if len(state.labels) == self.horizon:  # alpha is spent: the next horizon has its own
            state = QualityState(statistic=state.statistic)
        after = QualityState(
            statistic=self._design.step(state.statistic, wrong=wrong, total=total),
            labels=(*state.labels, total),
            wrong=state.wrong + wrong,
        )
        words = f"{wrong} of {total} labelled answers are wrong" if total else "no labels"
        now = self._cusum(after) if self.config.method == "cusum" else self._e_process(after)
        return now.model_copy(update={"sentence": f"{words}: {now.sentence}"}), after

    def promises(self, labels: int | None = None) -> Characteristics:
        """False alarms and delays of the CUSUM.

        Args:
            labels: Number of labels a window; the number that is planned by default.
        """
        counts = [self.config.labels if labels is None else labels] * self.horizon
        return characteristics(self._design, counts, decay=self.config.decay)

    @property
    def _design(self) -> CusumDesign:
        return CusumDesign(
            self.wrong,
            self.total,
            rise=self.config.rise,
            alpha=self.config.alpha,
            horizon=self.horizon,
            seed=self.seed,
        )

    def _cusum(self, state: QualityState) -> DriftFinding:
        planned = [self.config.labels] * (self.horizon - len(state.labels))
        limit = threshold(self._design, [*state.labels, *planned])
        over = state.statistic > limit
        relation = "above" if over else "within"
        return DriftFinding(
            signal=Signal.QUALITY,
            test="cusum",
            is_alarm=over,
            sentence=f"evidence of a rise {state.statistic:.2f}, {relation} {limit:.2f} "
            f"(reference: {self.wrong} of {self.total})",
            value=state.statistic,
            limit=limit,
        )

    def _e_process(self, state: QualityState) -> DriftFinding:
        from scipy.stats import beta  # takes a moment

        bound = float(beta.ppf(_BOUND, self.wrong + 1, max(self.total - self.wrong, 0.5)))
        total = sum(state.labels)
        # that the share of wrong answers lies above a bound: that of right ones lies below its rest
        value = float(log_evidence_below(total, total - state.wrong, 1.0 - bound)) if total else 0.0
        limit = math.log(1.0 / self.config.alpha)
        over = value > limit
        return DriftFinding(
            signal=Signal.QUALITY,
            test="e_process",
            is_alarm=over,
            sentence=f"log evidence of more than {bound:.3f} wrong {value:.2f}, "
            f"{'above' if over else 'within'} {limit:.2f}",
            value=value,
            limit=limit,
        )
