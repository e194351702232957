"""Multipart forms, read while they arrive: fields into memory, the file straight to the disk.

Whatever the size of the file, memory holds two buffers of it. The fields come before the file, as
users' clients send them, so that who may not upload is told before the file is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from serve_apps.control_plane.store import Staged, Store, Upload

_BUFFER = 4 * 2**20
_MOST_FIELDS = 64
_LONGEST_FIELD = 2**20
_LONGEST_HEADER = 8192


@dataclass(frozen=True, slots=True)
class Form:
    """What arrived.

    Attributes:
        fields: Text by name.
        file_name: What the client calls the file.
        file: The file, aside; None where none was sent.
    """

    fields: Mapping[str, str]
    file_name: str | None
    file: Staged | None


@dataclass
class _Part:
    name: str = ""
    file_name: str | None = None
    data: bytearray = field(default_factory=bytearray)


class FormReader:
    """Reads one form; use as an async context manager, which removes a file nobody placed.

    Args:
        request: Request with a multipart body.
        store: Store into which the file goes.
        before_file: Callback with the fields when the file begins; what it raises ends the upload.
    """

    def __init__(
        self,
        request: Request,
        store: Store,
        *,
        before_file: Callable[[Mapping[str, str]], object],
    ) -> None:
        self._request = request
        self._store = store
        self._before_file = before_file
        self._fields: dict[str, str] = {}
        self._part = _Part()
        self._header = (bytearray(), bytearray())
        self._upload: Upload | None = None
        self._file_name: str | None = None
        self._file_began = False
        self._buffer = bytearray()
        self._writing: asyncio.Task[None] | None = None
        self._ended = False

    async def __aenter__(self) -> Form:
        parser = self._parser()
        try:
            async for chunk in self._request.stream():
                parser.write(chunk)
                await self._after_chunk()
            parser.finalize()
            if not self._ended:
                raise HTTPException(422, "The form ends too early.")
            staged = None
            if self._upload is not None:
                await self._flush()
                await self._written()
                staged = await asyncio.to_thread(self._upload.finish)
        except MultipartParseError as error:
            await self.__aexit__()
            raise HTTPException(422, "The form is malformed.") from error
        except BaseException:
            await self.__aexit__()
            raise
        return Form(self._fields, self._file_name, staged)

    async def __aexit__(self, *_: object) -> None:
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._upload is not None:
            await asyncio.to_thread(self._upload.discard)

    async def _after_chunk(self) -> None:
        """What the parser's callbacks, which cannot wait, left to do."""
        if self._file_began and self._upload is None:
            await asyncio.to_thread(self._before_file, dict(self._fields))
            self._upload = await asyncio.to_thread(self._store.begin)
        if len(self._buffer) >= _BUFFER:
            await self._flush()

    async def _flush(self) -> None:
        """Start to write what is buffered, once what was is written: one is filled meanwhile."""
        await self._written()
        if self._upload is not None and self._buffer:
            writing = asyncio.to_thread(self._upload.write, self._buffer)
            self._writing = asyncio.create_task(writing)
            self._buffer = bytearray()

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    def _parser(self) -> MultipartParser:
        kind, options = parse_options_header(self._request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
            raise HTTPException(422, "A form is expected: multipart/form-data with a boundary.")
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def _on_part_begin(self) -> None:
        if self._file_began:
            raise HTTPException(422, "The file has to be the last part of the form.")
        self._part = _Part()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._grow_header(0, data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow_header(1, data[start:end])

    def _grow_header(self, side: int, piece: bytes) -> None:
        self._header[side].extend(piece)
        if len(self._header[side]) > _LONGEST_HEADER:
            raise HTTPException(422, "A header of the form is too long.")

    def _on_header_end(self) -> None:
        name, value = bytes(self._header[0]).lower(), bytes(self._header[1])
        self._header = (bytearray(), bytearray())
        if name != b"content-disposition":
            return
        _, options = parse_options_header(value)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            self._part.file_name = options[b"filename"].decode("utf-8", "replace")

    def _on_headers_finished(self) -> None:
        part = self._part
        if not part.name:
            raise HTTPException(422, "A part of the form has no name.")
        if part.file_name is not None or part.name == "file":
            if part.name != "file":
                raise HTTPException(422, "The file has to be called 'file'.")
            self._file_began, self._file_name = True, part.file_name
        elif len(self._fields) >= _MOST_FIELDS or part.name in self._fields:
            raise HTTPException(422, "The form has too many fields, or one of them twice.")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file_began:
            self._buffer.extend(memoryview(data)[start:end])
            return
        self._part.data.extend(data[start:end])
        if len(self._part.data) > _LONGEST_FIELD:
            raise HTTPException(422, "A field of the form is too long.")

    def _on_part_end(self) -> None:
        if self._file_began:
            return
        try:
            self._fields[self._part.name] = self._part.data.decode()
        except UnicodeDecodeError:
            raise HTTPException(422, "A field of the form is not UTF-8.") from None

    def _on_end(self) -> None:
        self._ended = True
