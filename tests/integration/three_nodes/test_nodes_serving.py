"""Endpoints on three machines: doors, keys, a canary, a lost node, and who outlives whom."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from three_node_cluster import Cluster
from three_nodes import Machine, enter_network, wait_for

PORT = 8094
PASSWORD = "correct-horse-battery"
BIN = Path(sys.executable).parent
ONE, TWO = "gs://team-models/variants/one", "gs://team-models/variants/two"
_DEPLOY = ("--alias", "support", "--insist")
_DATA = "/tmp/team/ztom"
_UP_S = 180.0


class Doors:
    """The server, through the door of any node."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster = cluster
        self.place = ["--data", _DATA, "--ledger", database]
        self.token = ""

    def health(self, node: Machine) -> int:
        """Status of a node's door; 0 where nobody listens."""
        return self.call(node, "GET", "/health")[0]

    def call(self, node: Machine, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and body of an answer; 0 where none came."""
        return node.here(self._request, method, path, **options)

    def _request(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"http://127.0.0.1:{PORT}{path}"
        options = {"headers": headers, "timeout": 60, **options}
        try:
            answer = requests.request(method, url, **options)
        except requests.RequestException as error:
            return 0, type(error).__name__
        return answer.status_code, answer.text

    def launch(self) -> subprocess.Popen[str]:
        """``ztom up`` on the head."""
        settings = ["gate_required=false", 'pointer_roots=["gs://team-models"]', "http_replicas=2"]
        options = [part for setting in settings for part in ("--set", setting)]
        return self.cluster.head.start(
            "ztom", "up", *self.place, "--host", "0.0.0.0", "--port", str(PORT), *options,
            log="up.log", variables={"RAY_ADDRESS": self.cluster.address},
        )  # fmt: skip

    def ztom(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command of the client, on the head."""
        server = {"ZTOM_SERVER": f"http://127.0.0.1:{PORT}"}
        return self.cluster.head.run("ztom", *arguments, variables=server, timeout_s=300, **options)

    def ask(self, node: Machine) -> tuple[int, Any]:
        """One question to the endpoint, at a node's door."""
        return node.here(self.ask_here)

    def ask_here(self) -> tuple[int, Any]:
        """One question to the endpoint, from a thread that is on a node."""
        body = {"model": "support", "prompt": "How do I copy a list?", "max_tokens": 4}
        return self._request("POST", "/v1/completions", json=body)


@pytest.fixture(scope="module")
def doors(cluster: Cluster) -> Doors:
    """A server over the three nodes, whose data folder is on a disk that they share."""
    for worker in cluster.workers:
        if worker.address not in cluster.alive():
            cluster.join(worker)
    made = Doors(cluster, cluster.database("server"))
    account = ["admin", "create", "root", "root@example.org", *made.place, "--password-stdin"]
    cluster.head.run("ztom", *account, input=PASSWORD + "\n")
    launcher = made.launch()
    wait_for_doors(made, launcher, cluster.head)
    return made


def wait_for_doors(doors: Doors, launcher: subprocess.Popen[str], *nodes: Machine) -> None:
    def open_on_each() -> bool:
        assert launcher.poll() is None, up_log(doors)[-2000:]
        return all(doors.health(node) == 200 for node in nodes)

    wait_for(open_on_each, _UP_S, "the doors answer")


@pytest.fixture(scope="module")
def endpoint(doors: Doors, tmp_path_factory: pytest.TempPathFactory) -> Doors:
    """The server with a variant of a bucket behind ``support``, a replica on each worker."""
    from toy_variant import open_toy_chain, write_blend  # torch

    folder = tmp_path_factory.mktemp("variants")
    chain = open_toy_chain(folder / "chain")
    for name, factors in (("one", (-0.4, 0.3)), ("two", (0.2, 0.1))):
        doors.cluster.upload(write_blend(chain, factors, folder / name), f"variants/{name}")
    url = f"http://127.0.0.1:{PORT}"
    doors.ztom("login", url, "root", "--password-stdin", input=PASSWORD + "\n")
    doors.ztom(
        "deploy",
        ONE,
        *_DEPLOY,
        "--now",
        "--set",
        "min_replicas=2",
        "--set",
        "max_replicas=2",
        "--wait",
        "200",
    )
    return doors


def test_each_node_has_a_door_and_all_have_the_same_keys(endpoint: Doors) -> None:
    """Serve opens a door where a replica runs: on all nodes, now that there is an endpoint."""
    doors = endpoint
    head, *workers = doors.cluster.nodes
    wait_for(lambda: all(doors.health(node) == 200 for node in (head, *workers)), 60, "the doors")
    status, token = doors.call(
        head, "POST", "/api/auth/login", json={"username": "root", "password": PASSWORD}
    )
    assert status == 200, token
    doors.token = token
    answers = [doors.call(node, "GET", "/api/auth/user")[0] for node in (head, *workers) * 3]
    assert answers == [200] * 9
    for node in doors.cluster.nodes:
        names = Counter(process.name() for process in node.processes())
        assert names["haproxy"] >= 1, node.name


def test_a_variant_in_a_bucket_answers_at_every_door(endpoint: Doors) -> None:
    nodes = endpoint.cluster.nodes
    assert [endpoint.ask(node)[0] for node in nodes] == [200, 200, 200]


def test_a_killed_launcher_is_outlived_and_the_next_takes_over(
    doors: Doors, endpoint: Doors
) -> None:
    launchers = [
        process
        for process, command in commands_on(doors.cluster.head)
        if command[1:3] == [f"{BIN}/ztom", "up"]
    ]
    assert len(launchers) == 1
    launchers[0].send_signal(signal.SIGKILL)
    assert [endpoint.ask(node)[0] for node in endpoint.cluster.nodes] == [200, 200, 200]
    again = doors.launch()
    wait_for_doors(doors, again, *doors.cluster.nodes)
    wait_for(lambda: "Ctrl-C" in up_log(doors), _UP_S, "the launcher is ready")
    assert [endpoint.ask(node)[0] for node in endpoint.cluster.nodes] == [200, 200, 200]


def test_a_canary_and_a_node_that_dies_under_traffic(endpoint: Doors) -> None:
    # a replica on each worker, as the stable one has
    two = ["--set", "min_replicas=2", "--set", "max_replicas=2"]
    endpoint.ztom("deploy", TWO, *_DEPLOY, "--canary", "50", *two, "--wait", "200")
    lost = endpoint.cluster.workers[1]
    traffic = Traffic(endpoint, endpoint.cluster.head)
    with traffic:
        wait_for(lambda: len(traffic.statuses) >= 20, 60, "there is traffic")
        before = len(traffic.statuses)
        lost.kill_all()
        wait_for(lambda: len(traffic.statuses) >= before + 40, 90, "traffic goes on")
    failed = [status for status in traffic.statuses if status != 200]
    assert len(failed) <= traffic.at_once, Counter(traffic.statuses)
    assert traffic.statuses[-10:] == [200] * 10


def test_a_rollback_is_seen_at_once(endpoint: Doors) -> None:
    endpoint.ztom("rollback", "support")
    status, text = endpoint.ask(endpoint.cluster.head)
    assert status == 200, text
    state = endpoint.ztom("status", "--json").stdout
    assert "two" not in [row.get("canary") for row in json.loads(state).get("endpoints", [])]


def commands_on(node: Machine) -> list[tuple[psutil.Process, list[str]]]:
    """Processes that run on a node, and their command lines."""
    running = []
    for process in node.processes():
        with contextlib.suppress(psutil.Error):
            running.append((process, process.cmdline()))
    return running


class Traffic:
    """Questions to the endpoint, some at once, through one node's door.

    Attributes:
        statuses: Status of each answer, in the order in which they came.
        at_once: Number of questions in work at a time.
    """

    def __init__(self, doors: Doors, node: Machine, *, at_once: int = 4) -> None:
        self.at_once = at_once
        self.statuses: list[int] = []
        self._doors, self._node = doors, node
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(at_once)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        enter_network(self._node.pid)
        while not self._ended.is_set():
            self.statuses.append(self._doors.ask_here()[0])


def up_log(doors: Doors) -> str:
    """What the launcher has printed."""
    return (doors.cluster.head.disk / "up.log").read_text()
