"""The headers of a tar, walked strictly: regular files with safe paths, or an error.

Formats: ustar, pax and GNU long names (POSIX.1-2001, ``pax(5)`` and ``tar(5)``). The standard
library's reader is not used because it reads extension headers of any claimed size into memory and
takes a damaged header in the middle for the end of the archive. Nothing is unpacked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ztom.errors import ArchiveError

_BLOCK = 512
_MAX_EXTENSION = 64 * 2**10
_MAX_PADDING = 2**20
_REFUSED_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}


class TarStream(Protocol):
    """The bytes of an uncompressed archive, front to back."""

    @property
    def position(self) -> int:
        """Offset of the next byte."""

    def read(self, count: int) -> bytes:
        """The next bytes; fewer only at the end."""

    def skip_to(self, position: int) -> None:
        """Move forward."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file of a tar.

    Attributes:
        path: Path of the file in the archive, normalised.
        offset: Offset of its first byte from the start of the uncompressed archive, bytes.
        size: Size of the file, bytes.
    """

    path: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Header:
    kind: bytes
    path: str
    size: int


def walk_tar(reference: str, stream: TarStream, *, max_members: int) -> Iterator[TarMember]:
    """Yield the regular files in order; a file's data may be read before asking for the next.

    Args:
        reference: Names the archive in errors.
        stream: Stream of the archive's uncompressed bytes.
        max_members: Largest number of members.

    Raises:
        ArchiveError: A header is damaged, or describes something that is never unpacked.
    """
    seen: dict[str, str] = {}
    members = 0
    extension: dict[str, str] = {}
    while (block := _next_block(reference, stream)) is not None:
        header = _parse_header(reference, block)
        members += 1
        if members > max_members:
            raise ArchiveError(
                f"{reference} has too many members", expected=f"at most {max_members}"
            )
        if header.kind in (b"x", b"g", b"L", b"K"):
            more = _read_extension(reference, stream, header)
            if more.keys() & extension.keys():
                raise ArchiveError(f"{reference}: two extension headers describe one member")
            extension |= more
            continue
        written_path = extension.get("path", header.path)
        path = _safe_path(reference, written_path)
        size = _extended_size(reference, extension, header.size)
        extension = {}
        offset = stream.position
        if header.kind == b"5" or (header.kind == b"0" and written_path.endswith("/")):
            continue
        _check_file(reference, header.kind, path, seen=seen)
        yield TarMember(path, offset, size)
        stream.skip_to(offset + -(-size // _BLOCK) * _BLOCK)


def _next_block(reference: str, stream: TarStream) -> bytes | None:
    """The next header, or None at the end mark, after which only padding may follow."""
    block = stream.read(_BLOCK)
    if len(block) != _BLOCK:
        raise ArchiveError(f"{reference} is truncated", got="no end mark", fix="Fetch it again.")
    if block.strip(b"\0"):
        return block
    padding = stream.read(_MAX_PADDING + 1)
    if len(padding) > _MAX_PADDING or padding.strip(b"\0"):
        raise ArchiveError(f"{reference} has data after its end mark")
    return None


def _parse_header(reference: str, block: bytes) -> _Header:
    stored = _number(reference, block[148:156])
    blanked = block[:148] + b" " * 8 + block[156:]
    if stored != sum(blanked):
        raise ArchiveError(
            f"{reference} is not a tar, or a header of it is damaged",
            got=f"checksum {stored}",
            expected=sum(blanked),
        )
    path = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        path = block[345:500].split(b"\0", 1)[0] + b"/" + path
    kind = b"0" if block[156:157] == b"\0" else block[156:157]
    return _Header(kind, _text(reference, path), _number(reference, block[124:136]))


def _number(reference: str, field: bytes) -> int:
    """An octal field, or GNU's big-endian form for what does not fit into octal."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            raise ArchiveError(f"{reference}: a header holds a negative number")
        return value
    digits = field.strip(b"\0 ")
    if digits.strip(b"01234567"):
        raise ArchiveError(f"{reference} is not a tar, or a header of it is damaged", got=digits)
    return int(digits or b"0", 8)


def _text(reference: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ArchiveError(f"{reference}: a name is not UTF-8", got=ascii(raw)) from None


def _read_extension(reference: str, stream: TarStream, header: _Header) -> dict[str, str]:
    """What an extension header says about the next member."""
    if header.size > _MAX_EXTENSION:
        raise ArchiveError(
            f"{reference}: an extension header is too large",
            got=f"{header.size} bytes",
            expected=f"at most {_MAX_EXTENSION}",
        )
    padded = -(-header.size // _BLOCK) * _BLOCK
    raw = stream.read(padded)
    if len(raw) != padded:
        raise ArchiveError(f"{reference} is truncated", fix="Fetch it again.")
    raw = raw[: header.size]
    if header.kind == b"K":  # the long target of a link, and links are refused
        return {}
    if header.kind == b"L":
        return {"path": _text(reference, raw.split(b"\0", 1)[0])}
    records = _pax_records(reference, raw)
    if any(key.startswith("GNU.sparse") for key in records):
        raise ArchiveError(f"{reference} holds a sparse file", fix="Pack it with plain tar.")
    wanted = {key: value for key, value in records.items() if key in ("path", "size")}
    if header.kind == b"g" and wanted:
        raise ArchiveError(f"{reference}: a global header renames or resizes files")
    return wanted


def _pax_records(reference: str, raw: bytes) -> dict[str, str]:
    """Records ``length key=value`` and a newline, the length counting all of the record."""
    records: dict[str, str] = {}
    while raw:
        digits, space, _ = raw.partition(b" ")
        length = int(digits) if space and digits.isdigit() and len(digits) < 8 else 0
        record = raw[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if length > len(raw) or not equals or not value.endswith(b"\n"):
            raise ArchiveError(f"{reference}: an extension header is damaged")
        name = _text(reference, key)
        if name in records:
            raise ArchiveError(f"{reference}: an extension header says {name} twice")
        # Values nobody here reads may be binary (extended attributes).
        records[name] = _text(reference, value[:-1]) if name in ("path", "size") else ""
        raw = raw[length:]
    return records


def _extended_size(reference: str, extension: dict[str, str], size: int) -> int:
    text = extension.get("size")
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ArchiveError(f"{reference}: an extension header holds an impossible size", got=text)
    return int(text)


def _safe_path(reference: str, path: str) -> str:
    """The path without ``./`` steps; refused where it could lead anywhere else."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\\" in path or not path.isprintable():
        raise ArchiveError(
            f"{reference} holds a name that is never unpacked",
            got=ascii(path),
            expected="a relative path of printable characters",
        )
    return "/".join(parts)


def _check_file(reference: str, kind: bytes, path: str, *, seen: dict[str, str]) -> None:
    if kind != b"0":
        raise ArchiveError(
            f"{reference}: {path} is {_REFUSED_KINDS.get(kind, f'of unknown kind {kind!r}')}",
            expected="regular files and folders only",
        )
    if not path:
        raise ArchiveError(f"{reference} holds a file without a name")
    known = seen.setdefault(path.casefold(), path)
    if known is not path:
        raise ArchiveError(f"{reference} holds two files of one name", got=f"{known} and {path}")
