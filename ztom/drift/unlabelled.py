"""What can be seen without labels: what requests take, how sure the model is, who disagrees.

**Effort** (tokens, seconds, cost): higher by more than a share, and by more than chance (Mann and
Whitney), is an alarm.

**Disagreement** with another version, beyond what the same model disagrees with itself: bounds that
hold at any time (`ztom.statistics.sequential`) decide.

**Confidence**, calibrated on the reference's labels, estimates how many answers are right. It never
is an alarm and never reassures: it assumes that wrong answers of new kinds are as unsure as those
of known kinds, and of a fall of 24 points through new classes it saw 7.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztom.drift.config import DisagreementConfig, EffortConfig
from ztom.drift.findings import DriftFinding, Signal
from ztom.drift.observations import Observation
from ztom.statistics.proportions import holm
from ztom.statistics.sequential import Sums, lower_bound
from ztom.statistics.two_samples import Floats, higher

_FEWEST = 20
_PRIOR = 1e-3  # keeps the calibration finite where answers are told apart without an error
_CERTAIN = 1e-6


def effort(
    config: EffortConfig,
    reference: Sequence[Observation],
    rows: Sequence[Observation],
    *,
    horizon: int,
) -> tuple[DriftFinding, ...]:
    """The findings of tokens, seconds and cost; of each only where it was recorded.

    Args:
        config: The options.
        reference: Observations of the reference.
        rows: Observations of the window.
        horizon: Number of windows that alpha is for.
    """
    units = {"tokens": "tokens", "latency_s": "s", "cost": "of cost"}
    pairs = {name: (_numbers(reference, name), _numbers(rows, name)) for name in units}
    pairs = {name: pair for name, pair in pairs.items() if min(map(len, pair)) >= _FEWEST}
    p_values = holm([higher(*pair) for pair in pairs.values()])
    limit = config.alpha / horizon
    findings = []
    for (name, pair), p_value in zip(pairs.items(), p_values, strict=True):
        before, now = (float(np.median(numbers)) for numbers in pair)
        findings.append(
            DriftFinding(
                signal=Signal.EFFORT,
                test=name,
                is_alarm=p_value <= limit and now > before * (1.0 + config.increase),
                sentence=f"a request takes {now:.4g} {units[name]} in the median, "
                f"{before:.4g} before",
                p_value=p_value,
                value=now,
                limit=limit,
            )
        )
    return tuple(findings)


def disagreement(config: DisagreementConfig, sums: Sums) -> DriftFinding | None:
    """The finding of answers of another version; None without any.

    Args:
        config: The options.
        sums: Number of answers compared so far, and of those that differ.
    """
    if sums.mean is None:
        return None
    least = lower_bound(sums, config.alpha)
    allowed = config.floor + config.margin
    return DriftFinding(
        signal=Signal.DISAGREEMENT,
        test="versions",
        is_alarm=least > allowed,
        sentence=f"{sums.total:.0f} of {sums.n} answers differ from the other version's: at least "
        f"{least:.3f}, {allowed:.3f} is allowed",
        value=sums.mean,
        limit=allowed,
    )


def differing(rows: Sequence[Observation]) -> Sums:
    """Number of answers that can be compared, and of those that differ."""
    pairs = [
        row.answer.strip() != row.other_answer.strip()
        for row in rows
        if row.answer is not None and row.other_answer is not None
    ]
    return Sums(n=len(pairs), total=float(sum(pairs)))


def confidence(
    reference: Sequence[Observation], rows: Sequence[Observation]
) -> DriftFinding | None:
    """The estimated share of right answers; None without confidences, or labels to calibrate on.

    Args:
        reference: Observations of the reference.
        rows: Observations of the window.
    """
    judged = [row for row in reference if row.confidence is not None and row.correct is not None]
    sure = _numbers(rows, "confidence")
    if min(len(judged), len(sure)) < _FEWEST:
        return None
    right = np.array([bool(row.correct) for row in judged], dtype=np.float64)
    slope = _calibration(_logits(_numbers(judged, "confidence")), right)
    estimate = float(_share(slope, _logits(sure)).mean())
    return DriftFinding(
        signal=Signal.CONFIDENCE,
        test="calibrated",
        is_alarm=False,
        sentence=f"the model's confidence says {estimate:.1%} right ({right.mean():.1%} before), "
        "if answers to new kinds of requests are as unsure as wrong answers were: no test",
        value=estimate,
    )


def _calibration(logits: Floats, right: Floats) -> Floats:
    """Intercept and slope of a logistic regression (Platt 1999), shape (2,)."""
    from scipy.optimize import minimize  # takes a moment

    columns = np.stack([np.ones_like(logits), logits], axis=1)

    def loss(slope: Floats) -> tuple[float, Floats]:
        share = np.clip(_share(slope, logits), _CERTAIN, 1.0 - _CERTAIN)
        value = -(right * np.log(share) + (1.0 - right) * np.log(1.0 - share)).sum()
        gradient = columns.T @ (share - right) + 2.0 * _PRIOR * slope
        return float(value + _PRIOR * slope @ slope), gradient

    return np.asarray(minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B").x)


def _share(slope: Floats, logits: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(slope[0] + slope[1] * logits, -30.0, 30.0))))


def _logits(confidences: Floats) -> Floats:
    inside = np.clip(confidences, _CERTAIN, 1.0 - _CERTAIN)
    return np.asarray(np.log(inside / (1.0 - inside)))


def _numbers(rows: Sequence[Observation], name: str) -> Floats:
    values = [getattr(row, name) for row in rows]
    return np.array([value for value in values if value is not None], dtype=np.float64)
