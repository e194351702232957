"""The demo's chain as a problem of `benchmarks.samplers`: evaluated, not interpolated."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
from sampler_problems import Point, Problem

STIMULI = 32
#: Evaluations that the reference search takes for the least error, which shares are measured by.
REFERENCE = 200


class _ChainError:
    """Cross-entropy over the first stimuli of the search set, points that were evaluated kept."""

    def __init__(self, limit: float) -> None:
        import torch

        from ztom.blending.chain import load_chain
        from ztom.demo.chains import make_stdlib_chain
        from ztom.engines.build import build_engine
        from ztom.engines.config import EngineConfig
        from ztom.scoring.build import build_error
        from ztom.settings import Settings
        from ztom.stimuli.files import read_stimuli

        torch.set_num_threads(1)
        folder = Path(os.environ.get("ZTOM_DEMO_CHAIN", "runs/demo/stdlib/chain"))
        demo = make_stdlib_chain(folder)
        chain = load_chain(demo.chain_file, settings=Settings())
        self._engine = build_engine(EngineConfig(name="torch", dtype="float32"), chain)
        self._stimuli = read_stimuli(demo.search_file)[:STIMULI]
        self._error = build_error(["cross_entropy"])
        self._limit = limit
        self._known: dict[tuple[float, ...], float] = {}

    def __call__(self, point: Point) -> float:
        from ztom.engines.protocol import GenerationConfig
        from ztom.engines.respond import respond

        factors = tuple(map(float, point * self._limit))
        if factors not in self._known:
            self._engine.blend(factors)
            outputs = respond(
                self._engine, self._stimuli, needs=self._error.needs, generation=GenerationConfig()
            )
            self._known[factors] = float(self._error.score(self._stimuli, outputs).aggregate())
        return self._known[factors]


@functools.cache
def chain_problem(factors: int, limit: float) -> Problem:
    """The problem; its least error is what a long search without noise finds."""
    from scipy.optimize import Bounds, minimize

    error = _ChainError(limit)
    trained = error(np.zeros(factors))
    result = minimize(
        error, np.zeros(factors), method="COBYQA",
        bounds=Bounds(-np.ones(factors), np.ones(factors)),
        options={"initial_tr_radius": 0.5, "final_tr_radius": 1e-3, "maxfev": REFERENCE},
    )  # fmt: skip
    return Problem(factors, error, trained, trained - float(result.fun))
