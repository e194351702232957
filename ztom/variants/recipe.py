"""The recipe of a variant: what its bytes follow from, and what was known at its release.

It holds no time and no host name, so the same recipe gives the same bytes; when and where something
was done is the ledger's to say.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ztom.blending.chain_file import Topology
from ztom.blending.groups import GroupedFactors, GroupRecord, transition_names
from ztom.errors import VariantError
from ztom.io.files import read_place
from ztom.io.places import StoragePlace
from ztom.io.problems import check_json

if TYPE_CHECKING:
    from ztom.blending.chain import Chain

RECIPE = "recipe.json"
Form = Literal["dense", "adapter"]
_LIBRARIES = ("ztom", "torch", "safetensors", "numpy")


#: Fields that older versions did not write.
_OPTIONAL = (
    *("kept", "left_out", "notes"),
    *("allow_config_differences", "allow_tokenizer_differences", "groups"),
)


class RecipeMember(BaseModel):
    """One checkpoint of the chain.

    Attributes:
        reference: Reference that it was read from.
        sha256: Digest of the checkpoint, see `ztom.checkpoints.checkpoint.Checkpoint.digest`.
        tag: Name of the checkpoint in the chain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str
    sha256: str
    tag: str


class SearchEvidence(BaseModel):
    """What a search and its proof said; absent for factors set by hand.

    Attributes:
        study: Name of the study.
        config_digest: Digest of the search's configuration.
        data_digests: sha256 per data set, the holdout included.
        error: Terms of the error function, with their weights.
        seed: Seed that everything random was drawn from.
        sampler: Name of the sampler that proposed the factors.
        trials_digest: sha256 over every trial's number, factors, status and error.
        number_of_inferences: Number of evaluations of a model in the search.
        search_errors: Errors of the trained and the optimized model on the search set.
        holdout_errors: Errors of the trained model and this variant on the holdout.
        verdict: Decision of `ztom.scoring.proof`, as JSON.
        gate: Outcome and reasons of the gate on the suites of the search, with the suites' digests,
            JSON; None where the search had none.
        best_existing: The best checkpoint of the chain and how this variant stands to it on the
            holdout, JSON; None in older recipes.
        insisted: Whether it was released although it is not proved to be better, or not passed.
        versions: Versions of the libraries that searched and evaluated, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    config_digest: str
    data_digests: dict[str, str]
    error: list[dict[str, Any]]
    seed: int
    sampler: str
    trials_digest: str
    number_of_inferences: int
    search_errors: tuple[float, float]
    holdout_errors: tuple[float, float]
    verdict: dict[str, Any]
    insisted: bool
    versions: dict[str, str]
    gate: dict[str, Any] | None = None
    best_existing: dict[str, Any] | None = None


class Recipe(BaseModel):
    """Everything a variant follows from.

    Attributes:
        format: Version of this document.
        topology: Definition of the steps.
        latest: Position of the checkpoint that steps are added to, from 0.
        members: Checkpoints of the chain, base first.
        chain_digest: Digest of the chain; see `ztom.blending.chain.Chain.digest`.
        factors: Scaling factors, one per transition; with groups step by step, and in a step group
            by group.
        coefficients: Coefficients, one per member; the blend is their weighted sum. With groups
            member by member, and in a member group by group.
        dtype: Dtype that tensors were cast to; ``auto`` kept what was stored.
        form: Full weights, or one LoRA adapter over the base.
        max_shard_bytes: Largest shard, bytes.
        realised: Realised over intended step; None where nothing changed.
        versions: Versions of the libraries that wrote it, by name.
        evidence: Evidence of a search and its proof; None for factors set by hand.
        kept: Files of the latest checkpoint that are neither weights nor configuration nor
            tokenizer: the sha256 of each by its path.
        left_out: Reason why other files of it are not here, by path.
        notes: What was passed over or put right so that the chain fits, a sentence each.
        allow_config_differences: Keys of ``config.json`` in which members were allowed to differ.
        allow_tokenizer_differences: Whether tokenizers were allowed to split texts differently.
        groups: Groups of tensors that have factors of their own, and the group of every tensor;
            None for one factor per transition.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    topology: Topology
    latest: int
    members: tuple[RecipeMember, ...]
    chain_digest: str
    factors: tuple[float, ...]
    coefficients: tuple[float, ...]
    dtype: str
    form: Form
    max_shard_bytes: int
    realised: float | None
    versions: dict[str, str]
    evidence: SearchEvidence | None = None
    kept: dict[str, str] = Field(default_factory=dict)
    left_out: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    allow_config_differences: tuple[str, ...] = ()
    allow_tokenizer_differences: bool = False
    groups: GroupRecord | None = None

    @property
    def grouped_factors(self) -> GroupedFactors:
        """The factors with their groups."""
        return GroupedFactors(factors=self.factors, groups=self.groups)

    def to_bytes(self) -> bytes:
        """The document, the same bytes for the same content."""
        content = self.model_dump(mode="json")
        # without any, the bytes are those of older versions
        for name in _OPTIONAL:
            if not content[name]:
                del content[name]
        if self.evidence is not None and self.evidence.best_existing is None:
            del content["evidence"]["best_existing"]
        return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()


def recipe_members(chain: Chain) -> tuple[RecipeMember, ...]:
    """The chain's members as a recipe names them."""
    return tuple(
        RecipeMember(reference=member.reference, sha256=member.digest, tag=tag)
        for member, tag in zip(chain.members, chain.tags, strict=True)
    )


def step_names(recipe: Recipe) -> tuple[str, ...]:
    """A name per transition, as the chain itself has them."""
    return transition_names([member.tag for member in recipe.members], recipe.topology)


def writer_versions() -> Mapping[str, str]:
    """Versions that the bytes can depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def read_recipe(folder: StoragePlace) -> Recipe:
    """Read the recipe of a variant, here or in a store.

    Raises:
        VariantError: There is none, or it is malformed.
    """
    try:
        raw = read_place(folder / RECIPE)
    except OSError as error:
        raise VariantError(
            f"{folder} has no readable {RECIPE}", reason=error.strerror or error
        ) from error
    return check_json(Recipe, raw, wrong=f"{folder / RECIPE} is not a recipe", kind=VariantError)
