"""Where output goes: a path of this machine or, where that is taken, an address of a store.

To the operating system ``gs://bucket/folder`` is a relative path (a folder called ``gs:``), so
without a check what was meant for a bucket lands in the working folder, and nobody is told.
`parse_place` tells the two apart; `require_local` refuses an address where only a path will do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from ztom.errors import ConfigError

P = TypeVar("P", str, Path, Path | None)

#: Schemes of the stores that are written to; ``memory`` is one for tests, within a process.
STORE_SCHEMES = ("gs", "s3", "memory")

#: What to give where a ledger cannot be an object of a store.
LEDGER_FIX = (
    "A ledger is a file of this machine or, for several machines, PostgreSQL: "
    "postgresql+psycopg://user@host/ztom."
)

#: One slash is enough: as a `Path`, ``gs://bucket`` has lost its second one already.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_STORE = re.compile(rf"({'|'.join(STORE_SCHEMES)}):/+(.*)", re.DOTALL)
#: Of an object's name; what fsspec or a store would interpret is not in it.
_PART = re.compile(r"[A-Za-z0-9 !$&'()+,.:;=@_~-]{1,255}")


@dataclass(frozen=True, slots=True, order=True)
class StoreAddress:
    """A folder or an object of a store. It is no path: nothing opens it as one by mistake.

    Attributes:
        scheme: Scheme of the store, one of `STORE_SCHEMES`.
        path: Place in the store, ``bucket/folder``, without slashes at its ends.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        """The address as it is written, ``gs://bucket/folder``."""
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, below: str) -> StoreAddress:
        """What stands below it; ``below`` may go several folders down."""
        return parse_store_address(f"{self}/{below}")

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> StoreAddress:
        """The folder that it is in."""
        return StoreAddress(self.scheme, self.path.rpartition("/")[0])

    @property
    def bucket(self) -> str:
        """First part of the path."""
        return self.path.partition("/")[0]

    def absolute(self) -> StoreAddress:
        """The address itself: none is relative."""
        return self


#: A folder or a file, here or in a store.
StoragePlace: TypeAlias = Path | StoreAddress


def is_store_address(place: object) -> bool:
    """Whether a text, a path or a place is an address of a store."""
    return isinstance(place, StoreAddress) or _STORE.match(str(place)) is not None


def parse_store_address(text: str | Path) -> StoreAddress:
    """Check an address of a store.

    Args:
        text: Address as it was written; of a path that was made of one, a slash is gone.

    Raises:
        ConfigError: It is none, or holds what a store or its client would interpret.
    """
    match = _STORE.fullmatch(str(text))
    path = "" if match is None else match.group(2).rstrip("/")
    parts = path.split("/")
    if match is None or any(part in (".", "..") or not _PART.fullmatch(part) for part in parts):
        raise ConfigError(
            "this is no address of a store",
            got=re.sub(r"^(\w+):/+", r"\1://", str(text))[:200].encode("unicode_escape").decode(),
            expected="gs://bucket/folder or s3://bucket/folder, in plain characters",
            fix="Keys, tokens and endpoints come from the operator's environment only.",
        )
    return StoreAddress(match.group(1), path)


def parse_place(place: str | Path | StoreAddress) -> StoragePlace:
    """A place as a path of this machine or as an address of a store.

    Raises:
        ConfigError: It has another scheme, or is no plain address.
    """
    if isinstance(place, StoreAddress):
        return place
    if is_store_address(place):
        return parse_store_address(place)
    return Path(require_local(str(place), what="the place"))


def place_text(place: str | Path) -> str:
    """A place as text; an address that was made a path has its second slash again."""
    return str(parse_store_address(place)) if is_store_address(place) else str(place)


def is_below(place: StoragePlace, above: StoragePlace) -> bool:
    """Whether a place is another one, or stands somewhere in it."""
    if isinstance(place, StoreAddress) or isinstance(above, StoreAddress):
        return f"{place}/".startswith(f"{above}/")
    return place.resolve().is_relative_to(above.resolve())


def require_local(place: P, *, what: str) -> P:
    """Refuse an address where a path of this machine is meant.

    Args:
        place: Path of a file or a folder that is to be written; None is let through.
        what: Name of the option in the error.

    Returns:
        The place, as it was given.

    Raises:
        ConfigError: It begins with a scheme, such as ``gs://`` or ``file://``.
    """
    if place is not None and _ADDRESS.match(str(place)):
        scheme, _, rest = str(place).partition(":")
        raise ConfigError(
            f"{what} is an address",
            got=f"{scheme}://{rest.lstrip('/')}",
            expected="a path on this machine",
            fix="Write to a local folder and copy it from there.",
        )
    return place


def require_listable(roots: Iterable[str]) -> None:
    """Refuse folders that cannot be listed as roots: users could point to nothing under them.

    Args:
        roots: Folders of this machine, and addresses, which are not looked at here.

    Raises:
        ConfigError: One is not there, is no folder, or may not be listed by this user.
    """
    for root in roots:
        if _ADDRESS.match(root):
            continue
        try:
            next(os.scandir(Path(root).expanduser()), None)
        except OSError as error:
            raise ConfigError(
                "a root cannot be listed",
                reason=f"{root}: {(error.strerror or str(error)).lower()}",
                fix="Name a folder that is there and that this user may read.",
            ) from error
