"""Checks that a variant is what it claims: files by the manifest, weights by the recipe."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ztom.blending.adapter import blend_adapter
from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig, Member
from ztom.blending.group_assignment import regroup_chain
from ztom.blending.plan import parse_dtype, plan_blend
from ztom.checkpoints.checkpoint import open_folder
from ztom.errors import ConfigError, VariantError
from ztom.settings import Settings
from ztom.variants.manifest import Manifest, check_files
from ztom.variants.recipe import Recipe, read_recipe
from ztom.variants.signature import ManifestSignature, require_signer


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked.

    Attributes:
        manifest: Every file is what it says.
        rederived: Tensors that were derived again and are equal bit for bit.
        tensors: Tensors of the variant.
        tolerated: Names of what a way over the Hub has added or edited.
        signed: Who has signed it; None where nobody has.
    """

    manifest: Manifest
    rederived: int
    tensors: int
    tolerated: tuple[str, ...] = ()
    signed: ManifestSignature | None = None


def verify_variant(
    folder: Path, *, share: float = 0.1, settings: Settings, chain: ChainConfig | None = None
) -> Verification:
    """Check the manifest, then derive a share of the tensors again from the recipe's chain.

    Args:
        folder: Folder of the variant.
        share: Share of the tensors, 0 to 1; which ones follows from the variant's digest. At least
            one is derived unless the share is 0.
        settings: Settings of opening the chain.
        chain: Chain at the place where it is now; the recipe's own references when None. The
            content must be that of the recipe either way.

    Raises:
        VariantError: A file or a tensor is not what it should be.
        SignatureError: It is signed with another key than those that count, or not at all although
            it has to be.
        ContentChangedError: A checkpoint of the chain is no longer what it was.
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigError("the share of tensors to derive again", got=share, expected="0 to 1")
    files = check_files(folder)
    manifest = files.manifest
    require_signer(folder, files.signed, settings=settings)
    recipe = read_recipe(folder)
    _check_kept(folder, recipe, manifest)
    derived = {}
    if share:
        opened = open_recipe_chain(recipe, settings=settings, chain=chain)
        derived = _derivations(recipe, opened)
    variant = open_folder(folder.absolute(), settings=settings)
    count = math.ceil(share * len(derived))
    order = sorted(
        derived, key=lambda name: hashlib.sha256(f"{manifest.digest} {name}".encode()).digest()
    )
    for name in order[:count]:
        again, there = derived[name](), variant.read(name)
        if again.dtype != there.dtype or not torch.equal(again, there):
            raise VariantError(
                f"{name} of {folder} does not follow from the recipe",
                got=_difference(again, there),
                expected="equal bit for bit",
            )
    return Verification(manifest, count, len(variant.tensors), files.tolerated, files.signed)


def open_recipe_chain(
    recipe: Recipe, *, settings: Settings, chain: ChainConfig | None = None
) -> Chain:
    """Open the chain that a variant was blended from; reads every byte of it.

    Args:
        recipe: Recipe of the variant.
        settings: Settings of opening the chain.
        chain: Chain at the place where it is now; the recipe's own references when None.

    Raises:
        VariantError: It is another chain.
        ContentChangedError: A checkpoint is no longer what it was.
    """
    config = chain or ChainConfig(
        topology=recipe.topology,
        latest=recipe.latest if recipe.topology == "siblings" else None,
        checkpoints=tuple(
            Member(reference=m.reference, sha256=m.sha256, tag=m.tag) for m in recipe.members
        ),
        allow_dtype_cast=True,
    )
    # what was accepted when it was written is accepted again: its content is pinned
    allowed = {
        "allow_config_differences": recipe.allow_config_differences,
        "allow_tokenizer_differences": recipe.allow_tokenizer_differences,
    }
    opened = load_chain(config.model_copy(update=allowed), settings=settings)
    if opened.digest != recipe.chain_digest:
        raise VariantError(
            "the chain is not the one of the recipe",
            got=opened.digest[:12],
            expected=recipe.chain_digest[:12],
        )
    return regroup_chain(opened, recipe.groups)


def _derivations(recipe: Recipe, chain: Chain) -> dict[str, Callable[[], torch.Tensor]]:
    """How to derive each tensor of the variant, by the name it has in the variant's files."""
    read = file_reader(chain)
    if recipe.form == "adapter":
        tensors = blend_adapter(chain, recipe.factors, read).tensors
        return {name: partial(tensors.__getitem__, name) for name in tensors}
    plans = plan_blend(chain, recipe.factors, dtype=parse_dtype(recipe.dtype)).tensors
    return {plan.name: partial(blend_tensor, plan, read) for plan in plans}


def _check_kept(folder: Path, recipe: Recipe, manifest: Manifest) -> None:
    """Files of the latest checkpoint are what the recipe says that they were."""
    for path, digest in recipe.kept.items():
        entry = manifest.files.get(path)
        if entry is None or entry.sha256 != digest:
            raise VariantError(
                f"{path} of {folder} is not the one that the recipe kept",
                got="nothing" if entry is None else f"sha256 {entry.sha256[:12]}",
                expected=f"sha256 {digest[:12]}",
            )


def _difference(derived: torch.Tensor, written: torch.Tensor) -> str:
    if derived.shape != written.shape or derived.dtype != written.dtype:
        return f"{written.dtype} {list(written.shape)}"
    return f"a difference of up to {float((derived.float() - written.float()).abs().max()):.3g}"
