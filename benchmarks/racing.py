"""What racing saves and what it gets wrong, on the errors of real blends.

    python benchmarks/racing.py CHAIN [--evaluations 40] [--orders 20]

CHAIN is the folder of a chain with ``holdout.jsonl`` beside ``chain.yaml``, as `ztom demo` makes.
Every blend that a search proposes is evaluated on all of these stimuli once (torch engine, in this
process, cross-entropy: nothing is generated). Then the same trials race in many orders of the
stimuli. A wrong stop is one of a blend that is better, on all stimuli, than the incumbent.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ztom.blending.chain import load_chain
from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
from ztom.search.racing import Incumbent, Race, RacingConfig, make_race, margin_to
from ztom.search.samplers.build import build_sampler, startup_count
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import SearchSpace
from ztom.settings import Settings
from ztom.stimuli.files import read_stimuli

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluated:
    """Errors of every trial on every stimulus.

    Attributes:
        errors: float64, shape (trials, stimuli).
        tokens: Tokens of each stimulus' expected output, float64, shape (stimuli,).
    """

    errors: Floats
    tokens: Floats


def main() -> None:
    """Evaluate, race, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chain", type=Path)
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--limit", type=float, default=1.0)
    options = parser.parse_args()
    found = evaluate(options.chain, options.evaluations, options.limit)
    trials, stimuli = found.errors.shape
    print(f"{trials} blends on {stimuli} stimuli, cross-entropy")
    for errors in (2.0, 3.0, 4.0):
        runs = [
            race(found, make_race(RacingConfig(standard_errors=errors), stimuli, seed=seed))
            for seed in range(options.orders)
        ]
        used, stopped, wrong = (sum(run[i] for run in runs) for i in range(3))
        total = options.orders * trials
        print(
            f"{errors:g} standard errors: {used / (total * stimuli):.0%} of the stimuli, "
            f"{stopped / total:.0%} of the trials stopped, {wrong} wrong stops of {total} trials"
        )


def evaluate(folder: Path, evaluations: int, limit: float) -> Evaluated:
    """Let a sampler propose blends, and evaluate each on everything."""
    chain = load_chain(folder / "chain.yaml", settings=Settings())
    stimuli = read_stimuli(folder / "holdout.jsonl")
    prompts, expected = [s.prompt for s in stimuli], [s.expected for s in stimuli]
    engine = build_engine(EngineConfig(name="torch", dtype="float32"), chain)
    size = chain.transitions
    space = SearchSpace(tuple(map(str, range(size))), (-limit,) * size, (limit,) * size)
    config = SamplerConfig()
    sampler = build_sampler(config, space, seed=0)
    startup = space.startup_points(startup_count(config, space, evaluations), seed=0)
    rows, tokens = [], np.zeros(0)
    for number in range(evaluations + 1):
        points = ((0.0,) * size, *startup)
        factors = points[number] if number < len(points) else sampler.ask(number)
        if factors is None:
            break
        engine.blend(factors)
        scored = engine.log_probs(prompts, expected)
        tokens = np.array([float(len(row)) for row in scored])
        rows.append(np.array([-row.mean() for row in scored]))
        error = float(np.average(rows[-1], weights=tokens))
        sampler.tell(number, factors, error=error, violations=())
        print(f"{number}: {error:.4f}", flush=True)
    engine.close()
    return Evaluated(np.stack(rows), tokens)


def race(found: Evaluated, blocks: Race | None) -> tuple[int, int, int]:
    """Stimuli that were answered, trials that were stopped, and those of them that were better."""
    if blocks is None:
        raise SystemExit("too few stimuli to race")
    whole = np.average(found.errors, axis=1, weights=found.tokens)
    best, used, stopped, wrong = 0, found.errors.shape[1], 0, 0
    for trial in range(1, len(found.errors)):
        incumbent = Incumbent(best, float(whole[best]), tuple(found.errors[best]))
        places: list[int] = []
        for number, block in enumerate(blocks.blocks):
            places += block
            if number == len(blocks.blocks) - 1:
                break
            now = margin_to(
                found.errors[trial, places], places, incumbent, weights=found.tokens[places]
            )
            if now.is_worse(blocks.standard_errors):
                stopped += 1
                wrong += bool(whole[trial] < whole[best])
                break
        used += len(places)
        if len(places) == found.errors.shape[1] and whole[trial] < whole[best]:
            best = trial
    return used, stopped, wrong


if __name__ == "__main__":
    main()
