"""What exact derivatives cost, and what they find, on the demo's chain.

Evaluations: likelihood of the expected outputs of the search set's first stimuli, teacher-forced,
with the torch engine in float32 on one thread. With 4 factors (one a step), 16 (a step and a block
of layers) and 64 (a step, a layer and a kind of module) it shows the price of a gradient in forward
and in reverse mode, in such evaluations (CPU time, blend and steps included), and the share of the
gain that is reached after some gradients, beside the default sampler after 55 evaluations. The
whole gain is that of the best point which any of them, or forty gradients with a tight tolerance,
found.

    python benchmarks/gradients.py [--stimuli 24] [--seeds 3] [--factors 4 16 64]

The chain is trained where it is not there yet (ZTOM_DEMO_CHAIN, runs/demo/stdlib/chain).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ztom.blending.chain import load_chain
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups
from ztom.demo.chains import make_stdlib_chain
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import DerivativeMode, Derivatives
from ztom.engines.torch_engine import TorchEngine
from ztom.scoring.differentiable import LossTerm
from ztom.search.samplers.build import build_sampler, startup_count, startup_scale
from ztom.search.samplers.gradient import GradientSampler
from ztom.search.samplers.protocol import SamplerConfig
from ztom.search.space import Factors, SearchSpace
from ztom.settings import Settings
from ztom.stimuli.files import read_stimuli

LIMIT, EVALUATIONS = 1.0, 55
LAYERS = 3
PARTS = {
    "queries, keys": ("*.q_proj.*", "*.k_proj.*"),
    "values, outputs": ("*.v_proj.*", "*.o_proj.*"),
    "gate, up": ("*.gate_proj.*", "*.up_proj.*"),
    "down": ("*.down_proj.*",),
    "norms": ("*norm.weight",),
}
#: Groups of tensors by the number of factors that they come to on the demo's four steps.
GROUPS = {
    4: None,
    16: FactorGroups(layers=LAYERS),
    64: FactorGroups(
        patterns={
            f"{part} {layer}": tuple(f"model.layers.{layer}.{glob}" for glob in globs)
            for layer in range(LAYERS)
            for part, globs in PARTS.items()
        }
    ),
}
SHOWN = (1, 2, 3, 4, 5, 7, 10, 15)


class Problem:
    """The error over the factors of the demo's chain, and its derivatives."""

    def __init__(self, groups: FactorGroups | None, stimuli: int) -> None:
        folder = Path(os.environ.get("ZTOM_DEMO_CHAIN", "runs/demo/stdlib/chain"))
        demo = make_stdlib_chain(folder)
        chain = group_chain(load_chain(demo.chain_file, settings=Settings()), groups)
        config = EngineConfig(name="torch", dtype="float32")
        self.engine = TorchEngine(config, Path(chain.reference.reference), chain)
        self.stimuli = tuple(read_stimuli(demo.search_file)[:stimuli])
        bounds = (LIMIT,) * chain.factor_count
        self.space = SearchSpace(chain.factor_names, tuple(-b for b in bounds), bounds)

    def error(self, factors: Factors) -> float:
        """Blend and evaluate."""
        self.engine.blend(factors)
        return self.likelihood()

    def likelihood(self) -> float:
        """The cross-entropy of the blend that is loaded."""
        prompts = [s.prompt for s in self.stimuli]
        rows = self.engine.log_probs(prompts, [s.expected for s in self.stimuli])
        return -float(sum(row.sum() for row in rows)) / sum(row.size for row in rows)

    def gradient(self, factors: Factors, mode: DerivativeMode) -> Derivatives:
        """Blend, and the cross-entropy with its derivatives."""
        sets = ((self.stimuli, (LossTerm("tokens"),)),)
        return self.engine.differentiate(factors, sets, mode=mode)[0]


def cpu_seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Least CPU seconds of one call, the first one left out."""
    call()
    best = float("inf")
    for _ in range(repeats):
        started = time.thread_time()
        call()
        best = min(best, time.thread_time() - started)
    return best


def show_costs(problem: Problem) -> None:
    """A gradient's price in evaluations of the likelihood."""
    factors = tuple(-0.05 * (i % 7) for i in range(problem.space.dimensions))
    problem.engine.blend(factors)
    one = cpu_seconds(problem.likelihood)
    for mode in ("forward", "reverse"):
        price = cpu_seconds(lambda mode=mode: problem.gradient(factors, mode), 2) / one
        each = f", {price / len(factors):.2f} a factor" if mode == "forward" else " for all"
        print(f"  {mode} mode: {price:.1f} evaluations of {one:.3f} s{each}", flush=True)


def with_gradients(problem: Problem, *, tolerance: float, most: int) -> list[float]:
    """The error of each gradient in turn, from the trained model on."""
    config = SamplerConfig(name="gradient", ftol_rel=tolerance)
    sampler, errors = GradientSampler(config, problem.space), []
    while len(errors) < most and (point := sampler.ask(len(errors))) is not None:
        found = problem.gradient(point, "reverse")
        sampler.take_gradients(len(errors), found.gradient, ())
        sampler.tell(len(errors), point, error=found.error, violations=())
        errors.append(found.error)
    return errors


def with_evaluations(problem: Problem, trained: float, seed: int) -> list[float]:
    """The error of each of the default sampler's evaluations, and last of its answer."""
    from ztom.search.answer import Evaluation, next_confirmation

    space, config = problem.space, SamplerConfig()
    count = startup_count(config, space, EVALUATIONS)
    points = space.startup_points(count, seed=seed, scale=startup_scale(config))
    sampler = build_sampler(config, space, seed=seed)
    sampler.tell(0, space.trained, error=trained, violations=())
    seen = [Evaluation(space.trained, trained, ()), Evaluation(space.trained, trained, ())]
    for number in range(1, EVALUATIONS + 1):
        point = points[number - 1] if number <= count else sampler.ask(number)
        if point is None:
            break
        seen.append(Evaluation(point, problem.error(point), ()))
        sampler.tell(number, point, error=seen[-1].error, violations=())
    answer = next_confirmation(space, seed, tuple(seen), 0)
    errors = [evaluation.error for evaluation in seen]
    return errors if answer is None else [*errors, problem.error(answer)]


def main() -> None:
    """Print the prices and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stimuli", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factors", type=int, nargs="*", default=list(GROUPS), choices=GROUPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for factors in options.factors:
        problem = Problem(GROUPS[factors], options.stimuli)
        print(f"{problem.space.dimensions} factors, limit {LIMIT:g}:", flush=True)
        show_costs(problem)
        trained = problem.error(problem.space.trained)
        tight = min(with_gradients(problem, tolerance=1e-9, most=40))
        path = with_gradients(problem, tolerance=SamplerConfig().ftol_rel, most=40)
        others = [min(with_evaluations(problem, trained, s)) for s in range(options.seeds)]
        best = min(tight, *path, *others)
        share = [(trained - min(path[: i + 1])) / (trained - best) for i in range(len(path))]
        shown = ", ".join(f"{i}: {share[i - 1]:.3f}" for i in SHOWN if i <= len(share))
        print(f"  error {trained:.4f} -> {best:.4f}; share of the gain by gradients: {shown}")
        print(f"  converged after {len(path)} gradients with {share[-1]:.3f}")
        if not others:
            continue
        gained = ", ".join(f"{(trained - error) / (trained - best):.3f}" for error in others)
        print(f"  {SamplerConfig().name} after {EVALUATIONS} evaluations: {gained}", flush=True)


if __name__ == "__main__":
    main()
