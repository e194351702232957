"""The chain of a project that work is done on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException

from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import ChainSpec
from ztom.blending.chain_file import ChainConfig, Member
from ztom.ledger.checkpoints import CheckpointRecord, FileStatus, Storage
from ztom.ledger.projects import ProjectRecord


def chain_of(project: ProjectRecord, services: Services) -> ChainSpec:
    """The project's chain, base model first.

    Raises:
        HTTPException: 422, it has no step, or a file of it cannot be used.
    """
    files = project.chain
    if len(files) < 2:
        raise HTTPException(
            422,
            f"The project has {len(files)} checkpoints; a chain takes at least two, a base model "
            "or a first checkpoint and an iteration.",
        )
    for file in files:
        if file.status is FileStatus.INVALID:
            raise HTTPException(422, f"{file.file_name} cannot be used: {file.message}")
    return chain_spec(files, services)


def chain_spec(files: Sequence[CheckpointRecord], services: Services) -> ChainSpec:
    """So many files as a chain; content that was looked at is pinned.

    Of the server's own files these alone may be read: a pointer that became a link leads nowhere.
    """
    own = [file.address for file in files if file.storage is Storage.MANAGED]
    return ChainSpec(
        references=tuple(file.address for file in files),
        roots=(*services.pointers.allowed_roots, *own),
        cache=str(services.store.cache),
        pins=tuple(file.digest for file in files),
    )


def chain_config(files: Sequence[CheckpointRecord]) -> ChainConfig:
    """So many files, two at least, as a search's configuration has its chain."""
    members = tuple(
        Member(reference=file.address, sha256=file.digest, tag=file.tag or file.file_name)
        for file in files
    )
    return ChainConfig(checkpoints=members)


def chain_of_references(references: Sequence[str], services: Services) -> ChainSpec:
    """Checkpoints that a caller points to."""
    settings = services.pointers
    return ChainSpec(
        references=tuple(references),
        roots=settings.allowed_roots,
        denied=settings.denied_roots,
        cache=str(services.store.cache),
    )


def factors_of(project: ProjectRecord, factors: Mapping[str, float]) -> tuple[float, ...]:
    """One factor for each transition of the chain.

    Args:
        project: Project with its files.
        factors: Scaling factor by the id of the file that a step ends in.

    Raises:
        HTTPException: A file is not in the chain (404), or is its first (422).
    """
    chain = project.chain
    positions = {file.id: at for at, file in enumerate(chain)}
    values = [0.0] * (len(chain) - 1)
    for file_id, factor in factors.items():
        if file_id not in positions:
            raise HTTPException(404, "the project's chain has no such file")
        if positions[file_id] == 0:
            raise HTTPException(422, "The first checkpoint of a chain has no step to be scaled.")
        values[positions[file_id] - 1] = factor
    return tuple(values)


def position_of(project: ProjectRecord, file_id: str) -> int:
    """Where a file stands in the chain.

    Raises:
        HTTPException: 404, it is not in it.
    """
    for at, file in enumerate(project.chain):
        if file.id == file_id:
            return at
    raise HTTPException(404, "the project's chain has no such file")
