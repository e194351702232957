"""Three machines without a common disk: a search over a bucket, and an endpoint on several nodes.

The tests stand in the order of a team's first day (cluster/README.md, "On machines you have"), and
each goes on from where the one before it stopped: there is one cluster for all of them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from three_node_cluster import Cluster
from three_nodes import Machine, wait_for

from cluster.node_settings import LONGEST_SILENCE_S
from ztom.demo.toy import make_toy_chain

pytestmark = pytest.mark.usefixtures("cluster")

#: Seconds within which a search goes on after the processes of a node were killed.
_GOES_ON_S = 10.0
#: Seconds that a head, which is asked over a dashboard, may take to show what it knows.
_SHOWN_S = 10.0
SEARCH: dict[str, Any] = {
    "name": "support",
    "chain": {
        "checkpoints": [f"gs://team-models/chain/{name}" for name in ("base", "first", "second")]
    },
    "stimuli": "search.jsonl",
    "holdout": "holdout.jsonl",
    "error": "cross_entropy",
    "scaling_factor_limit": 1.0,
    "budget": {"evaluations": 40, "tolerance": 0},
    "sampler": {"name": "random"},
    "engine": {"replicas": 2},
}


@pytest.fixture(scope="module")
def job(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the first machine, as it sees it, with a search; its chain is in the bucket."""
    toy = make_toy_chain(tmp_path_factory.mktemp("toy"))
    for checkpoint in toy.checkpoints:
        cluster.upload(checkpoint, f"chain/{checkpoint.name}")
    folder = cluster.head.disk / "job"
    folder.mkdir()
    for file in (toy.search_file, toy.holdout_file):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "search.yaml").write_text(yaml.safe_dump(SEARCH))
    return Path("/tmp/job")


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> str:
    return cluster.database("searches")


def submit(job: Path, cluster: Cluster, ledger: str, *options: str) -> list[str]:
    places = ["--ledger", ledger, "--storage", "gs://team-models/ztom"]
    return [
        "ztom",
        "submit",
        f"{job}/search.yaml",
        "--cluster",
        cluster.dashboard,
        *places,
        *options,
    ]


def trials(cluster: Cluster) -> int:
    """Trials on record that have finished."""
    with contextlib.suppress(Exception):  # the tables are made by the search
        (row,) = cluster.rows("searches", "SELECT count(*) FROM trials WHERE status = 'finished'")
        return int(row[0])
    return 0


def test_the_doctor_finds_the_nodes_alike_and_without_a_common_disk(
    cluster: Cluster, job: Path, ledger: str
) -> None:
    place = ["--place", "gs://team-models/chain/base", "--ledger", ledger]
    command = ["ztom", "doctor", "--cluster", cluster.dashboard, *place, "--shared", "/tmp/shared"]
    done = cluster.head.run(*command, "--json", check=False)
    document = json.loads(done.stdout)
    assert [node["name"] for node in document["nodes"]] == ["node0", "node1", "node2"]
    assert [node["head"] for node in document["nodes"]] == [True, False, False]
    problems = [(problem["node"], problem["name"]) for problem in document["problems"]]
    assert problems == [(worker.address, "shared disk") for worker in cluster.workers]
    assert done.returncode == 1


def test_a_search_that_one_node_alone_could_read_is_refused(
    cluster: Cluster, job: Path, ledger: str
) -> None:
    changes = ["--set", "output=/tmp/runs/support"]
    done = cluster.head.run(*submit(job, cluster, ledger, *changes), check=False)
    assert done.returncode == 3
    assert f"node {cluster.workers[0].address}: what the head writes into /tmp/runs" in done.stderr
    assert trials(cluster) == 0


@pytest.fixture(scope="module")
def search(cluster: Cluster, job: Path, ledger: str) -> Iterator[subprocess.Popen[str]]:
    """The search, submitted and followed on the head."""
    process = cluster.head.start(*submit(job, cluster, ledger), log="search.log")
    yield process
    process.kill()
    process.wait(30)


def seconds_until_it_goes_on(
    cluster: Cluster, search: subprocess.Popen[str], within_s: float, *, more: int = 2
) -> float:
    """Seconds until so many more trials have finished, one of them begun since."""
    began, before = time.monotonic(), trials(cluster)

    def goes_on() -> bool:
        assert search.poll() is None, (cluster.head.disk / "search.log").read_text()[-2000:]
        return trials(cluster) >= before + more

    wait_for(goes_on, within_s, "the search goes on")
    return time.monotonic() - began


def test_a_search_over_a_bucket_goes_on_when_a_nodes_processes_are_killed(
    cluster: Cluster, search: subprocess.Popen[str]
) -> None:
    def began() -> bool:
        assert search.poll() is None, (cluster.head.disk / "search.log").read_text()[-2000:]
        return trials(cluster) >= 4

    wait_for(began, 240, "the search has trials")
    engines = [node for node in cluster.workers if engines_on(node)]
    assert engines == cluster.workers
    cluster.workers[1].kill_all()
    assert seconds_until_it_goes_on(cluster, search, _GOES_ON_S) < _GOES_ON_S
    wait_for(
        lambda: cluster.workers[1].address not in cluster.alive(),
        LONGEST_SILENCE_S + _SHOWN_S,
        "the head misses the node",
    )


def engines_on(node: Machine) -> list[str]:
    """Processes of engines."""
    lines = [" ".join(process.cmdline()) for process in node.processes()]
    return [line for line in lines if "EngineActor" in line]
