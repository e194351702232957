"""The demo's chain as a problem of `benchmarks.samplers`: evaluated, not interpolated.

4 factors are its four steps; 16 are each step's three layers and the rest of the model. The limit
is 1, as in the demo. Points that were evaluated are kept in a file beside the results.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
from sampler_problems import Point, Problem

STIMULI = 32
LIMIT = 1.0
#: Evaluations of the reference search without noise whose least error shares are measured by.
REFERENCE = {4: 150, 16: 400}


class _ChainError:
    """Cross-entropy over the first stimuli of the search set."""

    def __init__(self, factors: int, cache: Path) -> None:
        import torch

        from ztom.blending.chain import load_chain
        from ztom.blending.group_assignment import group_chain
        from ztom.blending.groups import FactorGroups
        from ztom.demo.chains import make_stdlib_chain
        from ztom.engines.build import build_engine
        from ztom.engines.config import EngineConfig
        from ztom.scoring.build import build_error
        from ztom.settings import Settings
        from ztom.stimuli.files import read_stimuli

        torch.set_num_threads(1)
        demo = make_stdlib_chain(Path(os.environ.get("ZTOM_DEMO_CHAIN", "runs/demo/stdlib/chain")))
        groups = FactorGroups(layers=3) if factors == 16 else None
        chain = group_chain(load_chain(demo.chain_file, settings=Settings()), groups)
        self._engine = build_engine(EngineConfig(name="torch", dtype="float32"), chain)
        self._stimuli = read_stimuli(demo.search_file)[:STIMULI]
        self._error = build_error(["cross_entropy"])
        self._cache = cache
        lines = cache.read_text().splitlines() if cache.exists() else []
        self._known = {tuple(point): error for point, error in map(json.loads, lines)}

    def __call__(self, point: Point) -> float:
        from ztom.engines.protocol import GenerationConfig
        from ztom.engines.respond import respond

        factors = tuple(float(value * LIMIT) for value in point)
        if factors not in self._known:
            self._engine.blend(factors)
            outputs = respond(
                self._engine, self._stimuli, needs=self._error.needs, generation=GenerationConfig()
            )
            error = float(self._error.score(self._stimuli, outputs).aggregate()[0])
            self._known[factors] = error
            with self._cache.open("a") as lines:
                lines.write(json.dumps([factors, error]) + "\n")
        return self._known[factors]

    @property
    def least(self) -> float:
        """The least error of all points so far."""
        return min(self._known.values())


@functools.cache
def chain_problem(factors: int, folder: Path) -> Problem:
    """The problem; its least error is the least that a long search without noise finds."""
    from scipy.optimize import Bounds, minimize

    error = _ChainError(factors, folder / f"samplers-chain-{factors}.jsonl")
    trained = error(np.zeros(factors))
    minimize(
        error, np.zeros(factors), method="COBYQA",
        bounds=Bounds(-np.ones(factors), np.ones(factors)),
        options={
            "initial_tr_radius": 0.5, "final_tr_radius": 1e-3, "maxfev": REFERENCE[factors],
        },
    )  # fmt: skip
    return Problem(factors, error, trained, trained - error.least)
