"""Work on weights, done in processes of its own: what `runner` carries to Ray.

Each function takes plain values and gives plain values back; what is big stays in files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ztom.errors import ChainError
from ztom.settings import Settings

if TYPE_CHECKING:
    from ztom.blending.chain import Chain


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """A chain as the server hands it on.

    Attributes:
        references: Checkpoints as `ztom.checkpoints` opens them, base first.
        roots: Folders and addresses under which every reference must lie.
        denied: Folders and addresses under which none may lie.
        cache: Folder of the copies that have to be made.
        pins: Digest that each reference must have; None where it is not known yet.
    """

    references: tuple[str, ...]
    roots: tuple[str, ...]
    denied: tuple[str, ...] = ()
    cache: str | None = None
    pins: tuple[str | None, ...] = ()

    @property
    def settings(self) -> Settings:
        """The installation's limits, and these roots."""
        if self.cache is None:
            return Settings(allowed_roots=self.roots, denied_roots=self.denied)
        return Settings(
            allowed_roots=self.roots, denied_roots=self.denied, cache_dir=Path(self.cache)
        )


@dataclass(frozen=True, slots=True)
class CheckpointScores:
    """What reading a checkpoint gave.

    Attributes:
        digest: Digest of its content; None when it cannot be used.
        weights: Mean absolute change of its weights, see `ztom.blending.changes`.
        biases: Mean absolute change of its biases.
        message: What is wrong with it.
    """

    digest: str | None
    weights: float | None = None
    biases: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedBlend:
    """A blend that was written and is on record.

    Attributes:
        folder: Folder of the variant.
        digest: Digest of the variant's manifest.
        realised: Realised over intended step, None where nothing was to change.
        warnings: Warnings about precision, and what differs between the checkpoints.
    """

    folder: str
    digest: str
    realised: float | None
    warnings: tuple[str, ...]


def score_checkpoint(chain: ChainSpec, *, before: int | None) -> CheckpointScores:
    """Read the last checkpoint of a chain whole, and compare it.

    Args:
        chain: Ends with the checkpoint.
        before: Position of the one to compare with; None for nothing.
    """
    from ztom.blending.chain import Chain
    from ztom.blending.changes import change_scores, check_finite
    from ztom.checkpoints.checkpoint import open_checkpoint
    from ztom.errors import CheckpointError, StorageError

    try:
        last = len(chain.references) - 1
        if last == 0:
            only = open_checkpoint(chain.references[0], settings=chain.settings)
            if only.kind == "full":
                check_finite(Chain((only,), (None,), "sequence", 0, ("",)), 0)
            return CheckpointScores(only.digest)
        opened = _open(chain)
        digest = opened.members[last].digest
        if before is None:
            check_finite(opened, last)
            return CheckpointScores(digest)
        scores = change_scores(opened, before, last)
        return CheckpointScores(digest, scores.weights, scores.biases)
    except StorageError:
        raise  # trying again may help
    except (CheckpointError, ChainError) as error:
        return CheckpointScores(None, message=str(error))


def compare(
    chain: ChainSpec,
    *,
    old: int,
    new: int,
    weights: Sequence[str] | None,
    biases: Sequence[str] | None,
) -> dict[str, object]:
    """Two members of a chain, tensor by tensor: the answer of a static analysis."""
    from ztom.blending.changes import change_scores, is_bias, row_changes

    opened = _open(chain)
    scores = change_scores(opened, old, new)
    names = None if weights is None and biases is None else {*(weights or ()), *(biases or ())}
    rows = row_changes(opened, old, new, names)
    return {
        "weight_summary_score": scores.weights,
        "bias_summary_score": scores.biases,
        "absolute_weight_difference": {n: v for n, v in rows.items() if not is_bias(n)},
        "absolute_bias_difference": {n: v for n, v in rows.items() if is_bias(n)},
    }


def blend(
    chain: ChainSpec, factors: Sequence[float], destination: str, *, ledger: str, actor: str
) -> RecordedBlend:
    """Write a blend as a variant and put it on record."""
    from ztom.ledger.ledger import Ledger
    from ztom.variants.record import for_the_record
    from ztom.variants.write import stage_variant

    with (
        Ledger.open(ledger) as book,
        stage_variant(_open(chain), list(factors), Path(destination)) as staged,
    ):
        manifest = staged.seal()
        new = for_the_record(staged, manifest, action="variant.blend")
        new = replace(new, event=replace(new.event, actor=actor))
        book.variants.record(new, partial(staged.place, manifest))
    report = staged.precision
    warnings = (*report.warnings, *staged.recipe.notes)
    return RecordedBlend(destination, manifest.digest, report.overall.realised, warnings)


def answer(
    chain: ChainSpec,
    factor_sets: Sequence[Sequence[float]],
    stimuli: str,
    *,
    engine: dict[str, object],
    generation: dict[str, object],
    batch_size: int | None,
) -> list[list[str]]:
    """The texts of a blend for each set of factors, one text per stimulus."""
    from ztom.checkpoints.checkpoint import open_checkpoint
    from ztom.checkpoints.fetch import fetch_folder
    from ztom.engines.build import build_engine, build_single
    from ztom.engines.config import EngineConfig
    from ztom.engines.protocol import GenerationConfig
    from ztom.stimuli.batches import batches
    from ztom.stimuli.files import read_prompts

    prompts = read_prompts(Path(stimuli))
    config = EngineConfig.model_validate(engine)
    how = GenerationConfig.model_validate(generation)
    if len(chain.references) == 1:
        only = open_checkpoint(chain.references[0], settings=chain.settings)
        running = build_single(config, fetch_folder(only, None, chain.settings))
    else:
        running = build_engine(config, _open(chain), settings=chain.settings)
    try:
        texts = []
        for factors in factor_sets:
            if factors:
                running.blend(factors)
            size = batch_size or len(prompts)
            texts.append(
                [c.text for batch in batches(prompts, size) for c in running.generate(batch, how)]
            )
        return texts
    finally:
        running.close()


def _open(chain: ChainSpec) -> Chain:
    from ztom.blending.chain import load_chain
    from ztom.blending.chain_file import ChainConfig, Member

    if len(chain.references) < 2:
        raise ChainError(
            "the project's chain has no step yet",
            got=f"{len(chain.references)} checkpoints",
            expected="at least two, a base model or a first checkpoint and an iteration",
        )
    pins = chain.pins or (None,) * len(chain.references)
    members = tuple(
        Member(reference=reference, sha256=pin)
        for reference, pin in zip(chain.references, pins, strict=True)
    )
    return load_chain(ChainConfig(checkpoints=members), settings=chain.settings)
