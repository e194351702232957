"""Chains of checkpoints on disk: trained once, found again afterwards.

A chain's folder holds its checkpoints (``00-base``, ``01-...``), ``chain.yaml``,
``search.jsonl``, ``holdout.jsonl`` and ``manifest.json``: a fingerprint of everything that went
into the training and the SHA-256 of every file. Training happens in a folder beside it that is
renamed when all is there, so a chain is complete or absent. A second call with the same
fingerprint checks the files and trains nothing; with another one (a new Python has new
docstrings) it trains anew and replaces the old chain. A folder that holds anything else is
refused, never emptied.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ztom.demo.corpus import stdlib_entries
from ztom.demo.folder import (
    DemoManifest,
    StageRecord,
    digests,
    exclusive,
    intact,
    publish,
    refuse_foreign,
    staging,
    write_manifest,
)
from ztom.demo.model import build_model, save_checkpoint, train_tokenizer
from ztom.demo.scenario import ChatPlan, Scenario, StdlibPlan, chat_scenario, stdlib_scenario
from ztom.demo.train import Example, Progress, encode, train_stage
from ztom.io.yaml import dump_yaml
from ztom.stimuli.records import Message, Stimulus
from ztom.stimuli.splits import check_disjoint

logger = logging.getLogger(__name__)

_FORMAT = 1  # raise it when the same scenario would be trained in another way
_CHAIN, _SEARCH, _HOLDOUT = "chain.yaml", "search.jsonl", "holdout.jsonl"


@dataclass(frozen=True, slots=True)
class DemoChain:
    """A trained chain and the stimuli that go with it.

    Attributes:
        folder: Folder that holds everything below.
        chain_file: Chain file as `ztom.blending.chain` reads it.
        search_file: Stimuli for the search.
        holdout_file: Stimuli for the proof.
        checkpoints: Folders of the checkpoints, base first.
        parameters: Number of parameters of the model.
        train_seconds: Seconds that training took, on the call that trained.
        cached: Whether this call found the chain instead of training it.
    """

    folder: Path
    chain_file: Path
    search_file: Path
    holdout_file: Path
    checkpoints: tuple[Path, ...]
    parameters: int
    train_seconds: float
    cached: bool


def make_stdlib_chain(
    folder: Path,
    *,
    plan: StdlibPlan | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> DemoChain:
    """The chain about the standard library, trained now or found in ``folder``.

    Args:
        folder: Folder that the chain is kept in; made when missing.
        plan: Plan of the chain; the demo's by default.
        on_progress: Callback after each training step, and never when the chain is found.

    Raises:
        ConfigError: The plan does not fit the corpus, or ``folder`` holds something else.
    """
    plan = StdlibPlan() if plan is None else plan
    return _make(stdlib_scenario(stdlib_entries(), plan), folder, on_progress)


def make_chat_chain(
    data_folder: Path,
    folder: Path,
    *,
    plan: ChatPlan | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> DemoChain:
    """A chain from the files of ``data_folder``, trained now or found in ``folder``.

    Args:
        data_folder: Folder with ``train.jsonl``, ``search.jsonl`` and ``holdout.jsonl``, each line
            an object with ``prompt`` and ``expected``.
        folder: Folder that the chain is kept in; made when missing.
        plan: Plan of the chain; a base and four iterations by default.
        on_progress: Callback after each training step, and never when the chain is found.

    Raises:
        StimuliError: A file is missing or malformed, or (`LeakageError`) search and holdout
            overlap.
        ConfigError: ``folder`` holds something else.
    """
    scenario = chat_scenario(data_folder, ChatPlan() if plan is None else plan)
    return _make(scenario, folder, on_progress)


def _make(
    scenario: Scenario, folder: Path, on_progress: Callable[[Progress], None] | None
) -> DemoChain:
    folder = folder.expanduser().absolute()
    check_disjoint(scenario.search, scenario.holdout)
    fingerprint = _fingerprint(scenario)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        existing = intact(folder, fingerprint)
        if existing is not None:
            return _describe(folder, existing, cached=True)
        refuse_foreign(folder)
        with staging(folder) as staged:
            manifest = _write_chain(scenario, staged, fingerprint, on_progress)
            publish(staged, folder)
    return _describe(folder, manifest, cached=False)


def _write_chain(
    scenario: Scenario,
    folder: Path,
    fingerprint: str,
    on_progress: Callable[[Progress], None] | None,
) -> DemoManifest:
    """Train all stages into ``folder`` and write everything else beside them."""
    started = time.monotonic()
    parameters, records = _train(scenario, folder, on_progress)
    _write_chain_file(folder, [stage.name for stage in scenario.stages])
    _write_stimuli(folder / _SEARCH, scenario.search)
    _write_stimuli(folder / _HOLDOUT, scenario.holdout)
    manifest = DemoManifest(
        fingerprint=fingerprint,
        parameters=parameters,
        train_seconds=time.monotonic() - started,
        stages=records,
        files=digests(folder),
    )
    write_manifest(folder, manifest)
    return manifest


def _train(
    scenario: Scenario, folder: Path, on_progress: Callable[[Progress], None] | None
) -> tuple[int, tuple[StageRecord, ...]]:
    """One model through all stages, saved after each: its parameters, a record per stage."""
    texts = [
        text for stage in scenario.stages for p in stage.pairs for text in (p.prompt, p.answer)
    ]
    tokenizer = train_tokenizer(texts, scenario.size)
    model = build_model(tokenizer, scenario.size, seed=scenario.training.seed)
    rows = [
        encode(tokenizer, stage.pairs, max_tokens=scenario.training.max_tokens)
        for stage in scenario.stages
    ]
    records = []
    for stage, examples, span in zip(scenario.stages, rows, _spans(scenario, rows), strict=True):
        loss = train_stage(
            model,
            examples,
            stage,
            settings=scenario.training,
            span=span,
            on_progress=on_progress,
        )
        save_checkpoint(model, tokenizer, folder / stage.name)
        records.append(
            StageRecord(
                name=stage.name,
                pairs=len(stage.pairs),
                epochs=stage.epochs,
                learning_rate=stage.learning_rate,
                loss=loss,
            )
        )
        logger.info("%s trained on %d pairs, loss %.3f", stage.name, len(stage.pairs), loss)
    return sum(parameter.numel() for parameter in model.parameters()), tuple(records)


def _spans(scenario: Scenario, rows: Sequence[Sequence[Example]]) -> list[tuple[float, float]]:
    """Where each stage starts and ends as a share of all tokens to be trained on."""
    work = [
        stage.epochs * sum(len(row.ids) for row in examples)
        for stage, examples in zip(scenario.stages, rows, strict=True)
    ]
    ends = [sum(work[: i + 1]) / sum(work) for i in range(len(work))]
    return list(zip([0.0, *ends[:-1]], ends, strict=True))


def _write_chain_file(folder: Path, names: Sequence[str]) -> None:
    content = {"topology": "sequence", "checkpoints": list(names)}
    (folder / _CHAIN).write_text(dump_yaml(content), encoding="utf-8")


def _write_stimuli(path: Path, stimuli: Sequence[Stimulus]) -> None:
    rows = [
        {"id": s.id, "prompt": _prompt(s), "expected": s.expected, "group": s.group}
        for s in stimuli
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _prompt(stimulus: Stimulus) -> object:
    if isinstance(stimulus.prompt, str):
        return stimulus.prompt
    return [part.fields() if isinstance(part, Message) else part for part in stimulus.prompt]


def _fingerprint(scenario: Scenario) -> str:
    content = json.dumps([_FORMAT, asdict(scenario)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _describe(folder: Path, manifest: DemoManifest, *, cached: bool) -> DemoChain:
    return DemoChain(
        folder=folder,
        chain_file=folder / _CHAIN,
        search_file=folder / _SEARCH,
        holdout_file=folder / _HOLDOUT,
        checkpoints=tuple(folder / stage.name for stage in manifest.stages),
        parameters=manifest.parameters,
        train_seconds=manifest.train_seconds,
        cached=cached,
    )
