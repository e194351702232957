"""Share of the achievable gain that each sampler finds, on errors that are known.

    python benchmarks/samplers.py [--samplers gp,optuna_gp] [--families quadratic,cubic] \
        [--factors 4,8,16] [--noise 0,0.03,0.1] [--seeds 24] [--jobs 2] [--table]

The families are those of `sampler_problems`, and ``chain``: the demo's chain of five checkpoints,
trained on the first run, each evaluation made by the torch engine. An evaluation carries normal
noise of a share of the gain. The protocol is the real one: two baselines, start-up, 50 evaluations,
three confirmations, the answer; the share is computed from the answer's error without noise. No
Ray. ``--tolerance 0.01`` lets searches stop early, as they do by default; comparisons of samplers
are made without.

Every run is appended to a file of JSON lines, and what is in there is not run again: interrupt it
and go on at will. It says beforehand how many hours the rest will take. ``--table`` prints what is
in the file and runs nothing; differences are paired by seed and stand with the lower end of their
one-sided 95 % interval (Student's t).

The samplers ``botorch`` (qLogNoisyExpectedImprovement), ``turbo`` (TuRBO-1) and ``nevergrad``
(NGOpt) need packages that this project does without; install botorch and nevergrad into a folder of
their own and name it in PYTHONPATH.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sampler_chain import chain_problem
from sampler_peers import PEERS, build_peer
from sampler_problems import FAMILIES, Problem, make_problem
from sampler_table import print_tables

from ztom.ledger import TrialKind, TrialOutcome, TrialRecord, TrialStatus
from ztom.search.protocol import Evaluate, Plan, Stop, StudyState, choose, next_decision
from ztom.search.samplers.build import build_sampler, startup_count, startup_scale
from ztom.search.samplers.protocol import Sampler, SamplerConfig
from ztom.search.space import SearchSpace

EVALUATIONS = 50
LIMIT = 0.1
#: Seconds of a search on one core of 2026, by sampler and factors, until the file knows better.
SECONDS = {
    "optuna_gp": (4.0, 9.0, 19.0),
    "botorch": (40.0, 50.0, 70.0),
    "turbo": (30.0, 30.0, 40.0),
}


@dataclass(frozen=True)
class Case:
    """A search to run.

    Attributes:
        sampler: Name of the sampler.
        family: Family of the problem.
        factors: Number of factors.
        noise: Standard deviation of an evaluation's noise, as a share of the gain.
        seed: Seed of the problem, the noise and the sampler.
        tolerance: Share of the gain at which it stops.
    """

    sampler: str
    family: str
    factors: int
    noise: float
    seed: int
    tolerance: float


def run(case: Case, folder: Path) -> dict[str, object]:
    """One whole search, as a line of the file.

    Args:
        case: The search.
        folder: Folder that evaluated points of the chain are kept in.
    """
    problem = _problem(case, folder)
    space = SearchSpace(
        tuple(f"step {i}" for i in range(case.factors)),
        (-LIMIT,) * case.factors,
        (LIMIT,) * case.factors,
    )
    config = SamplerConfig(name="optuna_gp" if case.sampler in PEERS else case.sampler)
    plan = Plan(
        space=space,
        evaluations=EVALUATIONS,
        startup=startup_count(config, space, EVALUATIONS),
        startup_scale=startup_scale(config),
        seed=case.seed,
    )
    started = time.process_time()
    trials, reason, thinking = _search(case, problem, plan)
    choice = choose(plan, trials)
    factors = plan.space.trained if choice is None else choice.factors
    error = problem.error(np.array(factors) / LIMIT)
    return {
        **asdict(case),
        "share": (problem.trained - error) / problem.gain,
        "error": error,
        "evaluations": len(trials),
        "stop": reason,
        "thinking_s": thinking,
        "cpu_s": time.process_time() - started,
    }


def _problem(case: Case, folder: Path) -> Problem:
    if case.family == "chain":
        return chain_problem(case.factors, folder)
    return make_problem(case.family, case.factors, case.seed)


def _sampler(case: Case, space: SearchSpace) -> Sampler:
    if case.sampler in PEERS:
        return build_peer(case.sampler, space, seed=case.seed)
    config = SamplerConfig(name=case.sampler)
    return build_sampler(config, space, seed=case.seed, tolerance=case.tolerance)


def _search(case: Case, problem: Problem, plan: Plan) -> tuple[list[TrialRecord], str, float]:
    """The trials, why they ended, and CPU seconds that proposing points took."""
    rng = np.random.default_rng((case.seed, 1))
    sampler = _sampler(case, plan.space)
    trials: list[TrialRecord] = []
    thinking, converged = 0.0, False
    while True:
        decision = next_decision(plan, trials, StudyState(converged=converged))
        if not isinstance(decision, Evaluate):
            break
        started = time.process_time()
        point = decision.factors or sampler.ask(len(trials))
        thinking += time.process_time() - started
        if point is None:
            converged = True
            continue
        noise = case.noise * problem.gain * rng.standard_normal()
        error = problem.error(np.array(point) / LIMIT) + noise
        sampler.tell(len(trials), point, error=error, violations=())
        trials.append(_finished(len(trials), decision.kind, point, error))
    sampler.close()
    return trials, decision.reason if isinstance(decision, Stop) else "", thinking


def _finished(
    number: int, kind: TrialKind, factors: tuple[float, ...], error: float
) -> TrialRecord:
    return TrialRecord(
        study_id=0,
        number=number,
        kind=kind,
        factors=factors,
        status=TrialStatus.FINISHED,
        asked=2 * number,
        told=2 * number + 1,
        outcome=TrialOutcome(error=error),
    )


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    """Seed by seed, so that what is there at any time compares samplers on the same problems."""
    for seed, family, factors, noise, sampler in itertools.product(
        range(options.first_seed, options.first_seed + options.seeds),
        options.families.split(","),
        map(int, options.factors.split(",")),
        map(float, options.noise.split(",")),
        options.samplers.split(","),
    ):
        if family != "chain" or factors in (4, 16):
            yield Case(sampler, family, factors, noise, seed, options.tolerance)


def _read(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _key(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row[name] for name in Case.__dataclass_fields__)


def _hours(cases: Sequence[Case], rows: Sequence[dict[str, object]]) -> float:
    """CPU hours of the cases, from runs of the same sampler and size where there are any."""
    known: dict[tuple[object, object], list[float]] = {}
    for row in rows:
        known.setdefault((row["sampler"], row["factors"]), []).append(float(str(row["cpu_s"])))

    def seconds(case: Case) -> float:
        past = known.get((case.sampler, case.factors))
        sizes = SECONDS.get(case.sampler, (1.0, 1.0, 1.5))
        return float(np.mean(past)) if past else sizes[min(case.factors // 8, 2)]

    return sum(map(seconds, cases)) / 3600


def main() -> None:
    """Run what is not in the file yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samplers", default="gp,optuna_gp,cobyqa,cobyla,cmaes,tpe,random")
    parser.add_argument("--families", default="quadratic", help=f"of {FAMILIES} and chain")
    parser.add_argument("--factors", default="4,8,16")
    parser.add_argument("--noise", default="0.1", help="shares of the gain")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="the others follow it")
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--file", type=Path, default=Path("runs/samplers.jsonl"))
    parser.add_argument("--table", action="store_true", help="only print what is in the file")
    options = parser.parse_args()
    rows = _read(options.file)
    if not options.table:
        done = set(map(_key, rows))
        cases = [case for case in _cases(options) if _key(asdict(case)) not in done]
        hours = _hours(cases, rows)
        print(f"{len(cases)} searches, about {hours:.1f} CPU hours, {options.jobs} at a time")
        options.file.parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(options.jobs) as pool, options.file.open("a") as lines:
            for future in as_completed(
                [pool.submit(run, case, options.file.parent) for case in cases]
            ):
                lines.write(json.dumps(future.result()) + "\n")
                lines.flush()
        rows = _read(options.file)
    print_tables(rows)


if __name__ == "__main__":
    main()
