"""How often the tests of a release err, and how many requests it takes them to see a worsening.

    python benchmarks/rollout.py [--runs 2000] [--every 25] [--seed 0]

Releases of made-up candidates, decided by the real controller, which looks at all counts after
every 25 of the candidate's requests (a tenth more, once that is more). Stable fails 1 % of its
requests and answers 0.5 % with nothing; both sides' latencies are log-normal with a median of 0.5 s
and a p95 of about 1 s; they disagree by 0.2 on average, stable with itself by 0.15. Errors of the
tests themselves are wanted in 5 % (alpha) of whole releases at most:

- *same*: a candidate just like stable, the default plan from shadow to promotion;
- *at the margin*: its error rate is higher by exactly what is allowed, the case in which both a
  rollback and a promotion are mistakes and most likely ones, the error rate alone being tested;
- *worse*: by how much is said, in a canary step at 25 %.

A run ends undecided after 5,000 requests of the candidate, all steps together. No Ray, no clock.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ztom.rollout.observations import (
    BOUNDARIES_S,
    ArmCounts,
    Comparison,
    LatencyHistogram,
    StepObservations,
)
from ztom.rollout.plan import ReleasePlan, ReleaseStep, StepKind, parse_plan
from ztom.rollout.release import decide, wanted_traffic
from ztom.rollout.state import ReleaseContext, ReleaseState, ReleaseStatus

MEDIAN_S = 0.5
SPREAD = 0.4
MOST_REQUESTS = 5_000
CANARY = {"steps": [{"canary": 25}, {"canary": 100}]}


@dataclass(frozen=True)
class Side:
    """A made-up variant."""

    errors: float = 0.01
    empty: float = 0.005
    slower: float = 1.0

    @property
    def latencies(self) -> NDArray[np.float64]:
        """Probability of each bucket of the histogram."""
        marks = np.log(np.array(BOUNDARIES_S) / (MEDIAN_S * self.slower)) / SPREAD
        return np.diff(ndtr(marks), prepend=0.0, append=1.0)

    def answer(self, requests: int, rng: np.random.Generator) -> ArmCounts:
        """What is counted of some requests."""
        errors = int(rng.binomial(requests, self.errors))
        counts = rng.multinomial(requests - errors, self.latencies)
        return ArmCounts(
            requests=requests,
            errors=errors,
            empty=int(rng.binomial(requests - errors, self.empty)),
            latency=LatencyHistogram(counts=tuple(counts.tolist())),
        )


STABLE = Side()


def observe(
    step: ReleaseStep, candidate: Side, *, every: int, rng: np.random.Generator
) -> StepObservations:
    """What comes in while the candidate gets some requests."""
    shadow = step.kind is StepKind.SHADOW
    others = every if shadow else round(every * (100.0 - step.percent) / step.percent)
    compared = floor = Comparison()
    if shadow:
        compared, floor = (
            Comparison(n=every, disagreement=float(rng.beta(2 * mean, 2 - 2 * mean, every).sum()))
            for mean in (0.2, 0.15)
        )
    return StepObservations(
        candidate=candidate.answer(every, rng),
        stable=STABLE.answer(others, rng),
        compared=compared,
        floor=floor,
    )


def release(
    plan: ReleasePlan, candidate: Side, *, every: int, rng: np.random.Generator
) -> tuple[ReleaseStatus, int]:
    """One whole release; returns its end and the candidate's requests until then."""
    state, requests, observations = ReleaseState(started=True), 0, StepObservations()
    while not state.finished and requests < MOST_REQUESTS:
        step = state.step
        more = max(every, observations.candidate.requests // 10)
        observations += observe(plan.steps[step], candidate, every=more, rng=rng)
        requests += more
        context = ReleaseContext(
            plan=plan,
            observations=observations,
            seconds_since_last_tick=1.0,
            traffic=wanted_traffic(plan, state),
        )
        state = decide(context, state).state
        if state.step != step:
            observations = StepObservations()
    return state.status, requests


def report(name: str, plan: ReleasePlan, candidate: Side, options: argparse.Namespace) -> None:
    """Run many releases and print one line."""
    started = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    ends = [release(plan, candidate, every=options.every, rng=rng) for _ in range(options.runs)]
    counted = Counter(status for status, _ in ends)
    shares = [
        100.0 * counted[status] / len(ends)
        for status in (ReleaseStatus.ROLLED_BACK, ReleaseStatus.PROMOTED)
    ]
    requests = [n for status, n in ends if status is not ReleaseStatus.RUNNING]
    median = f"{np.median(requests):,.0f}" if len(requests) > len(ends) / 2 else "-"
    print(
        f"{name:34} {shares[0]:11.1f} {shares[1]:9.1f} {100.0 - sum(shares):10.1f} {median:>9} "
        f"{time.perf_counter() - started:6.0f}",
        flush=True,
    )


def main() -> None:
    """Print one line per made-up candidate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--every", type=int, default=25, help="the candidate's requests per look")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    timing = {"min_seconds": 0, "max_seconds": 1e9}
    errors_only = {"empty": None, "latency": None, "disagreement": None}
    whole, canary = parse_plan(timing), parse_plan({**CANARY, **timing})
    errors = parse_plan({**timing, "checks": errors_only})
    no_margin = parse_plan({**timing, "checks": {**errors_only, "error_rate": 0.0}})
    margin = whole.steps[0].checks.error_rate or 0.0
    print(f"percent of {options.runs} releases; median of the candidate's requests to the end")
    print(
        f"{'candidate':34} {'rolled back':>11} {'promoted':>9} {'undecided':>10} "
        f"{'requests':>9} {'s':>6}"
    )
    report("same", whole, STABLE, options)
    report("same, at a margin of 0", no_margin, STABLE, options)
    report("at the margin", errors, Side(errors=STABLE.errors + margin), options)
    for points in (5, 10, 20):
        worse = Side(errors=STABLE.errors + points / 100.0)
        report(f"worse: {points} points more errors", canary, worse, options)
    report("worse: 10 points more empty", canary, Side(empty=0.105), options)
    for ratio in (1.5, 2.0, 3.0):
        report(f"worse: {ratio:g} times as slow", canary, Side(slower=ratio), options)


if __name__ == "__main__":
    main()
