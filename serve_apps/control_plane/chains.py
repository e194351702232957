"""The chain of a project that work is done on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import ChainSpec
from ztom.blending.chain_file import ChainConfig, Member
from ztom.blending.groups import factor_labels
from ztom.ledger.checkpoints import CheckpointRecord, FileStatus, Part, Storage
from ztom.ledger.projects import ProjectRecord
from ztom.wire.differences import AllowedDifferences

if TYPE_CHECKING:
    from ztom.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class ProjectChain:
    """The checkpoints that a project's work is done on, in order.

    Attributes:
        files: Files of the project: base model and iterations.
        base: Reference of the base model where it is no file of the project, because its files are
            adapters that name it; None where it is the first file.
        allowed: What its members may differ in.
    """

    files: tuple[CheckpointRecord, ...]
    base: str | None = None
    allowed: AllowedDifferences = field(default_factory=AllowedDifferences)

    @property
    def length(self) -> int:
        """Number of checkpoints."""
        return len(self.files) + (self.base is not None)

    def position(self, file_id: str) -> int:
        """Position of a file in the chain, from 0.

        Raises:
            HTTPException: 404, it is not in it.
        """
        for at, file in enumerate(self.files, start=self.length - len(self.files)):
            if file.id == file_id:
                return at
        raise HTTPException(404, "the project's chain has no such file")

    def factors(self, factors: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
        """The factors of each transition: one, or with groups one for each of them.

        Args:
            factors: Scaling factors by the id of the file that a step ends in, equally many for
                every file.

        Raises:
            HTTPException: A file is not in the chain (404), or is its first (422).
        """
        width = max(map(len, factors.values()), default=1)
        values = [0.0] * (self.length - 1) * width
        for file_id, of_step in factors.items():
            at = self.position(file_id)
            if at == 0:
                raise HTTPException(
                    422, "The first checkpoint of a chain has no step to be scaled."
                )
            values[(at - 1) * width : at * width] = of_step
        return tuple(values)

    def labels(self, groups: Sequence[str]) -> tuple[str, ...]:
        """A name for each factor: the file that its step ends in, and its group."""
        steps = [file.tag or file.file_name for file in self.files][-(self.length - 1) :]
        return factor_labels(steps, groups)

    def spec(self, services: Services) -> ChainSpec:
        """The chain as work is done on it; content that was looked at is pinned.

        Of the server's own files these alone may be read: a pointer that became a link leads
        nowhere.
        """
        own = [file.address for file in self.files if file.storage is Storage.MANAGED]
        before = () if self.base is None else (self.base,)
        return ChainSpec(
            references=(*before, *(file.address for file in self.files)),
            roots=(*services.pointers.allowed_roots, *own),
            cache=str(services.store.cache),
            pins=(*(None for _ in before), *(file.digest for file in self.files)),
            allow_config_differences=self.allowed.allow_config_differences,
            allow_tokenizer_differences=self.allowed.allow_tokenizer_differences,
        )

    def config(self) -> ChainConfig:
        """The chain as a search's configuration has it; two checkpoints at least."""
        members = [
            Member(reference=file.address, sha256=file.digest, tag=file.tag or file.file_name)
            for file in self.files
        ]
        if self.base is not None:
            members.insert(0, Member(reference=self.base, tag="base"))
        return ChainConfig(
            checkpoints=tuple(members),
            allow_config_differences=self.allowed.allow_config_differences,
            allow_tokenizer_differences=self.allowed.allow_tokenizer_differences,
        )


def project_chain(
    project: ProjectRecord, services: Services, allowed: AllowedDifferences
) -> ProjectChain:
    """The project's chain, base model first; adapters bring theirs.

    Args:
        project: Project with its files.
        services: Services of the process.
        allowed: What the files may differ in; usually the request itself.

    Raises:
        HTTPException: 422, it has no step, or a file of it cannot be used.
        ChainError: Its files are adapters, and their base model is not to be had.
    """
    chain = replace(with_base(project.chain, services), allowed=allowed)
    if chain.length < 2:
        raise HTTPException(
            422,
            f"The project has {len(project.chain)} checkpoints; a chain takes at least two, a base "
            "model or a first checkpoint and an iteration.",
        )
    for file in chain.files:
        if file.status is FileStatus.INVALID:
            raise HTTPException(422, f"{file.file_name} cannot be used: {file.message}")
        if file.message is not None and not allows_any(allowed):
            raise HTTPException(
                422,
                f"{file.file_name} does not fit the chain as it is: {file.message} A request says "
                "so with allowConfigDifferences or allowTokenizerDifferences.",
            )
    return chain


def allows_any(allowed: AllowedDifferences) -> bool:
    """Whether anything may differ; what it is, is looked at when the chain is opened."""
    return bool(allowed.allow_config_differences) or allowed.allow_tokenizer_differences


def with_base(files: Sequence[CheckpointRecord], services: Services) -> ProjectChain:
    """So many files as a chain; where the first is an adapter, over the base that it names.

    Raises:
        ChainError: The base model is not to be had.
    """
    if not files or files[0].part is Part.BASE:
        return ProjectChain(tuple(files))
    first = open_file_of_project(files[0], services)
    if first.kind == "full":
        return ProjectChain(tuple(files))
    from ztom.checkpoints.bases import base_of_adapter  # it imports torch

    return ProjectChain(tuple(files), base_of_adapter(first, settings=services.pointers))


def open_file_of_project(file: CheckpointRecord, services: Services) -> Checkpoint:
    """A file of a project, opened: its configuration and the headers of its weights.

    Raises:
        CheckpointError: It cannot be used.
        StorageError: It cannot be read.
    """
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    managed = file.storage is Storage.MANAGED
    return open_checkpoint(
        file.address, settings=services.managed if managed else services.pointers
    )


def chain_of_references(
    references: Sequence[str], services: Services, allowed: AllowedDifferences
) -> ChainSpec:
    """Checkpoints that a caller points to."""
    settings = services.pointers
    return ChainSpec(
        references=tuple(references),
        roots=settings.allowed_roots,
        denied=settings.denied_roots,
        cache=str(services.store.cache),
        allow_config_differences=allowed.allow_config_differences,
        allow_tokenizer_differences=allowed.allow_tokenizer_differences,
    )
