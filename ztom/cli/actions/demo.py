"""What ``ztom demo`` does: a chain trained here, searched, proved, written, served and asked."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from rich.console import Console

from tune_search.command import INTERRUPTED, result_lines, run_command
from ztom.demo.chains import DemoChain, make_chat_chain, make_stdlib_chain
from ztom.demo.train import Progress as Training
from ztom.errors import SearchError
from ztom.io.places import StoragePlace, parse_place, require_local
from ztom.io.progress import shown_until, work_display
from ztom.io.yaml import dump_yaml
from ztom.search.config_files import load_config

if TYPE_CHECKING:
    from ztom.search.result import Proof, SearchResult, StimulusChange

#: Tokens of an answer in the demo.
_MAX_NEW_TOKENS = 32
_ERRORS = {
    "stdlib": [
        {"function": "cross_entropy", "weight": 1.0},
        {"function": "sentence_similarity", "weight": 1.0},
    ],
    "medical": [{"function": "cross_entropy", "weight": 1.0}],
}


def run_demo(
    folder: Path, *, medical: Path | None, limit: float, evaluations: int, stay: bool
) -> int:
    """The whole demo; returns the exit status.

    Args:
        folder: Where everything goes.
        medical: A chat data set to work on instead of the standard library's documentation.
        limit: The bound on each factor.
        evaluations: Trials of the search.
        stay: Keep serving until Ctrl-C.

    Raises:
        ConfigError: The folder is an address.
    """
    require_local(folder, what="where the demo goes")
    console = Console()
    started = time.perf_counter()
    kind = "stdlib" if medical is None else "medical"
    folder = (folder / kind).absolute()
    console.rule("1. the chain")
    chain = _train(folder / "chain", medical, console)
    console.rule("2. search and proof")
    config_file = write_config(folder, chain, kind=kind, limit=limit, evaluations=evaluations)
    console.print(
        f"the search is described in {config_file}", markup=False, highlight=False, soft_wrap=True
    )
    result = _search(config_file, console)
    proof = result.proof
    if proof is None:
        return INTERRUPTED
    if proof.variant is None:
        console.print("nothing was published, so there is nothing to serve")
        return 0
    console.rule("3. the endpoint")
    _serve(parse_place(proof.variant), proof, console, stay=stay)
    _say_next(config_file, chain, parse_place(proof.variant), console)
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
    return 0


def write_config(
    folder: Path, chain: DemoChain, *, kind: str, limit: float, evaluations: int
) -> Path:
    """Write the search's YAML beside the chain, and make room for its results."""
    path = folder / f"limit-{limit:g}.yaml"
    content = {
        "name": f"{kind}-limit-{limit:g}",
        "chain": str(chain.chain_file),
        "stimuli": str(chain.search_file),
        "holdout": str(chain.holdout_file),
        "error": _ERRORS[kind],
        "scaling_factor_limit": limit,
        "inference_config": {"max_new_tokens": _MAX_NEW_TOKENS},
        "budget": {"evaluations": evaluations},
        "engine": {"dtype": "float32"},
        "output": str(folder / path.stem),
    }
    path.write_text(dump_yaml(content), encoding="utf-8")
    shutil.rmtree(folder / path.stem, ignore_errors=True)
    return path


def _train(folder: Path, medical: Path | None, console: Console) -> DemoChain:
    with work_display("training the chain") as display:

        def show(progress: Training) -> None:
            display.show(f"training {progress.stage}", progress.step, progress.steps)

        if medical is None:
            chain = make_stdlib_chain(folder, on_progress=show)
        else:
            chain = make_chat_chain(medical, folder, on_progress=show)
    how = "found" if chain.cached else f"trained in {chain.train_seconds:.0f} s"
    console.print(
        f"{len(chain.checkpoints)} checkpoints of {chain.parameters:,} parameters, {how}: "
        + ", ".join(path.name for path in chain.checkpoints),
        highlight=False,
        soft_wrap=True,
    )
    return chain


def _search(config_file: Path, console: Console) -> SearchResult:
    config = load_config(config_file)
    result: SearchResult = run_command(config, resume=False, console=Console(stderr=True))
    for line in result_lines(result, config, config_file):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return result


def _serve(variant: StoragePlace, proof: Proof, console: Console, *, stay: bool) -> None:
    from serve_apps.variants.args import VariantArgs
    from serve_apps.variants.launch import ServedVariant, serve_variant

    example = max(proof.changes, key=lambda c: c.error_before - c.error_after)

    def ask(served: ServedVariant) -> None:
        with work_display("asking the endpoint"):
            answer = _chat(served.api_base, served.models[0], example)
        console.print(
            f"{served.api_base}/chat/completions, asked what the proof shows changed most:",
            highlight=False,
            soft_wrap=True,
        )
        for label, text in (
            ("asked", example.prompt),
            ("expected", example.expected),
            ("before", example.before or ""),
            ("after", answer),
        ):
            console.print(f"  [bold]{label:>9}[/]  ", end="")
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    args = VariantArgs(variant=variant, dtype="float32")
    with shown_until("verifying the variant and loading it", ask) as on_ready:
        serve_variant(args, port=0, blocking=stay, on_ready=on_ready)


def _chat(api_base: str, model: str, example: StimulusChange) -> str:
    reply = httpx.post(
        f"{api_base}/chat/completions",
        json={
            "model": model,
            "messages": [{"role": "user", "content": example.prompt}],
            "temperature": 0,
            "max_tokens": _MAX_NEW_TOKENS,
        },
        timeout=120,
    )
    if reply.status_code != 200:
        raise SearchError("the endpoint refused the question", got=reply.text)
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def _say_next(config_file: Path, chain: DemoChain, variant: StoragePlace, console: Console) -> None:
    console.rule("what to try next")
    for line in (
        f"ztom inspect {chain.chain_file}",
        f"ztom verify {variant} --share 1",
        f"ztom serve {variant}",
        f"ztom search {config_file} --set scaling_factor_limit=0.3 --set output=/tmp/limit-0.3",
        "ztom search --example > search.yaml   # then point it at your own chain and data",
    ):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
