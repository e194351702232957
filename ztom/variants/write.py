"""Write a variant: aside, synced, manifest last, then renamed into place.

`stage_variant` blends into a private folder beside the destination, where the weights can be loaded
and proved; `StagedVariant.publish` adds recipe, card and manifest and makes it visible in one step.
A process that is killed at any point leaves the destination absent or whole. Where the destination
is an address, the private folder is in the cache, and the files are copied with the manifest last
(`ztom.variants.copies`): without it there is no variant.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ztom.blending.adapter import blend_adapter
from ztom.blending.apply import file_reader
from ztom.blending.chain import Chain
from ztom.blending.files import files_of_blend
from ztom.blending.plan import parse_dtype, plan_blend
from ztom.blending.precision import PrecisionMeter, PrecisionReport, measure_precision
from ztom.checkpoints.cache import publish_folder, staging_folder
from ztom.checkpoints.checkpoint import Checkpoint, copy_file
from ztom.checkpoints.layout import ADAPTER
from ztom.checkpoints.other_files import OtherFiles, find_other_files
from ztom.errors import VariantError
from ztom.io.disk import disk_errors, require_room
from ztom.io.files import sync_path
from ztom.io.places import StoragePlace, StoreAddress
from ztom.settings import Settings
from ztom.variants.card import render_card
from ztom.variants.copies import StagedCopy, finish_upload, upload_files
from ztom.variants.manifest import (
    CARD,
    MANIFEST,
    Manifest,
    build_manifest,
    read_manifest,
    verify_manifest,
)
from ztom.variants.recipe import (
    RECIPE,
    Form,
    Recipe,
    SearchEvidence,
    recipe_members,
    writer_versions,
)
from ztom.variants.shards import save_tensors, write_shards
from ztom.variants.signature import SIGNATURE, sign_variant

logger = logging.getLogger(__name__)

DEFAULT_SHARD_BYTES = 2 * 2**30
#: What a variant has of its own.
_OWN = (CARD, MANIFEST, RECIPE, SIGNATURE)


@dataclass(frozen=True)
class WriteOptions:
    """How a variant is written.

    Attributes:
        dtype: Dtype that tensors are cast to; ``auto`` keeps what is stored.
        form: Full weights, or one LoRA adapter (chains of adapters only).
        max_shard_bytes: Largest shard, bytes.
    """

    dtype: str = "auto"
    form: Form = "dense"
    max_shard_bytes: int = DEFAULT_SHARD_BYTES


@dataclass(frozen=True)
class StagedVariant:
    """Blended weights that can be loaded but are not a variant yet.

    Attributes:
        folder: The private folder.
        destination: Folder in which it will stand, here or in a store.
        recipe: Recipe, which has no evidence yet.
        precision: Report on how much of the intended step was realised.
        staged: The weights where every node reads them, if they are there already.
    """

    folder: Path
    destination: StoragePlace
    recipe: Recipe
    precision: PrecisionReport
    staged: StagedCopy | None = None

    def seal(self, evidence: SearchEvidence | None = None) -> Manifest:
        """Complete the private folder: recipe, card, signature, manifest, all of it on the disk.

        Where the destination is in a store, everything but the manifest is there then.

        Raises:
            StorageError: The disk or the store refused.
            VariantError: Another variant stands at the address.
        """
        with disk_errors(self.folder):
            manifest = self._seal(evidence)
        if isinstance(self.destination, StoreAddress):
            upload_files(self.folder, self.destination, manifest, staged=self.staged)
        return manifest

    def _seal(self, evidence: SearchEvidence | None) -> Manifest:
        recipe = self.recipe.model_copy(update={"evidence": evidence})
        (self.folder / RECIPE).write_bytes(recipe.to_bytes())
        (self.folder / CARD).write_text(render_card(recipe, self.precision), encoding="utf-8")
        manifest = build_manifest(self.folder)
        for name in manifest.files:
            sync_path(self.folder / name)
        for below in self.folder.rglob("*/"):
            sync_path(below)
        if sign_variant(self.folder, manifest.digest) is not None:
            sync_path(self.folder / SIGNATURE)
        (self.folder / MANIFEST).write_bytes(manifest.to_bytes())
        sync_path(self.folder / MANIFEST)
        return manifest

    def place(self, manifest: Manifest) -> None:
        """Make what was sealed appear at its destination.

        That is a rename, or one object in a store, quick whatever the size; only where a folder
        stands there already are its files read, to see whether it is the same variant.

        Raises:
            StorageError: The store refused; there is no variant then.
            VariantError: Something else stands there.
        """
        if isinstance(self.destination, StoreAddress):
            finish_upload(self.destination, manifest)
            return
        if not self.destination.exists():
            publish_folder(self.folder, self.destination)
            # of two writers at once one wins: see which
            if read_manifest(self.destination) == manifest:
                return
        _same_or_refuse(self.destination, manifest)

    @property
    def folder_now(self) -> Path:
        """Where the files are on this machine: at the destination once they were placed there."""
        if isinstance(self.destination, Path) and not self.folder.exists():
            return self.destination
        return self.folder

    def publish(self, evidence: SearchEvidence | None = None) -> Manifest:
        """Seal and place at once, for variants that are not put on record."""
        manifest = self.seal(evidence)
        self.place(manifest)
        return manifest


@contextmanager
def stage_variant(
    chain: Chain,
    factors: Sequence[float],
    destination: StoragePlace,
    *,
    options: WriteOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[StagedVariant]:
    """Blend into a private folder; it is gone at the end unless it was published.

    Args:
        chain: Chain that was opened and checked; its content is compared with its digests once
            more.
        factors: Scaling factors, one per transition, or per transition and group.
        destination: The variant's folder, whose parent is made; or its address.
        options: Options of writing.
        progress: Callback with bytes written, and bytes in all.

    Raises:
        BlendError: The blend is not finite at the deployed dtype.
        CheckpointError: A folder holds too much besides the model.
        ContentChangedError: A checkpoint changed since it was opened.
        StorageError: The disk refused (full, read-only).
    """
    destination = destination.absolute()
    shelf = workspace(destination)
    options = options or WriteOptions()
    for member in chain.members:
        member.verify_pin()
    others = _other_files(chain, options.form)
    require_room(shelf, needed_bytes(chain, options), what="the variant")
    with staging_folder(shelf) as outer:
        folder = outer / destination.name
        folder.mkdir()
        write = _write_adapter if options.form == "adapter" else _write_dense
        with disk_errors(folder):
            precision = write(chain, factors, folder, options, progress)
            kept = _keep(others, folder)
        recipe = Recipe(
            topology=chain.topology,
            latest=chain.latest,
            members=recipe_members(chain),
            chain_digest=chain.digest,
            factors=chain.check_factors(factors),
            coefficients=chain.coefficients(factors),
            dtype=options.dtype,
            form=options.form,
            max_shard_bytes=options.max_shard_bytes,
            realised=precision.overall.realised,
            versions=dict(writer_versions()),
            kept=kept,
            left_out={path: why for _, files in others for path, why in files.left_out.items()},
            notes=chain.notes,
            allow_config_differences=chain.allow_config_differences,
            allow_tokenizer_differences=chain.allow_tokenizer_differences,
            groups=None if chain.groups is None else chain.groups.record(),
        )
        yield StagedVariant(folder, destination, recipe, precision)


def workspace(destination: StoragePlace) -> Path:
    """Folder of this machine in which a variant is written before it stands at its destination."""
    if isinstance(destination, StoreAddress):
        return Settings().cache / "writing"
    return destination.absolute().parent


def needed_bytes(chain: Chain, options: WriteOptions) -> int:
    """Bytes that the weights of a variant take on a disk, known before anything is blended.

    Args:
        chain: Chain that was opened and checked.
        options: Options of writing.
    """
    if options.form == "adapter":  # the factors of all of them, one after the other
        adapters = [
            member
            for member, adapter in zip(chain.members, chain.adapters, strict=True)
            if adapter is not None
        ]
        return sum(spec.nbytes for member in adapters for spec in member.tensors.values())
    no_step = (0.0,) * chain.factor_count
    return plan_blend(chain, no_step, dtype=parse_dtype(options.dtype)).nbytes


def _write_dense(
    chain: Chain,
    factors: Sequence[float],
    folder: Path,
    options: WriteOptions,
    progress: Callable[[int, int], None] | None,
) -> PrecisionReport:
    dtype = parse_dtype(options.dtype)
    plan, read = plan_blend(chain, factors, dtype=dtype), file_reader(chain)
    meter = PrecisionMeter(chain, read, dtype=dtype)
    for done in write_shards(
        plan, read, folder, max_shard_bytes=options.max_shard_bytes, observe=meter.observe
    ):
        if progress is not None:
            progress(done, plan.nbytes)
    _copy_files(files_of_blend(chain), folder)
    _write_config(chain.members[chain.model], folder, dtype)
    return meter.report()


def _write_adapter(
    chain: Chain,
    factors: Sequence[float],
    folder: Path,
    options: WriteOptions,
    progress: Callable[[int, int], None] | None,
) -> PrecisionReport:
    read = file_reader(chain)
    adapter = blend_adapter(chain, factors, read)
    save_tensors(adapter.tensors, folder / ADAPTER)
    _copy_files(dict.fromkeys(chain.reference.files, chain.reference), folder)
    (folder / "adapter_config.json").write_bytes(_json(adapter.config))
    if progress is not None:
        size = (folder / ADAPTER).stat().st_size
        progress(size, size)
    return measure_precision(chain, factors, read, dtype=parse_dtype(options.dtype))


def _copy_files(files: Mapping[str, Checkpoint], folder: Path) -> None:
    """Tokenizer and configuration, as they are."""
    for name, checkpoint in files.items():
        if name not in _OWN and not name.endswith(".index.json"):
            (folder / name).write_bytes(checkpoint.source.read(name))


def _other_files(chain: Chain, form: Form) -> list[tuple[Checkpoint, OtherFiles]]:
    """What else the latest checkpoint's folder holds, and that of its base where it is an adapter.

    Raises:
        CheckpointError: It is too much.
    """
    sources = [chain.reference]
    if form == "dense" and chain.model != chain.latest:
        sources.append(chain.base)
    limit = Settings().max_kept_bytes
    return [
        (source, find_other_files(source, max_bytes=limit, replaced=_OWN)) for source in sources
    ]


def _keep(others: Sequence[tuple[Checkpoint, OtherFiles]], folder: Path) -> dict[str, str]:
    """Copy them, bytes and all; returns the sha256 of each by its path."""
    kept: dict[str, str] = {}
    for checkpoint, files in others:
        for path in files.kept:
            if not (folder / path).exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                kept[path] = copy_file(checkpoint.source, path, folder / path)
    return kept


def _write_config(model: Checkpoint, folder: Path, dtype: torch.dtype | None) -> None:
    """The model's config, with the dtype that the weights have now."""
    config: dict[str, Any] = dict(model.config)
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_bytes(_json(config))


def _same_or_refuse(destination: Path, manifest: Manifest) -> None:
    """Writing the same variant twice is fine; writing over another one is not."""
    existing = verify_manifest(destination)
    if existing != manifest:
        raise VariantError(
            f"another variant stands at {destination}",
            got=f"digest {existing.digest[:12]}",
            expected=f"digest {manifest.digest[:12]}, or nothing",
            fix="Choose another name; a variant is never replaced.",
        )


def _json(content: object) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()
