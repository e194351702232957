"""What goes over the wire: bodies in, documents out, both in camel case.

Bodies of our own routes and of accounts refuse what they do not know. Where users' existing code
sends further keyword arguments (uploads, edits, analyses, the search), what is not known is left
aside, and the answer says so (`Tolerant.warnings`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from ztom.engines.config import EngineConfig
from ztom.ledger.accounts import ApiKeyRecord, Scope, UserRecord
from ztom.ledger.project_files import CheckpointRecord
from ztom.ledger.projects import MemberRecord, ProjectRecord, Role
from ztom.ledger.requests import RequestRecord
from ztom.scoring.build import ErrorTerm
from ztom.search.config import BatchSize, DetailedOutput, Evaluations, ScalingFactorLimit, Seed
from ztom.search.samplers.protocol import SamplerName

FORMAT = "HF_TEXT_GENERATION"
#: Formats of the original product that this server does not work with yet.
LATER_FORMATS = ("ONNX", "KERAS", "HF_IMAGE_TEXT_TO_TEXT")


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_printable)]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_printable),
]
Username = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]
Email = Annotated[
    str, StringConstraints(max_length=200, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$")
]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
FormatName = Literal["ONNX", "KERAS", "HF_TEXT_GENERATION", "HF_IMAGE_TEXT_TO_TEXT"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _from_json_text(value: Any) -> Any:
    """Dicts and lists arrive as JSON text in forms, and from some clients in bodies too."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("not JSON") from None


def _from_comma_text(value: Any) -> Any:
    """Lists arrive comma-joined in forms."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


JsonDict = Annotated[dict[str, Any], BeforeValidator(_from_json_text)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_from_comma_text)]


class Strict(BaseModel):
    """A body that may hold nothing but its fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True
    )


class Tolerant(BaseModel):
    """A body that may hold more; see the module's docstring."""

    model_config = ConfigDict(
        extra="allow", frozen=True, alias_generator=to_camel, validate_by_name=True
    )

    @property
    def warnings(self) -> list[str]:
        """What was left aside, by name."""
        return [f"{name[:60]!r} is not known and was ignored" for name in self.model_extra or ()]


class Login(Strict):
    """Username or address, and password."""

    username: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class Register(Strict):
    """A new account."""

    username: Username
    email_address: Email
    password: str = Field(min_length=10, max_length=1000)
    first_name: Text = ""
    last_name: Text = ""


class UserPatch(Strict):
    """A user about themselves."""

    email_address: Email | None = None
    first_name: Text | None = None
    last_name: Text | None = None
    password: str | None = Field(default=None, min_length=10, max_length=1000)
    current_password: str | None = Field(default=None, max_length=1000)


class AdminPatch(Strict):
    """An administrator about a user."""

    email_address: Email | None = None
    roles: tuple[Literal["ADMIN", "USER"], ...] | None = None
    enabled: bool | None = None


class NewKey(Strict):
    """An API key to be."""

    name: Name
    scopes: tuple[Scope, ...] = Field(default=(Scope.READ, Scope.WRITE, Scope.INFER), min_length=1)
    project_id: Id | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class NewProject(Strict):
    """A project to be."""

    name: Name
    description: Text = ""
    format: FormatName = "HF_TEXT_GENERATION"


class ProjectPatch(Strict):
    """A project anew."""

    project_id: Id
    name: Name | None = None
    description: Text | None = None
    format: FormatName | None = None


class ProjectsGone(Strict):
    """Projects to be deleted."""

    project_ids: tuple[Id, ...] = Field(min_length=1, max_length=1000)
    hard_delete: bool = False


#: What the wire calls the permissions that a role stands for, and roles by name besides.
_ROLES: Mapping[str, Role] = {
    "MANAGE": Role.OWNER,
    "OWNER": Role.OWNER,
    "WRITE": Role.EDITOR,
    "EDITOR": Role.EDITOR,
    "READ": Role.VIEWER,
    "VIEWER": Role.VIEWER,
}
PERMISSIONS: Mapping[Role, tuple[str, ...]] = {
    Role.OWNER: ("READ", "WRITE", "MANAGE"),
    Role.EDITOR: ("READ", "WRITE"),
    Role.VIEWER: ("READ",),
}


def _known_permissions(values: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [value for value in values if value.upper() not in _ROLES]
    if unknown:
        raise ValueError(f"permissions are {', '.join(_ROLES)}")
    return values


class MemberPatch(Strict):
    """What a member may do."""

    permissions: Annotated[tuple[str, ...], AfterValidator(_known_permissions)] = Field(
        min_length=1, max_length=10
    )

    @property
    def role(self) -> Role:
        """The widest of what was named."""
        roles = {_ROLES[value.upper()] for value in self.permissions}
        return next(role for role in (Role.OWNER, Role.EDITOR, Role.VIEWER) if role in roles)


class NewMember(MemberPatch):
    """Somebody to be let in."""

    email_address: Email


class FileGone(Strict):
    """A file to be deleted."""

    project_id: Id
    file_id: Id
    hard_delete: bool = False


class Upload(Tolerant):
    """The fields of an upload, before the file."""

    project_id: Id
    format: FormatName = "HF_TEXT_GENERATION"
    file_name: Name | None = None
    tag: Name | None = None


class DataUpload(Tolerant):
    """The fields of an upload of a data set, before the file."""

    project_id: Id


class UploadChange(Tolerant):
    """The fields of a change of a file."""

    project_id: Id
    file_id: Id
    file_name: Name | None = None
    tag: Name | None = None
    format: FormatName | None = None


class Pointer(Tolerant):
    """A checkpoint that stays where it is.

    ``baseModel`` true says that it is the project's base model; an address there is that of the
    base model, which is added first where the project has none.
    """

    project_id: Id
    file_path: str = Field(min_length=1, max_length=2000)
    format: FormatName = "HF_TEXT_GENERATION"
    file_name: Name | None = None
    tag: Name | None = None
    base_model: bool | str | None = Field(default=None, union_mode="left_to_right")


class PointerChange(Tolerant):
    """A pointer that is to point elsewhere, or to be called otherwise."""

    project_id: Id
    file_id: Id
    file_path: str | None = Field(default=None, min_length=1, max_length=2000)
    format: FormatName | None = None
    file_name: Name | None = None
    tag: Name | None = None


class BaseModelGone(Tolerant):
    """Which project's base model is to be deleted."""

    project_id: Id
    hard_delete: bool = False


class FileEvent(Tolerant):
    """A file to be looked at again."""

    project_id: Id
    file_id: Id


class Edit(Tolerant):
    """Steps whose training is to be removed."""

    project_id: Id
    file_ids: Annotated[tuple[Id, ...], BeforeValidator(_from_comma_text)] = Field(min_length=1)


class Metatune(Edit):
    """Factors for steps."""

    scaling_factors: Annotated[tuple[Finite, ...], BeforeValidator(_from_comma_text)] = Field(
        min_length=1
    )


class StaticAnalysis(Tolerant):
    """Two checkpoints to be compared, tensor by tensor.

    ``CHOSEN`` compares the file with the one before it in the chain, ``LATEST`` with the last one.
    """

    project_id: Id
    file_id: Id
    comparison_type: Literal["CHOSEN", "LATEST"] = "CHOSEN"
    weight_names: Names | None = None
    bias_names: Names | None = None


class Inference(Tolerant):
    """Text from a checkpoint under the operator's roots."""

    model_path: str = Field(min_length=1, max_length=2000)
    base_model_path: str | None = Field(default=None, max_length=2000)
    format: FormatName = "HF_TEXT_GENERATION"
    inference_config_json: JsonDict = Field(default_factory=dict)
    batch_size: int | None = Field(default=None, ge=1)


class InferenceBatch(Inference):
    """The same on stimuli under the operator's roots."""

    stimulus_paths: tuple[str, ...] = Field(min_length=1, max_length=1000)


class Sensitivity(Tolerant):
    """The latest checkpoint's text, and what it is with one step scaled."""

    project_id: Id
    file_id: Id
    scaling_factor: Finite
    inference_config_json: JsonDict = Field(default_factory=dict)
    batch_size: int | None = Field(default=None, ge=1)


class SensitivityBatch(Sensitivity):
    """The same on stimuli under the operator's roots."""

    stimulus_paths: tuple[str, ...] = Field(min_length=1, max_length=1000)


def _error_terms(value: Any) -> Any:
    terms = value if isinstance(value, list | tuple) else [value]
    return [{"function": term} if isinstance(term, str) else term for term in terms]


ErrorTerms = Annotated[tuple[ErrorTerm, ...], BeforeValidator(_error_terms)]


class SearchFields(BaseModel):
    """What a search can be asked for, in either form of the call.

    It becomes a `SearchConfig` (`serve_apps.control_plane.search_config`), whose limits these are.
    """

    project_id: Id
    scaling_factor_limit: ScalingFactorLimit
    stimulus_paths: tuple[str, ...] = Field(min_length=1, max_length=1000)
    expected_output_path: str | None = Field(default=None, max_length=2000)
    batch_size: BatchSize | None = None
    inference_config_json: JsonDict = Field(default_factory=dict)
    detailed_output: DetailedOutput | None = None
    error: ErrorTerms = Field(
        default=(ErrorTerm(function="sentence_similarity"),), min_length=1, max_length=20
    )
    max_evaluations: Annotated[Evaluations, Field(le=10_000)] = 50
    holdout_path: str | None = Field(default=None, max_length=2000)
    holdout_expected_output_path: str | None = Field(default=None, max_length=2000)
    suite_paths: tuple[str, ...] = Field(default=(), max_length=100)
    labels: tuple[Name, ...] = ()
    sampler: SamplerName = "gp"
    seed: Seed = 0
    insist: bool = False
    engine: EngineConfig | None = None


class Search(SearchFields, Tolerant):
    """The original call, which answers when the search is over."""


class NewSearch(SearchFields, Strict):
    """Our asynchronous form of it."""


def user_document(user: UserRecord) -> dict[str, Any]:
    """A user."""
    return {
        "id": user.id,
        "username": user.username,
        "emailAddress": user.email,
        "firstName": user.first_name,
        "lastName": user.last_name,
        "roles": ["ADMIN", "USER"] if user.is_admin else ["USER"],
        "enabled": user.enabled,
        "createdAt": user.created,
    }


def key_document(key: ApiKeyRecord) -> dict[str, Any]:
    """An API key without its secret."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "projectId": key.project_id,
        "requestsPerMinute": key.requests_per_minute,
        "tokensPerMinute": key.tokens_per_minute,
        "createdAt": key.created,
        "revokedAt": key.revoked,
    }


def member_document(member: MemberRecord) -> dict[str, Any]:
    """A member."""
    return {
        "id": member.user_id,
        "emailAddress": member.email,
        "username": member.username,
        "role": member.role.upper(),
        "permissions": list(PERMISSIONS[member.role]),
    }


def file_document(file: CheckpointRecord) -> dict[str, Any]:
    """A file of a project. Contributions are null until they are computed."""
    return {
        "id": file.id,
        "fileName": file.file_name,
        "tag": file.tag,
        "format": file.format,
        "totalWeightContribution": file.weight_score,
        "totalBiasContribution": file.bias_score,
        "part": file.part.upper(),
        "storage": file.storage.upper(),
        "size": file.nbytes,
        "sha256": file.digest,
        "status": file.status.upper(),
        "message": file.message,
        "createdAt": file.created,
    }


def project_document(
    project: ProjectRecord, *, warnings: list[str] | None = None
) -> dict[str, Any]:
    """A project with its files in the order of the chain."""
    base = project.base
    document = {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "format": project.format,
        "createdAt": project.created,
        "baseModel": None if base is None else file_document(base),
        "fileList": [file_document(file) for file in project.files if file is not base],
    }
    return with_warnings(document, warnings or [])


def with_warnings(document: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """An answer, and what was left aside of the call, if anything was."""
    return {**document, "warnings": warnings} if warnings else document


def request_document(request: RequestRecord) -> dict[str, Any]:
    """A request and what came of it."""
    return {
        "requestId": request.id,
        "projectId": request.project_id,
        "kind": request.kind,
        "status": request.status,
        "reason": request.reason,
        "studyId": request.study_id,
        "checkpointId": request.checkpoint_id,
        "createdAt": request.created,
        "endedAt": request.ended,
        "hasArtifact": request.artifact is not None,
        "result": request.result,
    }
