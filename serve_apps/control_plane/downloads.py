"""Checkpoints on their way out: tars and zips that are made while they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastapi.responses import StreamingResponse

from serve_apps.control_plane.services import Services
from ztom.checkpoints.kept_paths import paths_to_send
from ztom.checkpoints.outgoing import (
    local_piece,
    pieces_of,
    tar_chunks,
    tar_size,
)
from ztom.ledger.checkpoints import (
    CheckpointRecord,
    Storage,
)
from ztom.settings import Settings

BYTES = "application/octet-stream"


@dataclass(frozen=True)
class Download:
    """A checkpoint on its way out.

    Attributes:
        chunks: Makes the pieces of the body, one after the other.
        nbytes: Length of the body, bytes.
    """

    chunks: Callable[[], Iterator[bytes]]
    nbytes: int

    @classmethod
    def of(cls, file: CheckpointRecord, services: Services) -> Download:
        """The file as it was uploaded, or a tar of what a pointer names."""
        path = Path(file.address)
        if file.storage is Storage.POINTER:
            return cls.of_folder(file.address, services.pointers)
        if path.is_file():
            piece = local_piece(path, path.name, settings=services.managed)
            return cls(piece.chunks, piece.nbytes)
        return cls.of_folder(file.address, services.managed)

    @classmethod
    def of_folder(cls, reference: str, settings: Settings) -> Download:
        """A tar of what a reference names."""
        from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

        checkpoint = open_checkpoint(reference, settings=settings)
        pieces = pieces_of(checkpoint.source, paths_to_send(checkpoint.source))
        return cls(lambda: tar_chunks(pieces), tar_size(pieces))


def send(
    download: Download, name: str, headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """The download as an HTTP answer."""
    return StreamingResponse(
        download.chunks(),
        media_type=BYTES,
        headers={
            "Content-Length": str(download.nbytes),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            **(headers or {}),
        },
    )


def send_folder(
    reference: str, name: str, services: Services, headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """A tar of one of the server's own folders, as an answer."""
    return send(Download.of_folder(reference, services.managed), name, headers)


def archive_name(file: CheckpointRecord) -> str:
    """The file's name as a tar."""
    suffix = ".tar.gz" if file.address.endswith(".tar.gz") else ".tar"
    name = file.file_name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    return name + suffix


def unique_names(files: tuple[CheckpointRecord, ...]) -> dict[str, str]:
    """Names in the zip: in the order of the chain, so that two of a name do not meet."""
    return {
        file.id: f"{at:03d}-{archive_name(file).replace('/', '_')}" for at, file in enumerate(files)
    }
