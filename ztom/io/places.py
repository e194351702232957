"""Where output may go: a path of this machine, never an address.

To the operating system ``gs://bucket/folder`` is a relative path (a folder called ``gs:``), so
without this check what was meant for a bucket lands in the working folder, and nobody is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from ztom.errors import ConfigError

P = TypeVar("P", str, Path, Path | None)

#: One slash is enough: as a `Path`, ``gs://bucket`` has lost its second one already.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


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
            fix="Write to a local folder and copy it from there; only variant.copy_to of a search "
            "takes an address.",
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
