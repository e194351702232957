"""Z-TOM's engine in this process, with its defaults: what a trial of a search runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from exchange import Answer, Phases, serve

from ztom.blending.chain import load_chain
from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import GenerationConfig
from ztom.engines.respond import respond
from ztom.scoring.build import build_error
from ztom.scoring.protocol import Need
from ztom.settings import Settings
from ztom.stimuli.records import Stimulus


def start(task: dict[str, Any]) -> Callable[[dict[str, Any], Phases], Answer]:
    """Start the engine and the error functions."""
    stimuli = [
        Stimulus(row["id"], row["prompt"], row["expected"], row["id"]) for row in task["stimuli"]
    ]
    names = ["cross_entropy", *(["sentence_similarity"] if task["similarity"] else [])]
    errors = {name: build_error(name) for name in names}
    needs = {Need.TEXT, Need.TOKEN_LOG_PROBS}
    generation = GenerationConfig(max_new_tokens=task["new_tokens"])
    chain = load_chain(Path(task["chain"]), settings=Settings())
    engine = build_engine(EngineConfig(dtype="float32"), chain)

    def evaluate(line: dict[str, Any], phases: Phases) -> Answer:
        with phases.time("blend"):
            engine.blend(line["factors"])
        with phases.time("answer"):
            outputs = respond(engine, stimuli, needs=needs, generation=generation)
        with phases.time("score"):
            scores = {
                name: float(error.score(stimuli, outputs).aggregate())
                for name, error in errors.items()
            }
        return {
            "cross_entropy": scores["cross_entropy"],
            "similarity": scores.get("sentence_similarity"),
            "texts": [output.text for output in outputs],
        }

    return evaluate


if __name__ == "__main__":
    serve(start)
