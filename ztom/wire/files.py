"""Files of projects: checkpoints that are uploaded or pointed to, and data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from ztom.wire import examples
from ztom.wire.base import TolerantRequest, WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import FileName, FormatName, Id, Name

if TYPE_CHECKING:
    from ztom.ledger.checkpoints import CheckpointRecord

FilePart = Literal["BASE", "ITERATION", "MASTERED"]
FileStorage = Literal["MANAGED", "POINTER"]
FileStatus = Literal["PENDING", "VALID", "INVALID"]


class FileDeletion(WireRequest):
    """A file to be deleted; ``hardDelete`` takes its bytes as well."""

    model_config = example(projectId=examples.PROJECT, fileId=examples.FILE, hardDelete=False)

    project_id: Id
    file_id: Id
    hard_delete: bool = False


class CheckpointUpload(TolerantRequest):
    """The fields of an upload, before the file."""

    model_config = example(
        projectId=examples.PROJECT,
        format="HF_TEXT_GENERATION",
        fileName="epoch-2",
        tag="e2",
        file="(the bytes of a tar of the checkpoint's folder)",
    )

    project_id: Id
    format: FormatName = "HF_TEXT_GENERATION"
    file_name: FileName | None = None
    tag: Name | None = None


class DataUpload(TolerantRequest):
    """The fields of an upload of a data set, before the file."""

    model_config = example(projectId=examples.PROJECT, file="(the bytes of a JSONL or CSV file)")

    project_id: Id


class UploadChange(TolerantRequest):
    """The fields of a change of a file; another file in its place comes after them."""

    model_config = example(projectId=examples.PROJECT, fileId=examples.FILE, tag="best")

    project_id: Id
    file_id: Id
    file_name: FileName | None = None
    tag: Name | None = None
    format: FormatName | None = None


class Pointer(TolerantRequest):
    """A checkpoint that stays where it is.

    ``baseModel`` true says that it is the project's base model; an address there is that of the
    base model, which is added first where the project has none.
    """

    model_config = example(
        projectId=examples.PROJECT,
        filePath="gs://team-models/support/epoch-2",
        format="HF_TEXT_GENERATION",
        fileName="epoch-2",
    )

    project_id: Id
    file_path: str = Field(min_length=1, max_length=2000)
    format: FormatName = "HF_TEXT_GENERATION"
    file_name: FileName | None = None
    tag: Name | None = None
    base_model: bool | str | None = Field(default=None, union_mode="left_to_right")


class PointerChange(TolerantRequest):
    """Another address, or another name, of a pointer."""

    model_config = example(
        projectId=examples.PROJECT,
        fileId=examples.FILE,
        filePath="gs://team-models/support/epoch-3",
    )

    project_id: Id
    file_id: Id
    file_path: str | None = Field(default=None, min_length=1, max_length=2000)
    format: FormatName | None = None
    file_name: FileName | None = None
    tag: Name | None = None


class BaseModelDeletion(TolerantRequest):
    """The project whose base model is to be deleted; ``fileId``, where it is given, is its own."""

    model_config = example(projectId=examples.PROJECT, hardDelete=False)

    project_id: Id
    file_id: Id | None = None
    hard_delete: bool = False


class FileEvent(TolerantRequest):
    """A file whose scores and status are to be computed again."""

    model_config = example(projectId=examples.PROJECT, fileId=examples.FILE)

    project_id: Id
    file_id: Id


class ProjectFile(WireAnswer):
    """A checkpoint of a project.

    Attributes:
        file_path: Path that names it wherever a checkpoint's path is taken: the address that a
            caller gave, or the project's id and the file's name.
        total_weight_contribution: Mean absolute change of the weights against the checkpoint before
            it; None until computed, and for the chain's first; 0 where it cannot be computed
            (``status`` and ``message`` say why), for clients wait until nothing else is None.
        total_bias_contribution: The same for biases; 0 where there are none.
        part: ``BASE``, ``ITERATION`` or ``MASTERED`` (which is no part of the chain).
        storage: ``MANAGED`` where the server keeps the bytes, ``POINTER`` where it does not.
        size: Bytes of what was uploaded, or of the files that a pointer uses.
        sha256: Digest of the checkpoint's content, once it was looked at.
        status: ``PENDING`` until it was looked at, then ``VALID`` or ``INVALID``.
        message: What is wrong with an invalid file; of a valid one, what its chain differs in,
            which a request has to allow: ``allowConfigDifferences``, ``allowTokenizerDifferences``.
        unproven: Whether a search wrote it and did not prove it to be better: it is not served
            unless somebody insists.
    """

    model_config = example(
        id=examples.FILE,
        fileName="epoch-2",
        filePath=f"{examples.PROJECT}/epoch-2",
        tag="e2",
        format="HF_TEXT_GENERATION",
        totalWeightContribution=0.00051681,
        totalBiasContribution=0.000498,
        part="ITERATION",
        storage="MANAGED",
        size=154_312_704,
        sha256=examples.DIGEST,
        status="VALID",
        message=None,
        unproven=False,
        createdAt=examples.TIME,
    )

    id: str
    file_name: str
    file_path: str
    tag: str | None
    format: FormatName
    total_weight_contribution: float | None
    total_bias_contribution: float | None
    part: FilePart
    storage: FileStorage
    size: int | None
    sha256: str | None
    status: FileStatus
    message: str | None
    unproven: bool
    created_at: str

    @classmethod
    def of(
        cls, record: CheckpointRecord, *, name: str | None = None, is_first: bool = False
    ) -> ProjectFile:
        """The file on record.

        Args:
            record: File on record.
            name: Name of it that no other file of the project has; its own when None.
            is_first: Whether it is the first of its chain.
        """
        own = f"{record.project_id}/{name or record.file_name}"
        missing = None if is_first or record.status == "pending" else 0.0
        weights, biases = record.weight_score, record.bias_score
        return cls(
            id=record.id,
            file_name=record.file_name,
            file_path=record.address if record.storage == "pointer" else own,
            tag=record.tag,
            format=cast(FormatName, record.format),
            total_weight_contribution=missing if weights is None else weights,
            total_bias_contribution=missing if biases is None else biases,
            part=cast(FilePart, record.part.upper()),
            storage=cast(FileStorage, record.storage.upper()),
            size=record.nbytes,
            sha256=record.digest,
            status=cast(FileStatus, record.status.upper()),
            message=record.message,
            unproven=record.unproven,
            created_at=record.created,
        )


class UploadedData(WireAnswer):
    """A data set that the server keeps.

    Attributes:
        reference: Reference that a search of the project names it by.
        sha256: Lower-case hex sha256 of the bytes.
        size: Size of the data set, bytes.
    """

    model_config = example(
        reference=f"data:{examples.DIGEST}.jsonl", sha256=examples.DIGEST, size=20_480
    )

    reference: str
    sha256: str
    size: int
