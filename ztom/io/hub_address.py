"""Addresses of files on the Hugging Face Hub: ``hf://org/name[@revision][/path]``.

Data sets have ``datasets/`` before their name. This module reads the text and nothing else;
`ztom.io.hub` speaks to the Hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

RepoKind = Literal["model", "dataset"]

#: Scheme of the addresses.
HUB = "hf"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(
    rf"(?:(?P<kind>models|datasets)/)?(?P<repo>{_NAME}/{_NAME})"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[A-Za-z0-9._-]+|[A-Za-z0-9][A-Za-z0-9._-]{0,199}))?"
    r"(?:/(?P<path>.+))?"
)
_BARE = re.compile(rf"{_NAME}/{_NAME}(?:@[A-Za-z0-9][A-Za-z0-9._-]{{0,199}})?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A place on the Hub.

    Attributes:
        repo: Repository, ``org/name``.
        kind: Whether it holds a model or a data set.
        revision: Branch, tag or commit; None for the default branch.
        path: File or folder in the repository, without a slash at its ends; empty for all of it.
    """

    repo: str
    kind: RepoKind = "model"
    revision: str | None = None
    path: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def place(self) -> str:
        """The address without scheme and revision, which is what roots are compared with."""
        prefix = "datasets/" if self.kind == "dataset" else ""
        return f"{prefix}{self.repo}/{self.path}".rstrip("/")

    def at(self, revision: str) -> HubAddress:
        """The same place at another revision."""
        return replace(self, revision=revision)

    def __str__(self) -> str:
        prefix = "datasets/" if self.kind == "dataset" else ""
        revision = f"@{self.revision}" if self.revision else ""
        path = f"/{self.path}" if self.path else ""
        return f"{HUB}://{prefix}{self.repo}{revision}{path}"


def read_hub_address(text: str) -> HubAddress | None:
    """Read an address of the Hub.

    Args:
        text: Address, as in ``hf://org/name@main/folder`` or ``hf://datasets/org/name/train.jsonl``.

    Returns:
        The address; None where the text is none.
    """
    scheme, _, rest = text.partition("://")
    match = _ADDRESS.fullmatch(rest.rstrip("/")) if scheme.lower() == HUB else None
    if match is None:
        return None
    path = match["path"] or ""
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        return None
    kind: RepoKind = "dataset" if match["kind"] == "datasets" else "model"
    return HubAddress(match["repo"], kind, match["revision"], path)


def is_bare_repo(text: str) -> bool:
    """Whether a text has the form ``org/name`` or ``org/name@revision``."""
    return _BARE.fullmatch(text) is not None
