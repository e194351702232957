"""Checkpoints on their way out: a folder as one tar, several files as one zip, chunk by chunk."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.source import Source
from ztom.settings import Settings

_CHUNK = 2**20
_TAR_BLOCK, _TAR_RECORD = 512, 10240


@dataclass(frozen=True, slots=True)
class Piece:
    """One file to be sent.

    Attributes:
        name: Path of the file in the archive.
        nbytes: Size of the file, bytes.
        read: Function from an offset and a count to that many bytes.
    """

    name: str
    nbytes: int
    read: Callable[[int, int], bytes]

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the file, a chunk at a time."""
        for offset in range(0, self.nbytes, _CHUNK):
            yield self.read(offset, min(_CHUNK, self.nbytes - offset))


def pieces_of(source: Source, names: Sequence[str]) -> list[Piece]:
    """Files of a source."""

    def reader(name: str) -> Callable[[int, int], bytes]:
        return lambda offset, count: source.read(name, offset, count)

    return [Piece(name, source.size(name), reader(name)) for name in names]


def local_piece(path: Path, name: str, *, settings: Settings) -> Piece:
    """One local file; a change of it while it is sent is noticed."""
    folder = LocalSource(str(path.parent), path.parent, settings=settings)
    return Piece(name, folder.size(path.name), lambda at, n: folder.read(path.name, at, n))


def tar_size(pieces: Sequence[Piece]) -> int:
    """How many bytes `tar_chunks` gives."""
    blocks = sum(len(_header(piece)) + _padded(piece.nbytes) for piece in pieces)
    return -(-(blocks + 2 * _TAR_BLOCK) // _TAR_RECORD) * _TAR_RECORD


def tar_chunks(pieces: Sequence[Piece]) -> Iterator[bytes]:
    """The files as a tar; the same bytes for the same files."""
    sent = 0
    for piece in pieces:
        header = _header(piece)
        yield header
        yield from piece.chunks()
        yield b"\0" * (_padded(piece.nbytes) - piece.nbytes)
        sent += len(header) + _padded(piece.nbytes)
    yield b"\0" * (tar_size(pieces) - sent)


def zip_chunks(pieces: Sequence[tuple[str, Callable[[], Iterator[bytes]]]]) -> Iterator[bytes]:
    """Streams as a zip, not compressed: weights hardly shrink."""
    out = _Outlet()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, chunks in pieces:
            entry = zipfile.ZipInfo(name)
            with archive.open(entry, "w", force_zip64=True) as file:
                for chunk in chunks():
                    file.write(chunk)
                    yield out.take()
            yield out.take()
    yield out.take()


class _Outlet(io.RawIOBase):
    """Where the zip is written: a stream that cannot seek, emptied after each chunk."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._held.extend(data)
        return len(data)

    def take(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held


def _header(piece: Piece) -> bytes:
    entry = tarfile.TarInfo(piece.name)
    entry.size, entry.mode = piece.nbytes, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // _TAR_BLOCK) * _TAR_BLOCK
