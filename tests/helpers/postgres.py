"""A PostgreSQL server for the tests: its own folder and port, gone when they end.

Debian's package ``postgresql`` brings the programs; the server runs as nobody when the tests run as
root, as it refuses to be root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


def program(name: str) -> str | None:
    found = shutil.which(name) or max(
        map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None
    )
    return None if found is None else str(Path(found).resolve())


@contextmanager
def server() -> Iterator[str]:
    """Base address of a running server, without a database."""
    initdb, postgres, ctl = program("initdb"), program("postgres"), program("pg_ctl")
    assert initdb
    assert postgres
    assert ctl
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    who = {"user": account.pw_uid, "group": account.pw_gid} if os.geteuid() == 0 else {}
    # outside of pytest's own folders, which other accounts may not enter
    with tempfile.TemporaryDirectory(prefix="ztom-postgresql-") as folder:
        os.chmod(folder, 0o755)
        home = Path(folder) / "data"
        home.mkdir()
        if who:
            os.chown(home, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/", **who}
        subprocess.run(
            [initdb, "-D", home, "-A", "trust", "-U", "ztom", "--no-sync", "-E", "UTF8"], **quiet
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        options += " -c fsync=off -c full_page_writes=off"  # it has to survive no power cut
        log = home / "server.log"
        subprocess.run([ctl, "-D", home, "-w", "-o", options, "-l", log, "start"], **quiet)
        try:
            yield f"postgresql+psycopg://ztom@127.0.0.1:{port}"
        finally:
            subprocess.run([ctl, "-D", home, "-m", "immediate", "stop"], **quiet)


def new_database(base: str) -> str:
    """Address of a fresh, empty database."""
    name = f"t{uuid.uuid4().hex}"
    plain = base.replace("+psycopg", "")
    with psycopg.connect(f"{plain}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{base}/{name}"
