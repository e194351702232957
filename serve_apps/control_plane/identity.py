"""That all processes of a server see the same data and have the same keys.

A server of several nodes has its data folder on a disk that all of them see. Where one of them does
not, that process would make keys and a ledger of its own, and answer with them: half of all calls
after a login would be refused. So it does not start, and says why.

The data folder has a name in a file, which the process that brings the server up writes. It is told
to every process, and stands in the ledger, so that two servers do not work on one database with a
folder each.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.keys import ServerKeys
from ztom.errors import ConfigError
from ztom.io.files import write_whole
from ztom.ledger.ledger import Ledger

#: Name of the file with the folder's name.
NAME_FILE = "server.id"
#: Under which it stands in the ledger.
_ON_RECORD = "data"
_FIX = (
    "Put the data folder (--data) on a disk that every node has mounted at this path, or run the "
    "server on one node."
)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What the processes of one server have in common.

    Attributes:
        data: Name of the data folder.
        keys: Fingerprint of the keys.
    """

    data: str
    keys: str

    @classmethod
    def of(cls, config: ServerConfig) -> Self:
        """The identity of the server that is brought up here.

        Raises:
            ConfigError: The ledger is that of a server with another data folder.
            ZtomError: Keys or ledger cannot be used.
        """
        name = _named(config.data)
        with Ledger.open(config.ledger_address) as ledger:
            keys = ServerKeys.open(config, ledger.server_keys)
            if ledger.server_keys.is_shared:
                known = ledger.server_keys.take(_ON_RECORD, lambda: name)
                if known != name:
                    raise ConfigError(
                        "the ledger is that of a server with another data folder",
                        got=f"{config.data}, which is {name}",
                        expected=f"the folder whose {NAME_FILE} says {known}",
                        fix="Start it on that folder, which holds uploads and what searches wrote. "
                        f"If that is lost for good, write {known} into {config.data / NAME_FILE}.",
                    )
        return cls(name, keys.fingerprint)

    def require_data(self, config: ServerConfig) -> None:
        """See that this process sees the server's data folder.

        Raises:
            ConfigError: It sees another one, or none.
        """
        name = folder_name(config.data)
        if name != self.data:
            raise ConfigError(
                "this node does not share the server's data",
                got=f"{config.data} is {name or 'not there'} on {os.uname().nodename}",
                expected=self.data,
                fix=_FIX,
            )

    def require_keys(self, keys: ServerKeys) -> None:
        """See that this process has the server's keys.

        Raises:
            ConfigError: It has others.
        """
        if keys.fingerprint != self.keys:
            raise ConfigError(
                "this node has other keys than the server",
                got=f"{keys.fingerprint} from {keys.source} on {os.uname().nodename}",
                expected=self.keys,
                fix="Give every node the same secret (secret_file, or ZTOM_SECRET in the "
                "environment of Ray on all of them), or none: then they are kept in the database.",
            )


def folder_name(data: Path) -> str | None:
    """Name of a data folder; None where it has none, or is not there."""
    try:
        return (data / NAME_FILE).read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def _named(data: Path) -> str:
    """The name of a data folder, which gets one if need be."""
    name = folder_name(data)
    if name is None:
        name = secrets.token_hex(8)
        write_whole(data / NAME_FILE, name + "\n", private=True)
    return name
