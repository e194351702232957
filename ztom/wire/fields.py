"""Values that requests have in common: their bounds, and how they arrive from older clients."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from ztom.io.json import parse_tolerant
from ztom.rollout.routing import ALIAS_PATTERN
from ztom.wire import examples

_LONGEST_FILE_NAME = 255
#: The format that this server works with.
FORMAT: Final = "HF_TEXT_GENERATION"
FormatName = Literal["ONNX", "KERAS", "HF_TEXT_GENERATION", "HF_IMAGE_TEXT_TO_TEXT"]


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


def _base_name(value: str) -> str:
    """A name that is one part of a path, and short enough for any file system."""
    if value in (".", "..") or "/" in value or "\\" in value:
        raise ValueError("the name of a file, without folders")
    if len(value.encode()) > _LONGEST_FILE_NAME:
        raise ValueError(f"the name of a file has at most {_LONGEST_FILE_NAME} bytes")
    return value


def from_json_text(value: Any) -> Any:
    """Dicts and lists arrive as JSON text in forms, and from some clients in bodies too."""
    if not isinstance(value, str):
        return value
    try:
        return parse_tolerant(value.encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise ValueError("not JSON, or too much of it") from None


def from_comma_text(value: Any) -> Any:
    """Lists arrive comma-joined in forms."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_printable)]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_printable),
]
FileName = Annotated[Name, AfterValidator(_base_name)]
Username = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]
Email = Annotated[
    str, StringConstraints(max_length=200, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$")
]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", examples=[examples.PROJECT])]
Alias = Annotated[str, Field(pattern=ALIAS_PATTERN, examples=["support"])]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=[examples.DIGEST])]
ReleaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}$", examples=["9c3e51d7"])]
DigestStart = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$", examples=[examples.DIGEST[:12]])]
Finite = Annotated[float, Field(allow_inf_nan=False)]
JsonDict = Annotated[
    dict[str, Any], BeforeValidator(from_json_text, json_schema_input_type=dict[str, Any] | str)
]
Numbers = Annotated[tuple[Finite, ...], BeforeValidator(from_comma_text)]
Names = Annotated[tuple[Name, ...], BeforeValidator(from_comma_text)]
