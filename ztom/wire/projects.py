"""Projects and their members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import AfterValidator, Field

from ztom.wire import examples
from ztom.wire.base import TolerantRequest, Warnings, WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import Email, FormatName, Id, Name, Text
from ztom.wire.files import ProjectFile

if TYPE_CHECKING:
    from ztom.ledger.checkpoints import CheckpointRecord
    from ztom.ledger.projects import MemberRecord, ProjectRecord

MemberRole = Literal["OWNER", "EDITOR", "VIEWER"]
#: The widest first, with what the wire calls the permissions that a role stands for.
PERMISSIONS: Mapping[MemberRole, tuple[str, ...]] = {
    "OWNER": ("READ", "WRITE", "MANAGE"),
    "EDITOR": ("READ", "WRITE"),
    "VIEWER": ("READ",),
}
#: A role by its own name, or by the permission that no narrower role has.
_ROLES: Mapping[str, MemberRole] = {
    "MANAGE": "OWNER",
    "OWNER": "OWNER",
    "WRITE": "EDITOR",
    "EDITOR": "EDITOR",
    "READ": "VIEWER",
    "VIEWER": "VIEWER",
}


class NewProject(TolerantRequest):
    """A project to be made."""

    model_config = example(
        name="support", description="answers to customers", format="HF_TEXT_GENERATION"
    )

    name: Name
    description: Text = ""
    format: FormatName = "HF_TEXT_GENERATION"


class ProjectPatch(TolerantRequest):
    """Another name or description of a project; its format cannot be changed."""

    model_config = example(projectId=examples.PROJECT, name="support, German")

    project_id: Id
    name: Name | None = None
    description: Text | None = None
    format: FormatName | None = None


class ProjectDeletion(WireRequest):
    """Projects to be deleted; ``hardDelete`` takes their files as well."""

    model_config = example(projectIds=[examples.PROJECT], hardDelete=False)

    project_ids: tuple[Id, ...] = Field(min_length=1, max_length=1000)
    hard_delete: bool = False


def _known_permissions(values: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [value for value in values if value.upper() not in _ROLES]
    if unknown:
        raise ValueError(f"permissions are {', '.join(_ROLES)}")
    return values


class MemberPatch(WireRequest):
    """What a member may do."""

    model_config = example(permissions=["READ", "WRITE"])

    permissions: Annotated[tuple[str, ...], AfterValidator(_known_permissions)] = Field(
        min_length=1, max_length=10
    )

    @property
    def role(self) -> MemberRole:
        """The widest of what was named."""
        roles = {_ROLES[value.upper()] for value in self.permissions}
        return next(role for role in PERMISSIONS if role in roles)


class NewMember(MemberPatch):
    """A user who is to work on the project."""

    model_config = example(emailAddress="grace@example.org", permissions=["READ", "WRITE"])

    email_address: Email


class ProjectMember(WireAnswer):
    """A user who works on a project.

    Attributes:
        id: Id of the user.
        permissions: Permissions of the role: ``READ``, ``WRITE``, ``MANAGE``.
    """

    model_config = example(
        id=examples.USER,
        emailAddress="grace@example.org",
        username="grace",
        role="EDITOR",
        permissions=["READ", "WRITE"],
    )

    id: str
    email_address: str
    username: str
    role: MemberRole
    permissions: tuple[str, ...]

    @classmethod
    def of(cls, record: MemberRecord) -> ProjectMember:
        """The member on record."""
        role = cast(MemberRole, record.role.upper())
        return cls(
            id=record.user_id,
            email_address=record.email,
            username=record.username,
            role=role,
            permissions=PERMISSIONS[role],
        )


class Project(WireAnswer):
    """A project.

    Attributes:
        base_model: First checkpoint of the chain; None where the project has none.
        files: Checkpoints without the base model, in the order of the chain.
        warnings: What was left aside of the request.
    """

    model_config = example(
        id=examples.PROJECT,
        name="support",
        description="answers to customers",
        format="HF_TEXT_GENERATION",
        createdAt=examples.TIME,
        baseModel=None,
        fileList=[examples.example_of(ProjectFile.model_json_schema())],
    )

    id: str
    name: str
    description: str
    format: FormatName
    created_at: str
    base_model: ProjectFile | None
    files: tuple[ProjectFile, ...] = Field(alias="fileList")
    warnings: Warnings = ()

    @classmethod
    def of(cls, record: ProjectRecord, *, warnings: list[str] | None = None) -> Project:
        """The project on record.

        Args:
            record: Project on record, with its files.
            warnings: What was left aside of the request.
        """
        base = record.base
        first = next(iter(record.chain), None)
        names = Counter(file.file_name for file in record.files)
        files = {
            file: ProjectFile.of(
                file,
                name=file.id if names[file.file_name] > 1 else None,
                is_first=file is first,
            )
            for file in record.files
        }
        return cls(
            id=record.id,
            name=record.name,
            description=record.description,
            format=cast(FormatName, record.format),
            created_at=record.created,
            base_model=None if base is None else files[base],
            files=tuple(files[file] for file in record.files if file is not base),
            warnings=tuple(warnings or ()),
        )


class LatestCheckpoint(WireAnswer):
    """The last checkpoint of a project's chain that was looked at."""

    id: str
    file_name: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class ParameterNames:
    """Names of a model's parameters.

    Attributes:
        layers: Names of the layers that have parameters.
        weights: Names of the weights.
        biases: Names of the biases.
    """

    layers: tuple[str, ...]
    weights: tuple[str, ...]
    biases: tuple[str, ...]


class ProjectMetadata(WireAnswer):
    """What is known of a project's model.

    Attributes:
        checkpoints: Number of checkpoints in the chain, with the base model.
        transitions: Number of steps between them, which is the number of scaling factors.
        latest: The last one that was looked at.
        layer_names: Names of the layers that have parameters, as analyses take them.
        weight_names: Names of the weights, as a static analysis takes them.
        bias_names: Names of the biases.
    """

    model_config = example(
        format="HF_TEXT_GENERATION",
        checkpoints=3,
        transitions=2,
        latest={"id": examples.FILE, "fileName": "epoch-2", "sha256": examples.DIGEST},
        layerNames=["model.layers.0.mlp.up_proj"],
        weightNames=["model.layers.0.mlp.up_proj.weight"],
        biasNames=[],
    )

    format: FormatName
    checkpoints: int
    transitions: int
    latest: LatestCheckpoint
    layer_names: tuple[str, ...]
    weight_names: tuple[str, ...]
    bias_names: tuple[str, ...]

    @classmethod
    def of(
        cls, record: ProjectRecord, last: CheckpointRecord, *, length: int, names: ParameterNames
    ) -> ProjectMetadata:
        """What is known of the project on record.

        Args:
            record: Project on record.
            last: Last file of its chain that was looked at.
            length: Number of checkpoints in the chain.
            names: Names of the parameters of the model.
        """
        return cls(
            format=cast(FormatName, record.format),
            checkpoints=length,
            transitions=max(0, length - 1),
            layer_names=names.layers,
            weight_names=names.weights,
            bias_names=names.biases,
            latest=LatestCheckpoint(id=last.id, file_name=last.file_name, sha256=last.digest),
        )
