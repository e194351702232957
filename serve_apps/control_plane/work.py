"""Work on weights, done in processes of its own: what `runner` carries to Ray.

Each function takes plain values and gives plain values back; what is big stays in files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ztom.errors import ChainError, IncompatibleChainError
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
        allow_config_differences: Keys of ``config.json`` in which they may differ.
        allow_tokenizer_differences: Whether their tokenizers may split texts differently.
        groups: Groups of tensors that have factors of their own, as JSON; None for one factor a
            step.
    """

    references: tuple[str, ...]
    roots: tuple[str, ...]
    denied: tuple[str, ...] = ()
    cache: str | None = None
    pins: tuple[str | None, ...] = ()
    allow_config_differences: tuple[str, ...] = ()
    allow_tokenizer_differences: bool = False
    groups: Mapping[str, object] | None = None

    @property
    def settings(self) -> Settings:
        """The installation's limits, and these roots."""
        settings = Settings(allowed_roots=self.roots, denied_roots=self.denied, names_roots=False)
        if self.cache is None:
            return settings
        return settings.model_copy(update={"cache_dir": Path(self.cache)})


@dataclass(frozen=True, slots=True)
class CheckpointScores:
    """What reading a checkpoint gave.

    Attributes:
        digest: Digest of its content; None when it cannot be used, or could not be looked at.
        weights: Mean absolute change of its weights, see `ztom.blending.changes`.
        biases: Mean absolute change of its biases.
        message: What is wrong with it, or what its chain has to be allowed to differ in.
        usable: Whether it can be used, be it only where that is allowed.
    """

    digest: str | None
    weights: float | None = None
    biases: float | None = None
    message: str | None = None
    usable: bool = True


@dataclass(frozen=True, slots=True)
class RecordedBlend:
    """A blend that was written and is on record.

    Attributes:
        folder: Folder of the variant.
        digest: Digest of the variant's manifest.
        realised: Realised over intended step, None where nothing was to change.
        warnings: Warnings about precision, and what differs between the checkpoints.
        groups: Groups of tensors that have factors of their own.
    """

    folder: str
    digest: str
    realised: float | None
    warnings: tuple[str, ...]
    groups: tuple[str, ...] = ()


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
        opened, message = _open_differing(chain)
        digest = opened.members[last].digest
        if before is None:
            check_finite(opened, last)
            return CheckpointScores(digest, message=message)
        scores = change_scores(opened, before, last)
        return CheckpointScores(digest, scores.weights, scores.biases, message)
    except StorageError:
        raise  # trying again may help
    except (CheckpointError, ChainError) as error:
        return CheckpointScores(None, message=str(error), usable=False)


def _open_differing(chain: ChainSpec) -> tuple[Chain, str | None]:
    """The chain, opened whatever its members may be allowed to differ in, and what that is.

    Raises:
        ChainError: It has no step, or its members do not fit together in any case.
        CheckpointError: A member cannot be used.
    """
    from ztom.blending.differences import config_problems
    from ztom.checkpoints.checkpoint import open_checkpoint

    try:
        return open_chain(chain), None
    except IncompatibleChainError as error:
        members = [open_checkpoint(r, settings=chain.settings) for r in chain.references]
        full = [member for member in members if member.kind == "full"]
        keys = {key for m in full[1:] for key in config_problems(full[0], m, allowed=())}
        differing = replace(
            chain,
            allow_config_differences=tuple(sorted(keys)),
            allow_tokenizer_differences=True,
        )
        try:
            return open_chain(differing), str(error)
        except IncompatibleChainError:
            raise error from None


def compare(
    chain: ChainSpec,
    *,
    other: int,
    chosen: int,
    weights: Sequence[str] | None,
    biases: Sequence[str] | None,
) -> dict[str, object]:
    """Two members of a chain, tensor by tensor: the answer of a static analysis."""
    from ztom.blending.changes import is_bias
    from ztom.blending.tensor_differences import summary_score, tensor_differences

    differences = tensor_differences(
        open_chain(chain), other, chosen, weights=weights, biases=biases
    )
    of_weights = {name: value for name, value in differences.items() if not is_bias(name)}
    of_biases = {name: value for name, value in differences.items() if is_bias(name)}
    return {
        "weight_summary_score": summary_score(of_weights.values()),
        "bias_summary_score": summary_score(of_biases.values()),
        "absolute_weight_difference": {n: list(d.rows) for n, d in of_weights.items()},
        "absolute_bias_difference": {n: list(d.rows) for n, d in of_biases.items()},
        "parameter_scores": {name: value.score for name, value in differences.items()},
        "parameter_histograms": {
            name: {
                "bin_edges": list(value.histogram.edges),
                "bin_counts": list(value.histogram.counts),
            }
            for name, value in differences.items()
        },
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
        stage_variant(open_chain(chain), list(factors), Path(destination)) as staged,
    ):
        manifest = staged.seal()
        new = for_the_record(staged, manifest, action="variant.blend")
        new = replace(new, event=replace(new.event, actor=actor))
        book.variants.record(new, partial(staged.place, manifest))
    report = staged.precision
    warnings = (*report.warnings, *staged.recipe.notes)
    groups = staged.recipe.groups
    return RecordedBlend(
        destination,
        manifest.digest,
        report.overall.realised,
        warnings,
        () if groups is None else groups.names,
    )


def open_chain(chain: ChainSpec) -> Chain:
    """The chain, opened.

    Raises:
        ChainError: It has no step, or its members do not fit together.
        CheckpointError: A member cannot be used.
        ConfigError: The groups do not divide its tensors.
    """
    from ztom.blending.chain import load_chain
    from ztom.blending.chain_file import ChainConfig, Member
    from ztom.blending.group_assignment import group_chain
    from ztom.blending.groups import FactorGroups

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
    config = ChainConfig(
        checkpoints=members,
        allow_config_differences=chain.allow_config_differences,
        allow_tokenizer_differences=chain.allow_tokenizer_differences,
    )
    rule = None if chain.groups is None else FactorGroups.model_validate(chain.groups)
    return group_chain(load_chain(config, settings=chain.settings), rule)
