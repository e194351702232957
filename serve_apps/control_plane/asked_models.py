"""The model that an inference or a sensitivity analysis is asked of, and the blends of it.

A file of a project is asked through the engine that holds the project's chain, as the blend that
gives back just that file, so that one engine answers for all of them. That is the same model as the
file alone where nothing but the weights differs along the chain; where something does (a chat
template, a tokenizer's settings), the file gets an engine of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from serve_apps.control_plane.access import Caller
from serve_apps.control_plane.chains import (
    ProjectChain,
    allows_any,
    chain_of_references,
    open_file_of_project,
    with_base,
)
from serve_apps.control_plane.named_paths import NamedCheckpoint, named_checkpoint
from serve_apps.control_plane.questions import EngineSpec
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import ChainSpec
from ztom.engines.config import EngineConfig
from ztom.errors import ZtomError
from ztom.ledger.checkpoints import CheckpointRecord, FileStatus, Part, Storage
from ztom.settings import Settings
from ztom.wire.differences import AllowedDifferences

if TYPE_CHECKING:
    from ztom.checkpoints.checkpoint import Checkpoint

#: Configurations are compared by what they say, but for keys on how a checkpoint was saved.
_CONFIGS = ("config.json", "adapter_config.json", "README.md")
_HOW_SAVED = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A model, and the blends of it that are asked.

    Attributes:
        spec: Model that an engine holds.
        factor_sets: Scaling factors of each blend; none for a fixed model.
    """

    spec: EngineSpec
    factor_sets: tuple[tuple[float, ...], ...]


def asked_path(
    path: str,
    base_path: str | None,
    caller: Caller,
    services: Services,
    *,
    engine: EngineConfig,
    allowed: AllowedDifferences,
) -> AskedModel:
    """The checkpoint at a path, or the adapter there over its base model.

    Args:
        path: Path of the server's own (see `serve_apps.control_plane.named_paths`), or an address
            under the operator's roots.
        base_path: The same for an adapter's base model; None takes the one that it names.
        caller: Whoever asks.
        services: Services of the process.
        engine: Options of the engine.
        allowed: What the model and others of its chain may differ in.

    Raises:
        HTTPException: There is no such file or search.
        ZtomError: The checkpoint cannot be used, or the caller may not point there.
    """
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    named = named_checkpoint(path, caller, services)
    if named is not None and named.file is not None and base_path is None:
        in_chain = _in_its_chain(named, named.file, services, engine, allowed)
        if in_chain is not None:
            return in_chain
    model = _place(path, named, services)
    opened = open_checkpoint(model.address, settings=model.settings)
    members = [model]
    if opened.kind == "adapter":
        members.insert(0, _base(opened, base_path, named, caller, services))
    chain = _chain_of_places(members, services, allowed)
    spec = EngineSpec(chain, engine.model_dump(mode="json"), _marks(members))
    return AskedModel(spec, ((0.0,) * (len(members) - 1),))


def asked_chain(
    chain: ProjectChain,
    factor_sets: tuple[tuple[float, ...], ...],
    services: Services,
    *,
    engine: EngineConfig,
    groups: Mapping[str, object] | None = None,
) -> AskedModel:
    """Blends of a project's chain.

    Args:
        chain: Chain of the project.
        factor_sets: Scaling factors of each blend.
        services: Services of the process.
        engine: Options of the engine.
        groups: Groups of tensors that have factors of their own, as JSON.
    """
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    pointers = [file for file in chain.files if file.storage is Storage.POINTER]
    marks = [
        file.digest or _mark(open_file_of_project(file, services), file.address)
        for file in pointers
    ]
    if chain.base is not None:
        marks.append(_mark(open_checkpoint(chain.base, settings=services.pointers), chain.base))
    place = replace(chain.spec(services), groups=groups)
    spec = EngineSpec(place, engine.model_dump(mode="json"), tuple(marks))
    return AskedModel(spec, factor_sets)


@dataclass(frozen=True, slots=True)
class _Place:
    """A checkpoint, and the settings under which it may be opened."""

    address: str
    settings: Settings
    managed: bool


def _place(path: str, named: NamedCheckpoint | None, services: Services) -> _Place:
    if named is None:
        return _Place(path, services.pointers, managed=False)
    managed = named.storage is Storage.MANAGED
    return _Place(named.address, services.managed if managed else services.pointers, managed)


def _base(
    adapter: Checkpoint,
    base_path: str | None,
    named: NamedCheckpoint | None,
    caller: Caller,
    services: Services,
) -> _Place:
    """The base model: the one that is given, the project's, or the one that the adapter names."""
    from ztom.checkpoints.bases import base_of_adapter  # it imports torch

    if base_path is not None:
        return _place(base_path, named_checkpoint(base_path, caller, services), services)
    base = None if named is None else named.project.base
    if base is not None:
        managed = base.storage is Storage.MANAGED
        settings = services.managed if managed else services.pointers
        return _Place(base.address, settings, managed)
    return _Place(
        base_of_adapter(adapter, settings=services.pointers), services.pointers, managed=False
    )


def _chain_of_places(
    members: list[_Place], services: Services, allowed: AllowedDifferences
) -> ChainSpec:
    own = [place.address for place in members if place.managed]
    chain = chain_of_references([place.address for place in members], services, allowed)
    # an adapter has its own tokenizer, if any: nothing of its base's rows is blended
    chain = replace(chain, allow_tokenizer_differences=True)
    # what the server keeps lies under what callers may not point to
    return replace(chain, roots=(*chain.roots, *own), denied=()) if own else chain


def _in_its_chain(
    named: NamedCheckpoint,
    file: CheckpointRecord,
    services: Services,
    engine: EngineConfig,
    allowed: AllowedDifferences,
) -> AskedModel | None:
    """A file as a blend of its project's chain; None where that would be another model."""
    if file.part is Part.MASTERED:
        return None
    try:
        chain = replace(with_base(named.project.chain, services), allowed=allowed)
        fits = allows_any(allowed) or all(f.message is None for f in chain.files)
        usable = fits and all(f.status is not FileStatus.INVALID for f in chain.files)
        if chain.length < 2 or not usable or not _same_besides_weights(chain, file, services):
            return None
        # the last is the chain as it is; an earlier one has every later step removed
        at, last = chain.position(file.id), chain.length - 1
        factors = tuple(0.0 if step <= at else -1.0 for step in range(1, last + 1))
        return asked_chain(chain, (factors,), services, engine=engine)
    except ZtomError:
        return None  # what is wrong with another file is not this one's fault


def _same_besides_weights(chain: ProjectChain, file: CheckpointRecord, services: Services) -> bool:
    latest = chain.files[-1]
    if latest.id == file.id:
        return True
    return _papers(file, services) == _papers(latest, services)


def _papers(file: CheckpointRecord, services: Services) -> Mapping[str, object]:
    checkpoint = open_file_of_project(file, services)
    papers: dict[str, object] = {
        name: checkpoint.source.sha256(name)
        for name in checkpoint.files
        if name not in _CONFIGS and not name.endswith(".index.json")
    }
    config = {k: v for k, v in checkpoint.config.items() if k not in _HOW_SAVED}
    return papers | {"kind": checkpoint.kind, "config": config}


def _marks(members: list[_Place]) -> tuple[str, ...]:
    """What tells content at somebody's own address from what was there before."""
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    return tuple(
        _mark(open_checkpoint(place.address, settings=place.settings), place.address)
        for place in members
        if not place.managed
    )


def _mark(checkpoint: Checkpoint, address: str) -> str:
    """Sizes and times of the files, or the generations that a store gives them."""
    folder = checkpoint.source.local_folder()
    parts = []
    for name in checkpoint.used_files:
        if folder is not None:
            status = os.stat(folder / name)
            parts.append(f"{name} {status.st_ino} {status.st_size} {status.st_mtime_ns}")
        else:
            parts.append(f"{name} {checkpoint.source.generation(name)}")
    if folder is None and Path(address).is_file():
        status = os.stat(address)
        parts.append(f"{status.st_ino} {status.st_size} {status.st_mtime_ns}")
    return "; ".join(parts)
