"""How often the gate errs, and what it sees: made-up candidates, judged by the real gate.

    python benchmarks/gate_calibration.py [--runs 2000] [--seed 0] [single clusters families timing]

Champion and candidate answer the same items. They differ on 10 % of them unless said otherwise, as
two runs of one recipe may; *same* candidates win as many as they lose. alpha is 0.05. Beside the
gate stand, on the same data: *bare*, what a point threshold would pass (the metric reaches its
floor, or the drop is within the margin), and *naive*, what a bootstrap of single items instead of
clusters would (lower bound of the difference against the margin, or of the metric against its
floor; for frozen suites it passes unless the whole interval is below zero).

Wanted: wrong blocks of *same* frozen candidates in 5 % at most, wrong passes *at the margin* and
*at the floor* in 5 % at most, drops of 3 points at n = 1,000 caught in 90 % at least; a decision on
10,000 items in 2 processor seconds at most. What is missed by more than chance is said at the end,
and the exit status is 1; a rate is, where simulations of the wanted one would come to it in 1 of
1,000 cases.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome, Verdict
from ztom.evaluation.runs.results import Conditions, ItemResult, ModelRef, SuiteRun, ref_of
from ztom.evaluation.suites.suite import Item, Layer, MetricName, Suite, SuiteConfig
from ztom.statistics.proportions import PairedDifference, mcnemar

ALPHA = 0.05
CHANCE = 0.001
LONGEST_S = 2.0
Bools = NDArray[np.bool_]
CONDITIONS = Conditions(engine="made up", version="1", device="cpu", setup="none")
CANDIDATE, CHAMPION = (
    ModelRef(name=name, digest=hashlib.sha256(name.encode()).hexdigest())
    for name in ("candidate", "champion")
)


@dataclass(frozen=True)
class Wanted:
    """What a rate of outcomes has to be.

    Attributes:
        kind: Of outcome.
        percent: Of the candidates, at most.
        at_least: At least that instead.
    """

    kind: Outcome
    percent: float
    at_least: bool = False

    def is_missed(self, count: int, runs: int) -> bool:
        """Whether so many of the runs are more, or fewer, than chance makes of the wanted rate."""
        share = self.percent / 100.0
        found = binom.cdf(count, runs, share) if self.at_least else binom.sf(count - 1, runs, share)
        return float(found) < CHANCE

    def __str__(self) -> str:
        return f"{self.kind} in {self.percent:g} % at {'least' if self.at_least else 'most'}"


@dataclass
class Session:
    """What is run, and what came out wrong.

    Attributes:
        runs: Candidates of a row.
        seed: Of them.
        missed: In words.
    """

    runs: int = 2000
    seed: int = 0
    missed: list[str] = field(default_factory=list)

    def check(self, name: str, wanted: Wanted | None, ends: Counter[str]) -> None:
        """Note a row whose rate is not the wanted one."""
        if wanted and wanted.is_missed(ends[wanted.kind], self.runs):
            got = 100.0 * ends[wanted.kind] / self.runs
            self.missed.append(f"{name}: wanted {wanted}, got {got:.1f} %")


FEW_FAIL, FEW_PASS = Wanted(Outcome.FAIL, 5.0), Wanted(Outcome.PASS, 5.0)


class Bench:
    """A suite, and results on it from right and wrong answers."""

    def __init__(
        self,
        layer: Layer,
        *,
        n: int,
        cluster: int = 1,
        margin: float = 0.03,
        floor: float = 0.0,
        metric: MetricName = MetricName.EXACT_MATCH,
        name: str = "made-up",
    ) -> None:
        config = SuiteConfig(
            name=name,
            version="1.0.0",
            layer=layer,
            metric=metric,
            floor=floor,
            margin=margin,
            alpha=ALPHA,
            owner="benchmarks",
        )
        items = tuple(
            Item(id=f"{i:05}", input="", cluster_id=str(i // cluster) if cluster > 1 else None)
            for i in range(n)
        )
        self.cluster = cluster
        self.suite = Suite(config=config, items=items, digest="0" * 64)
        self._results = [[ItemResult(id=i.id, value=v) for v in (0.0, 1.0)] for i in items]

    def run(self, model: ModelRef, right: Bools) -> SuiteRun:
        """Results of a model that is right there."""
        pairs = zip(self._results, right.tolist(), strict=True)
        items = tuple(results[is_right] for results, is_right in pairs)
        return self.of(model, items)

    def of(self, model: ModelRef, items: tuple[ItemResult, ...]) -> SuiteRun:
        """Results of a model as they are given."""
        return SuiteRun(
            suite=ref_of(self.suite),
            model=model,
            key="made-up",
            conditions=CONDITIONS,
            items=items,
        )


@dataclass(frozen=True)
class World:
    """How candidates come about.

    Attributes:
        drop: Champion's true share of right answers minus the candidate's.
        discordance: Share of items on which they differ.
        right: The candidate's share of right answers.
    """

    drop: float = 0.0
    discordance: float = 0.1
    right: float = 0.8

    def draw(self, n: int, rng: np.random.Generator, *, cluster: int = 1) -> tuple[Bools, Bools]:
        """Champion's and candidate's right answers; items of a cluster share their luck.

        In clusters, whether items are lost or gained is drawn once for the whole cluster, and its
        items are right with a probability of its own.
        """
        clusters = n // cluster
        lost = (self.discordance + self.drop) / 2.0
        share = (self.right - self.discordance + lost) / (1.0 - self.discordance)
        right = np.full(clusters, share)
        if cluster > 1:
            right = rng.beta(4.0 * share, 4.0 * (1.0 - share), clusters)
        changed = rng.random(n) < self.discordance
        falls = np.repeat(rng.random(clusters) < lost / self.discordance, cluster)
        same = rng.random(n) < np.repeat(right, cluster)
        return np.where(changed, falls, same), np.where(changed, ~falls, same)


def naive_bounds(
    champion: Bools | None, candidate: Bools, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentiles of a bootstrap of single items: a resample of three kinds is a multinomial."""
    n = candidate.size
    before = np.zeros_like(candidate) if champion is None else champion
    worse, better = int(np.sum(before & ~candidate)), int(np.sum(candidate & ~before))
    drawn = rng.multinomial(n, np.array([worse, better, n - worse - better]) / n, size=2000)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / n, [ALPHA, 1.0 - ALPHA])
    return float(low), float(high)


def by_points(bench: Bench, champion: Bools, candidate: Bools) -> bool:
    """Whether a bare threshold passes it."""
    config = bench.suite.config
    drop = float(champion.mean() - candidate.mean())
    return drop <= config.margin and float(candidate.mean()) >= config.floor


def by_items(bench: Bench, champion: Bools, candidate: Bools, rng: np.random.Generator) -> bool:
    """Whether a bootstrap that knows no clusters passes it."""
    config = bench.suite.config
    low, high = naive_bounds(champion, candidate, rng)
    if config.layer is Layer.FROZEN:
        return high >= 0.0
    return low >= -config.margin and naive_bounds(None, candidate, rng)[0] >= config.floor


def report(
    name: str, bench: Bench, world: World, options: Session, wanted: Wanted | None = None
) -> None:
    """Judge many candidates and print one line."""
    started = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    ends: Counter[str] = Counter()
    for run in range(options.runs):
        champion, candidate = world.draw(len(bench.suite.items), rng, cluster=bench.cluster)
        verdict = decide(
            [bench.run(CANDIDATE, candidate)],
            [bench.run(CHAMPION, champion)],
            [bench.suite],
            seed=run,
        )
        ends[verdict.outcome] += 1
        ends["bare"] += by_points(bench, champion, candidate)
        ends["naive"] += bench.cluster > 1 and by_items(bench, champion, candidate, rng)
    options.check(name, wanted, ends)
    naive = f"{100.0 * ends['naive'] / options.runs:8.1f}" if bench.cluster > 1 else f"{'-':>8}"
    print_line(name, ends, f"{100.0 * ends['bare'] / options.runs:8.1f} {naive}", options, started)


def report_family(
    name: str,
    benches: list[Bench],
    worlds: list[World],
    options: Session,
    wanted: Wanted | None = None,
) -> None:
    """Judge candidates on several suites; print what would fail without Holm's correction, too."""
    started = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    ends: Counter[str] = Counter()
    for run in range(options.runs):
        drawn = [w.draw(len(b.suite.items), rng) for b, w in zip(benches, worlds, strict=True)]
        verdict = decide(
            [bench.run(CANDIDATE, ours) for bench, (_, ours) in zip(benches, drawn, strict=True)],
            [
                bench.run(CHAMPION, theirs)
                for bench, (theirs, _) in zip(benches, drawn, strict=True)
            ],
            [bench.suite for bench in benches],
            seed=run,
        )
        ends[verdict.outcome] += 1
        ends["raw"] += min(raw_p_values(verdict)) <= ALPHA
    options.check(name, wanted, ends)
    raw = f"{100.0 * ends['raw'] / options.runs:8.1f} {'':8}"
    print_line(name, ends, raw, options, started)


def raw_p_values(verdict: Verdict) -> Iterator[float]:
    """Of every test."""
    for suite in verdict.suites:
        yield from (f.p_value for f in suite.findings if f.p_value is not None)


def print_line(name: str, ends: Counter[str], more: str, options: Session, started: float) -> None:
    """Print shares in percent, and how long it took."""
    shares = " ".join(f"{100.0 * ends[kind] / options.runs:8.1f}" for kind in Outcome)
    print(f"{name:58} {shares} {more} {time.perf_counter() - started:5.0f}", flush=True)


def print_head(*more: str) -> None:
    """Print the head of a table."""
    names = ("pass", "fail", "open", *more)
    print(f"\n{'':58} {' '.join(f'{name:>8}' for name in names)} {'s':>5}")


def one_suite(options: Session) -> None:
    """Tables of single suites."""
    print_head("bare", "naive")
    same, drop = World(), World(drop=0.03)
    frozen = Bench(Layer.FROZEN, n=1000)
    caught = Wanted(Outcome.FAIL, 90.0, at_least=True)
    report("frozen, n 1,000: same", frozen, same, options, FEW_FAIL)
    report("frozen, n 1,000: 3 points worse", frozen, drop, options, caught)
    for told, world in (("same", same), ("3 points worse", drop)):
        fail = 100.0 * chance_to_fail(world, 1000)
        print(f"{f'   {told}, summed over all outcomes':58} {100.0 - fail:8.1f} {fail:8.1f}")
    small = Bench(Layer.FROZEN, n=100)
    report("frozen, n 100: same", small, same, options, FEW_FAIL)
    report("frozen, n 100: 3 points worse", small, drop, options)
    for margin in (0.02, 0.03, 0.04):
        task = Bench(Layer.TASK, n=1000, margin=margin)
        told = f"task, n 1,000, margin {margin:g}"
        report(f"{told}: same", task, same, options)
        ends = 100.0 * chance_to_pass(same, 1000, margin)
        print(f"{'   same, summed over all outcomes':58} {ends:8.1f} {'':8} {100.0 - ends:8.1f}")
        report(f"{told}: worse by the margin", task, World(drop=margin), options, FEW_PASS)
        if margin != drop.drop:
            report(f"{told}: 3 points worse", task, drop, options)
    floor = Bench(Layer.TASK, n=100, floor=0.7, margin=1.0)
    for right in (0.68, 0.7, 0.85):
        world = World(right=right)
        wanted = FEW_PASS if right <= 0.7 else None
        told = f"task, n 100, floor 0.7: right in {100 * right:g} %"
        report(told, floor, world, options, wanted)


def chance_to_fail(world: World, n: int) -> float:
    """Of a frozen suite, by McNemar's test."""
    return summed(world, n, lambda losses, gains: mcnemar(losses, gains) <= ALPHA)


def chance_to_pass(world: World, n: int, margin: float) -> float:
    """Of a task suite without a floor."""
    return summed(
        world, n, lambda losses, gains: PairedDifference(losses, gains, n).p_above(-margin) <= ALPHA
    )


def summed(world: World, n: int, counts: Callable[[int, int], bool]) -> float:
    """Chance of what is true of losses and gains: all outcomes but the next to impossible ones."""
    share = (world.discordance + world.drop) / 2.0 / world.discordance
    found = 0.0
    for changed in range(*binom.ppf([1e-9, 1.0 - 1e-9], n, world.discordance).astype(int)):
        losses = np.arange(changed + 1)
        those = [counts(lost, changed - lost) for lost in losses.tolist()]
        chance = binom.pmf(losses[those], changed, share).sum()
        found += float(binom.pmf(changed, n, world.discordance) * chance)
    return found


def clustered(options: Session) -> None:
    """The table of clusters."""
    print_head("bare", "naive")
    n, cluster, told = 1000, 10, "100 clusters of 10"
    frozen = Bench(Layer.FROZEN, n=n, cluster=cluster)
    report(f"frozen, {told}: same", frozen, World(), options, FEW_FAIL)
    task = Bench(Layer.TASK, n=n, cluster=cluster, margin=0.05)
    report(f"task, margin 0.05, {told}: same", task, World(), options)
    worse = World(drop=0.05)
    report(f"task, margin 0.05, {told}: worse by the margin", task, worse, options, FEW_PASS)
    few = Bench(Layer.TASK, n=n, cluster=20, margin=0.05)
    report("task, margin 0.05, 50 clusters of 20: same", few, World(), options)
    floor = Bench(Layer.TASK, n=n, cluster=cluster, floor=0.8, margin=1.0)
    at_floor = World(right=0.8)
    report(f"task, floor 0.8, {told}: right in 80 %", floor, at_floor, options, FEW_PASS)


def families(options: Session) -> None:
    """The table of several suites."""
    print_head("no Holm", "")
    for number in (5, 20):
        names = [f"suite-{i}" for i in range(number)]
        frozen = [Bench(Layer.FROZEN, n=300, margin=0.08, name=name) for name in names]
        told = f"{number} frozen suites, n 300, margin 0.08"
        report_family(f"{told}: same", frozen, [World()] * number, options, FEW_FAIL)
        one_bad = [World(drop=0.08), *[World()] * (number - 1)]
        report_family(f"{told}: one 8 points worse", frozen, one_bad, options)
        task = [Bench(Layer.TASK, n=300, margin=0.08, name=name) for name in names]
        told = f"{number} task suites, n 300, margin 0.08"
        report_family(f"{told}: one worse by the margin", task, one_bad, options, FEW_PASS)


def timing(options: Session) -> None:
    """How long one decision takes."""
    print("\nprocessor seconds for one decision on 10,000 items")
    rng = np.random.default_rng(0)
    for name, bench in (
        ("frozen, independent", Bench(Layer.FROZEN, n=10_000)),
        ("task, independent", Bench(Layer.TASK, n=10_000)),
        ("task, 5,000 clusters of 2", Bench(Layer.TASK, n=10_000, cluster=2)),
        ("task, 500 clusters of 20", Bench(Layer.TASK, n=10_000, cluster=20)),
    ):
        champion, candidate = World().draw(10_000, rng, cluster=bench.cluster)
        runs = bench.run(CANDIDATE, candidate), bench.run(CHAMPION, champion)
        time_decision(name, bench, runs, options)
    bench = Bench(Layer.FROZEN, n=10_000, metric=MetricName.ROUGE_L)
    graded = one_graded(bench, CANDIDATE, rng), one_graded(bench, CHAMPION, rng)
    time_decision("frozen, graded, every item changed", bench, graded, options)
    bench = Bench(Layer.TASK, n=10_000, metric=MetricName.MACRO_F1)
    champion, candidate = World().draw(10_000, rng)
    classes = in_classes(bench, CANDIDATE, candidate), in_classes(bench, CHAMPION, champion)
    time_decision("task, macro-F1 of 77 classes", bench, classes, options)


def one_graded(bench: Bench, model: ModelRef, rng: np.random.Generator) -> SuiteRun:
    """Results with values between 0 and 1."""
    values = rng.random(len(bench.suite.items)).tolist()
    items = (
        ItemResult(id=item.id, value=value)
        for item, value in zip(bench.suite.items, values, strict=True)
    )
    return bench.of(model, tuple(items))


def in_classes(bench: Bench, model: ModelRef, right: Bools, *, classes: int = 77) -> SuiteRun:
    """Results of a classification; what is wrong is the next class."""
    run = bench.run(model, right)
    parts = [(i % classes, (i + (not good)) % classes) for i, good in enumerate(right.tolist())]
    items = (
        item.model_copy(update={"parts": part}) for item, part in zip(run.items, parts, strict=True)
    )
    return run.model_copy(update={"items": tuple(items)})


def time_decision(
    name: str, bench: Bench, runs: tuple[SuiteRun, SuiteRun], options: Session
) -> None:
    """Print how long it takes with the candidate's and the champion's results."""
    candidate, champion = runs
    started = time.process_time()  # what else the machine does is not the gate's time
    decide([candidate], [champion], [bench.suite])
    took = time.process_time() - started
    print(f"{name:58} {took:8.2f}", flush=True)
    if took > LONGEST_S:
        options.missed.append(
            f"{name}: wanted {LONGEST_S:g} s of the processor at most, got {took:.2f} s"
        )


def main() -> int:
    """Print the tables; 1 when something wanted is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all unless given")
    given = parser.parse_args()
    session = Session(runs=given.runs, seed=given.seed)
    print(f"percent of {session.runs:,} candidates; 'open' is inconclusive and blocks, too")
    for name in given.tables or TABLES:
        TABLES[name](session)
    for told in session.missed:
        print(f"missed: {told}")
    return 1 if session.missed else 0


TABLES = {"single": one_suite, "clusters": clustered, "families": families, "timing": timing}


if __name__ == "__main__":
    sys.exit(main())
