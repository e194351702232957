"""What factors for groups of tensors are worth: holdout error at equal evaluations, real chain.

    python benchmarks/factor_groups.py [--folder demo/chain] [--seeds 3] [--evaluations 50]

The demo's chain (four steps; trained when the folder has none), on the torch engine in this
process, in float32, without Ray: the protocol's own decisions, the sampler of a search, and the
answer as a search chooses it. Each arm has a factor for each step, or for each step and group; all
have the same number of evaluations, stimuli and limit. What an arm found is then evaluated once on
the holdout, which no search sees; the trained model's error stands beside it. Rows that are in
``--results`` already are not run again. With the machine to itself an arm takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ztom.blending.chain import Chain, load_chain
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups, parse_groups
from ztom.demo.chains import make_stdlib_chain
from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine, GenerationConfig
from ztom.engines.respond import respond
from ztom.ledger import TrialOutcome, TrialRecord, TrialStatus
from ztom.scoring.build import ErrorTerm, build_error
from ztom.scoring.protocol import ErrorFunction
from ztom.search.protocol import Evaluate, Plan, StudyState, choose, next_decision
from ztom.search.samplers.build import build_sampler, startup_count
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import Factors, SearchSpace
from ztom.settings import Settings
from ztom.stimuli.files import read_stimuli
from ztom.stimuli.records import Stimulus

ARMS: dict[str, object] = {
    "steps": None,
    "layers 2": {"layers": 2},
    "attention, mlp": {"kinds": ["attention", "mlp"]},
    "kinds": "kinds",
}


@dataclass(frozen=True)
class Task:
    """What is searched on, and what the answer is judged on."""

    chain: Chain
    search: tuple[Stimulus, ...]
    holdout: tuple[Stimulus, ...]
    error: ErrorFunction
    limit: float
    evaluations: int
    sampler: str


def evaluate(engine: Engine, task: Task, factors: Factors, stimuli: tuple[Stimulus, ...]) -> float:
    """The error of one blend on some stimuli."""
    engine.blend(factors)
    outputs = respond(
        engine, stimuli, needs=task.error.needs, generation=GenerationConfig(), labels=()
    )
    return float(task.error.score(stimuli, outputs).aggregate()[0])


def run(task: Task, rule: FactorGroups | None, *, seed: int) -> dict[str, object]:
    """One search, and what its answer has on the holdout."""
    chain = group_chain(task.chain, rule)
    engine = build_engine(EngineConfig(name="torch", dtype="float32", max_num_seqs=64), chain)
    count = chain.factor_count
    space = SearchSpace(
        chain.factor_names, (-task.limit,) * count, (task.limit,) * count, chain.group_names
    )
    config = SamplerConfig.model_validate({"name": task.sampler})
    sampler = build_sampler(config, space, seed=seed)
    plan = Plan(
        space=space,
        evaluations=task.evaluations,
        startup=startup_count(config, space, task.evaluations),
        seed=seed,
    )
    trials: list[TrialRecord] = []
    started = time.perf_counter()
    converged = False
    while isinstance(
        decision := next_decision(plan, trials, StudyState(converged=converged)), Evaluate
    ):
        point = decision.factors or sampler.ask(len(trials))
        if point is None:
            converged = True
            continue
        error = evaluate(engine, task, point, task.search)
        sampler.tell(len(trials), point, error=error, violations=())
        trials.append(_record(len(trials), decision, point, error))
    sampler.close()
    best = choose(plan, trials)
    if best is None:
        raise RuntimeError("the trained model could not be evaluated")
    row = {
        "factors": count,
        "evaluations": len(trials),
        "search": best.error,
        "holdout": evaluate(engine, task, best.factors, task.holdout),
        "trained": evaluate(engine, task, space.trained, task.holdout),
        "seconds": round(time.perf_counter() - started, 1),
        "groups": list(chain.group_names),
        "best": list(best.factors),
    }
    engine.close()
    return row


def _record(number: int, decision: Evaluate, factors: Factors, error: float) -> TrialRecord:
    return TrialRecord(
        study_id=0,
        number=number,
        kind=decision.kind,
        factors=factors,
        status=TrialStatus.FINISHED,
        asked=2 * number,
        told=2 * number + 1,
        outcome=TrialOutcome(error=error),
    )


def main() -> None:
    """Run what is not there yet, and print a row for each arm."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("demo/chain"))
    parser.add_argument("--results", type=Path, default=Path("runs/factor-groups.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--sampler", default="gp")
    parser.add_argument("--arms", default=",".join(ARMS).replace("attention, mlp", "attention+mlp"))
    options = parser.parse_args()
    demo = make_stdlib_chain(options.folder)
    settings = Settings()
    task = Task(
        load_chain(demo.chain_file, settings=settings),
        read_stimuli(demo.search_file),
        read_stimuli(demo.holdout_file),
        build_error((ErrorTerm(function="cross_entropy"),), labels=()),
        options.limit,
        options.evaluations,
        options.sampler,
    )
    options.results.parent.mkdir(parents=True, exist_ok=True)
    rows = _read(options.results)
    for seed in range(options.seeds):
        for arm in options.arms.split(","):
            name = arm.replace("+", ", ")
            key = {"arm": name, "seed": seed, "sampler": task.sampler, "limit": task.limit}
            key["budget"] = task.evaluations
            if any(key.items() <= row.items() for row in rows):
                continue
            rule = None if ARMS[name] is None else parse_groups(ARMS[name])
            rows.append({**key, **run(task, rule, seed=seed)})
            with options.results.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(rows[-1]) + "\n")
    print(f"{'arm':16} {'factors':>7} {'evaluations':>11} {'search':>8} {'holdout':>8} trained")
    for name in ARMS:
        mine = [row for row in rows if (row["arm"], row["sampler"]) == (name, task.sampler)]
        if mine:
            holdouts = ", ".join(f"{row['holdout']:.4f}" for row in mine)
            print(
                f"{name:16} {mine[0]['factors']:>7} {_mean(mine, 'evaluations'):>11.0f} "
                f"{_mean(mine, 'search'):>8.4f} {_mean(mine, 'holdout'):>8.4f} "
                f"{_mean(mine, 'trained'):.4f}  by seed {holdouts}"
            )


def _read(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _mean(rows: list[dict[str, object]], key: str) -> float:
    return float(np.mean([float(str(row[key])) for row in rows]))


if __name__ == "__main__":
    main()
