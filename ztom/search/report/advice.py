"""What to try next, derived from a result alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ztom.pages.formats import count, name, number, percent, setting, visible
from ztom.scoring.proof import GuardrailOutcome, ProofOutcome
from ztom.search.result import Proof, SearchResult
from ztom.statistics.bootstrap import Interval, fewest_groups

#: A realised step below this share of the intended one is a warning.
LOW_STEP = 0.5
_AT_BOUND = 0.01
_NAMED = 5
_MOST_STIMULI = 1_000_000


@dataclass(frozen=True)
class Advice:
    """One thing to try.

    Attributes:
        what: Action to take.
        why: Reason for it in the result.
    """

    what: str
    why: str


def advise(result: SearchResult) -> tuple[Advice, ...]:
    """What the numbers suggest doing next, the most useful first."""
    parts = [
        _existing(result),
        _proof(result),
        _precision(result),
        _bounds(result),
        _budget(result),
        _trials(result),
    ]
    pieces = tuple(advice for part in parts for advice in part)
    return pieces or (Advice("Nothing stands out.", "No number of this search asks for a change."),)


def at_bound(result: SearchResult) -> tuple[bool, ...]:
    """Whether each factor's best value lies within 1 % of the range from one of its bounds."""
    pairs = zip(result.optimized_scaling_factors, result.factor_bounds, strict=True)
    return tuple(
        min(value - low, high - value) <= _AT_BOUND * (high - low) for value, (low, high) in pairs
    )


def stimuli_needed(interval: Interval, stimuli: int) -> int | None:
    """Holdout stimuli at which the interval's lower end meets zero: n (half width / estimate)^2.

    None when no number of stimuli would do: nothing was gained, or the interval means nothing.
    """
    if interval.estimate <= 0 or interval.groups < fewest_groups(interval.confidence):
        return None
    half = (interval.high - interval.low) / 2
    needed = stimuli * (half / interval.estimate) ** 2
    return math.ceil(needed) if math.isfinite(needed) else None


def _existing(result: SearchResult) -> Iterator[Advice]:
    best = result.best_existing
    if result.advice is not None and best is not None:
        yield Advice(
            f"Use checkpoint {name(best.name)}, or search further from the trained model.",
            f"{visible(best.reason)}. A larger limit lets the search reach past it.",
        )


def _proof(result: SearchResult) -> Iterator[Advice]:
    proof = result.proof
    if proof is None:
        yield Advice(
            "Prove it on a holdout.",
            "The best of many trials looks better than it is; only stimuli that the search never "
            "saw can tell by how much.",
        )
        return
    failed = [r.name for r in proof.decision.guardrails if r.outcome is GuardrailOutcome.FAIL]
    outcome, zero = proof.decision.outcome, not any(result.optimized_scaling_factors)
    if failed:
        yield Advice(
            "Put stimuli like those of the guardrails into the search, or allow a larger increase.",
            f"On the holdout these guardrails failed: {_list(failed)}.",
        )
    elif outcome is ProofOutcome.NO_IMPROVEMENT:
        yield Advice(
            "Try another error function, other search stimuli, or another chain.",
            "The model as trained was the best blend found: nothing in this chain moves this error."
            if zero
            else "What helped on the search set did not help on stimuli that it had not seen.",
        )
    elif outcome is ProofOutcome.INCONCLUSIVE:
        yield _more_holdout(proof)
    gain = proof.decision.improvement.estimate
    if not zero and result.improvement > 0 and 0 <= gain < result.improvement / 2:
        yield Advice(
            "Search on more stimuli.",
            f"The gain on the search set, {number(result.improvement, digits=3)}, is more than "
            f"twice that on the holdout, {number(gain, digits=3)}: part of it is fitted to the "
            "search set.",
        )
    if outcome is ProofOutcome.IMPROVED and proof.variant is not None:
        yield Advice("Serve the variant.", f"ztom serve {name(proof.variant)}")


def _more_holdout(proof: Proof) -> Advice:
    interval, stimuli = proof.decision.improvement, len(proof.errors_before)
    what = "Prove it again on more holdout stimuli, new ones."
    fewest = fewest_groups(interval.confidence)
    if interval.groups < fewest:
        return Advice(
            what, f"There are {interval.groups} independent groups of them; {fewest} are the least."
        )
    undecided = [
        rail for rail in proof.decision.guardrails if rail.outcome is GuardrailOutcome.INCONCLUSIVE
    ]
    if interval.low > 0 and undecided:
        names = _list([rail.name for rail in undecided])
        return Advice("Give the guardrails more holdout stimuli.", f"Not decided: {names}.")
    needed = stimuli_needed(interval, stimuli)
    if needed is None:
        return Advice(
            "Try another error function, or other search stimuli.",
            "The estimate on the holdout is not above zero: more holdout stimuli alone are "
            "unlikely to show an improvement.",
        )
    if needed > _MOST_STIMULI:
        why = "the gain, if there is one, is too small to be shown with any practical number"
        return Advice("Look for a larger gain.", f"With {count(stimuli)} holdout stimuli {why}.")
    return Advice(
        what,
        f"If the true gain is the estimate of {number(interval.estimate, digits=3)}, about "
        f"{count(needed)} stimuli instead of {count(stimuli)} would bring the interval's lower end "
        "to zero; twice as many would put it above zero about four times out of five.",
    )


def _precision(result: SearchResult) -> Iterator[Advice]:
    proof = result.proof
    if proof is None or proof.realised is None or proof.realised >= LOW_STEP:
        return
    if proof.dtype != "float32":
        yield Advice(
            "Deploy in float32.",
            f"In {name(proof.dtype)} only {percent(proof.realised)} of the intended change reached "
            "the weights; the rest was rounded away. A larger limit helps as well.",
        )


def _bounds(result: SearchResult) -> Iterator[Advice]:
    stuck = [n for n, is_at in zip(result.factor_names, at_bound(result), strict=True) if is_at]
    if stuck:
        limit = max(max(-low, high) for low, high in result.factor_bounds)
        yield Advice(
            f"Raise the limit, say from {setting(limit)} to {setting(2 * limit)}.",
            f"{len(stuck)} of {len(result.factor_names)} factors ended at a bound: {_list(stuck)}.",
        )


def _budget(result: SearchResult) -> Iterator[Advice]:
    if result.stop_reason == "interrupted":
        yield Advice("Resume the study.", "It was interrupted before its budget was used up.")
    if result.stop_reason == "time":
        yield Advice("Give it more time.", "Time ran out before the budget of evaluations did.")
    explored = [t for t in result.trials if t.kind in ("startup", "search")]
    feasible = [t for t in explored if t.feasible and t.error is not None]
    if len(feasible) < 10 or result.converged or result.improvement <= (result.noise_floor or 0.0):
        return
    best = min(feasible, key=lambda t: t.error if t.error is not None else math.inf)
    if explored.index(best) >= 0.85 * len(explored):
        yield Advice(
            "Give it more evaluations.",
            f"The lowest error came at trial {best.number}, near the end: the search was still "
            "getting better.",
        )


def _trials(result: SearchResult) -> Iterator[Advice]:
    floor = result.noise_floor
    if floor is not None and 0 < result.improvement < floor:
        yield Advice(
            "Search on more stimuli, or with temperature 0.",
            f"The gain on the search set, {number(result.improvement, digits=3)}, is smaller than "
            f"the noise floor, {number(floor, digits=3)}.",
        )
    explored = [
        t
        for t in result.trials
        if t.kind not in ("baseline", "comparison") and t.status != "running"
    ]
    failed = sum(t.status == "failed" for t in explored)
    broken = sum(t.status == "finished" and not t.feasible for t in explored)
    if explored and failed >= 0.2 * len(explored):
        yield Advice(
            "Mend what fails, or try a smaller limit.",
            f"{failed} of {len(explored)} blends failed; the table of trials has the reasons.",
        )
    if explored and broken >= 0.5 * len(explored):
        yield Advice(
            "Allow a larger increase of the guardrails, or try a smaller limit.",
            f"{broken} of {len(explored)} blends broke a guardrail.",
        )


def _list(names: list[str]) -> str:
    shown = ", ".join(name(n) for n in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
