"""What a reference may say, decided before any store is touched.

A reference is text that a person or a request wrote: a local folder, a tar of one, a ``gs://``,
``s3://`` or ``memory://`` address of either, a repository of the Hugging Face Hub
(``hf://org/name``, or ``org/name`` where there is no such local path), or a model of a registry
(``models:/name/3``). fsspec would resolve far more than that (dozens of protocols, chained ones,
percent-encoded paths), so what is not plainly allowed is refused here. This module opens nothing;
it only resolves links of local paths, to compare them with the roots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ztom.errors import ReferenceRefusedError
from ztom.io.hub_address import HUB, is_bare_repo, read_hub_address
from ztom.plugins import Group, installed
from ztom.settings import Settings

#: Registries that are built in; `ztom.checkpoints.registries` asks them.
BUILT_IN_REGISTRIES = ("models", "vertex")
#: The schemes this package can read; `Settings.allowed_schemes` can only narrow them.
SUPPORTED_SCHEMES = ("file", "gs", "s3", "memory", HUB, *BUILT_IN_REGISTRIES)

Archive = Literal["none", "tar", "tar.gz"]

_MAX_LENGTH = 2048
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_OBJECT_PATH = re.compile(r"[A-Za-z0-9 !$&'()+,.:;=@_~/-]+")
#: A file or folder that is only copied may be called more than one that is read.
_PATH_PART = re.compile(r"[\w\[(][\w .+@=,()\[\]-]{0,199}")
_MAX_DEPTH = 8
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+@=,()-]{0,199}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference that was checked.

    Attributes:
        text: Reference as it was written.
        scheme: Scheme, one of `SUPPORTED_SCHEMES`.
        path: Absolute local path with links resolved, or ``bucket/key`` without a trailing slash;
            of the Hub without the revision.
        archive: The kind of archive that the name promises.
    """

    text: str
    scheme: str
    path: str
    archive: Archive


def parse_reference(reference: str, *, settings: Settings) -> Reference:
    """Check a reference against the grammar, the allowed schemes and the allowed roots.

    Raises:
        ReferenceRefusedError: Anything that is not plainly an allowed address.
    """
    _check_characters(reference)
    if _is_on_the_hub(reference, settings=settings):
        reference = f"{HUB}://{reference}"
    match = _SCHEME.match(reference)
    scheme = match.group(1).lower() if match else "file"
    if match and not match.group(2) and not is_registry(scheme):
        raise _refused(reference, "a scheme without //", fix="Write a path, or scheme://path.")
    if not _is_allowed(scheme, settings=settings):
        allowed = [s for s in settings.allowed_schemes if s in SUPPORTED_SCHEMES]
        raise _refused(reference, f"scheme {scheme}", expected=f"one of {', '.join(allowed)}")
    rest = reference[match.end() :] if match else ""
    if scheme == "file":
        path = _local_path(reference, has_scheme=match is not None)
    elif scheme == HUB:
        path = _hub_path(reference)
    elif is_registry(scheme):
        path = _registry_path(reference, rest, scheme)
    else:
        path = _object_path(reference, rest, scheme)
    if not within_roots(scheme, path, settings=settings):
        named = f"under one of {', '.join(settings.allowed_roots)}"
        raise _refused(
            reference,
            "a place outside the allowed roots",
            expected=named if settings.names_roots else None,
            fix="The operator sets the roots with ZTOM_ALLOWED_ROOTS."
            if settings.names_roots
            else "Ask the operator where checkpoints and data may lie.",
        )
    archive = "none" if is_remote_name(scheme) else archive_kind(path)
    return Reference(reference, scheme, path, archive)


def is_registry(scheme: str) -> bool:
    """Whether a registry of models answers to this scheme."""
    if scheme in SUPPORTED_SCHEMES:
        return scheme in BUILT_IN_REGISTRIES
    return scheme in installed(Group.REGISTRIES)


def is_remote_name(scheme: str) -> bool:
    """Whether a reference names a model rather than the place of its files."""
    return scheme == HUB or is_registry(scheme)


def is_address(reference: str) -> bool:
    """Whether a reference has a scheme, so that no folder comes before it."""
    match = _SCHEME.match(reference)
    return match is not None and (bool(match.group(2)) or is_registry(match.group(1).lower()))


def name_of(reference: str) -> str:
    """What people call a checkpoint: the last part of its reference, without a revision."""
    address = read_hub_address(reference)
    name = reference if address is None else address.place
    return Path(name.rstrip("/")).name.partition("@")[0] if is_bare_repo(name) else Path(name).name


def within_roots(scheme: str, path: str, *, settings: Settings) -> bool:
    """Whether a resolved path lies under an allowed root of the same scheme, and no denied one.

    What the process has written itself is not limited, see `Settings.also_allowing`.
    """
    if any(_is_below(scheme, path, own) for own in settings.own_folders):
        return True
    if scheme == "file" and any(
        Path(path).is_relative_to(Path(root).expanduser().resolve())
        for root in settings.denied_roots
    ):
        return False
    if is_registry(scheme):
        path = path.replace("@", "/")
        if "allowed_roots" not in settings.model_fields_set:
            return True  # whoever installed a registry of their own set no root against it
    for root in settings.allowed_roots:
        match = _SCHEME.match(root) if is_address(root) else None
        root_scheme = match.group(1).lower() if match else "file"
        if root_scheme != scheme:
            continue
        rest = root[match.end() :] if match else root
        if scheme == "file":
            if Path(path).is_relative_to(Path(rest).expanduser().resolve()):
                return True
        elif not rest.strip("/") or f"{path}/".startswith(f"{rest.strip('/')}/"):
            return True
    return False


def _is_below(scheme: str, path: str, own: str) -> bool:
    """Whether a resolved path lies in a folder, or a folder of a store, of the process's own."""
    if scheme == "file":
        return not is_address(own) and Path(path).is_relative_to(Path(own).resolve())
    return f"{scheme}://{path}/".startswith(f"{own.rstrip('/')}/")


def archive_kind(path: str) -> Archive:
    """The kind of archive that a file name promises."""
    lower = path.lower()
    if lower.endswith((".tar.gz", ".tgz")):
        return "tar.gz"
    return "tar" if lower.endswith(".tar") else "none"


def is_plain_name(name: str) -> bool:
    """Whether a name is safe as a file of a checkpoint: no folders, nothing hidden, nothing odd."""
    return _FILE_NAME.fullmatch(name) is not None and not name.endswith((" ", "."))


def is_plain_path(path: str) -> bool:
    """Whether a path within a folder is safe to copy: relative, no hidden part, nothing odd."""
    parts = path.split("/")
    return (
        len(parts) <= _MAX_DEPTH
        and len(path) <= _MAX_LENGTH
        and all(_PATH_PART.fullmatch(p) and not p.endswith((" ", ".")) for p in parts)
    )


def _check_characters(reference: str) -> None:
    if not reference or len(reference) > _MAX_LENGTH:
        raise _refused(
            reference, f"{len(reference)} characters", expected=f"1 to {_MAX_LENGTH} characters"
        )
    if not reference.isprintable():
        raise _refused(reference, "control characters")
    for bad in ("::", "\\", "#"):
        if bad in reference:
            raise _refused(reference, f"{bad!r}", expected="one plain address")
    if _PERCENT.search(reference):
        raise _refused(reference, "percent-encoding", expected="plain characters")


def _local_path(reference: str, *, has_scheme: bool) -> str:
    if not has_scheme:
        return str(Path(reference).expanduser().resolve())
    rest = reference.split("://", 1)[1]
    if not rest.startswith("/"):
        raise _refused(reference, "a host name", expected="file:///absolute/path")
    if any(part in ("..", ".") for part in rest.split("/")):
        raise _refused(reference, "a relative step in an address", expected="a normalised path")
    return str(Path(rest).resolve())


def _is_allowed(scheme: str, *, settings: Settings) -> bool:
    if scheme in settings.allowed_schemes:
        return scheme in SUPPORTED_SCHEMES or is_registry(scheme)
    # what the operator installed is allowed until they list what is
    return "allowed_schemes" not in settings.model_fields_set and is_registry(scheme)


def _is_on_the_hub(reference: str, *, settings: Settings) -> bool:
    """Whether ``org/name`` means the Hub: no path that may be pointed to is called so."""
    if HUB not in settings.allowed_schemes or not is_bare_repo(reference):
        return False
    local = Path(reference).resolve()
    return not (within_roots("file", str(local), settings=settings) and local.exists())


def _hub_path(reference: str) -> str:
    address = read_hub_address(reference)
    if address is None:
        raise _refused(
            reference,
            "no address of the Hub",
            expected="hf://org/name, with @revision and /folder where they are meant",
        )
    if not _OBJECT_PATH.fullmatch(address.place):
        raise _refused(reference, "characters that are not allowed in an address")
    return address.place


def _registry_path(reference: str, rest: str, scheme: str) -> str:
    path = rest.strip("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise _refused(reference, "an empty or relative step", expected=f"{scheme}:/name/version")
    if not _OBJECT_PATH.fullmatch(path):
        raise _refused(reference, "characters that are not allowed in an address")
    return path


def _object_path(reference: str, rest: str, scheme: str) -> str:
    path = rest.rstrip("/")
    if scheme == "memory":
        path = path.lstrip("/")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _refused(reference, "an empty or relative step", expected=f"{scheme}://bucket/folder")
    if scheme != "memory" and not _BUCKET.fullmatch(parts[0]):
        raise _refused(
            reference,
            f"bucket {parts[0]!r}",
            expected="a bucket name",
            fix="Keys, tokens and endpoints come from the operator's environment only.",
        )
    if not _OBJECT_PATH.fullmatch(path):
        raise _refused(reference, "characters that are not allowed in an address")
    return path


def _refused(
    reference: str, got: str, *, expected: str | None = None, fix: str | None = None
) -> ReferenceRefusedError:
    shown = reference if len(reference) <= 200 else reference[:197] + "..."
    return ReferenceRefusedError(
        f"reference {shown.encode('unicode_escape').decode()!s} is refused",
        got=got,
        expected=expected,
        fix=fix,
    )
