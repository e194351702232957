"""Files on their way to a server and back: forms that are made up while they are sent, progress."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from ztom.checkpoints.kept_paths import paths_to_send
from ztom.checkpoints.outgoing import Piece, local_piece, pieces_of, tar_chunks, tar_size
from ztom.checkpoints.storage import open_source
from ztom.client.connection import Connection
from ztom.io.progress import WorkDisplay, work_display
from ztom.settings import Settings


class Sending:
    """A form with a file, made up while it is sent; a context, in which its progress is shown.

    Args:
        fields: Names and values that go before the file.
        path: File, or folder, which is sent as one tar.
        show: Whether progress is shown on standard error.
    """

    def __init__(self, fields: Mapping[str, str], path: Path, *, show: bool) -> None:
        self._pieces, self._is_folder = _pieces(path)
        self._size = tar_size(self._pieces) if self._is_folder else self._pieces[0].nbytes
        name = f"{path.name}.tar" if self._is_folder else path.name
        self._name = name
        self._show = show
        self._stack = ExitStack()
        self._display: WorkDisplay
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        escaped = name.replace("\\", "\\\\").replace('"', "%22")
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{escaped}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self._head = "".join(parts).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + self._size + len(self._tail)),
        }

    def __enter__(self) -> Self:
        what = f"reading {self._name}"
        self._display = self._stack.enter_context(work_display(what, unit="bytes", show=self._show))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the form."""
        yield self._head
        content = tar_chunks(self._pieces) if self._is_folder else self._pieces[0].chunks()
        sent = 0
        for chunk in content:
            yield chunk
            sent += len(chunk)
            self._display.show(f"sending {self._name}", sent, self._size)
        yield self._tail
        self._display.doing(f"the server checks {self._name}")


def _pieces(path: Path) -> tuple[list[Piece], bool]:
    settings = Settings()
    if path.is_dir():
        source = open_source(str(path), settings=settings)
        names = [name for name in paths_to_send(source) if _is_sent(name)]
        return pieces_of(source, names), True
    return [local_piece(path.absolute(), path.name, settings=settings)], False


def _is_sent(name: str) -> bool:
    """What a trainer keeps for itself stays here: its optimizer's state, its pickles."""
    return not name.endswith((".bin", ".pt", ".pth", ".pkl")) and name != "trainer_state.json"


def save_checkpoint(
    connection: Connection, method: str, address: str, path: Path, **options: Any
) -> Path:
    """Save the checkpoint that a call answers with: as a tar by that name, else as a folder.

    Raises:
        ArchiveError: What came is no checkpoint.
        ServerError: The server refuses, or cannot be reached.
    """
    if path.name.endswith((".tar", ".tar.gz")):
        return connection.save(method, address, path, **options)
    archive = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tar")
    try:
        connection.save(method, address, archive, **options)
        with archive.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        if compressed:
            archive = archive.rename(archive.with_name(f"{archive.name}.gz"))
        unpack(archive, path)
    finally:
        archive.unlink(missing_ok=True)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive. Plain files only, by the same rules as an upload's."""
    source = open_source(str(archive), settings=Settings())
    folder.mkdir(parents=True, exist_ok=True)
    for piece in pieces_of(source, paths_to_send(source)):
        (folder / piece.name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / piece.name).open("wb") as file:
            for chunk in piece.chunks():
                file.write(chunk)
