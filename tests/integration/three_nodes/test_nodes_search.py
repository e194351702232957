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

import psutil
import pytest
import yaml
from three_node_cluster import Cluster
from three_nodes import Machine, wait_for

from cluster.node_settings import LONGEST_SILENCE_S

pytestmark = pytest.mark.usefixtures("cluster")

#: Seconds within which a search goes on after the processes of a node were killed.
_GOES_ON_S = 10.0
#: Seconds that a head, which is asked over a dashboard, may take to show what it knows.
_SHOWN_S = 10.0
VARIANT = "gs://team-models/ztom/runs/support/variant"
SEARCH: dict[str, Any] = {
    "name": "support",
    "chain": {
        "checkpoints": [f"gs://team-models/chain/{name}" for name in ("base", "first", "second")]
    },
    "stimuli": "search.jsonl",
    "holdout": "holdout.jsonl",
    "error": "cross_entropy",
    "scaling_factor_limit": 1.0,
    "budget": {"evaluations": 100_000, "tolerance": 0, "seconds": 120},
    "sampler": {"name": "random"},
    # one on each worker: what a lost one asks for is nowhere until its node is back
    "engine": {"replicas": 2, "resources": {"engine": 1}},
}


@pytest.fixture(scope="module")
def job(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the first machine, as it sees it, with a search; its chain is in the bucket."""
    from ztom.demo.toy import make_toy_chain  # torch, which the other tests do without

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
        assert search.poll() is None, log_of(cluster, "search.log")
        return trials(cluster) >= before + more

    wait_for(goes_on, within_s, "the search goes on")
    return time.monotonic() - began


def test_a_search_goes_on_when_the_processes_of_a_node_are_killed(
    cluster: Cluster, search: subprocess.Popen[str]
) -> None:
    def began() -> bool:
        assert search.poll() is None, log_of(cluster, "search.log")
        return trials(cluster) >= 4

    wait_for(began, 240, "the search has trials")
    assert [node.name for node in cluster.workers if engines_on(node)] == ["node1", "node2"]
    cluster.workers[1].kill_all()
    seconds_until_it_goes_on(cluster, search, _GOES_ON_S)
    lost = cluster.workers[1].address
    wait_for(lambda: lost not in cluster.alive(), LONGEST_SILENCE_S, "the head misses the node")


def test_a_search_takes_a_node_that_comes_and_goes_on_when_its_link_is_cut(
    cluster: Cluster, search: subprocess.Popen[str]
) -> None:
    worker = cluster.workers[1]
    cluster.join(worker)
    wait_for(lambda: engines_on(worker), 90, "the search has an engine on the new node")
    seconds_until_it_goes_on(cluster, search, 60)
    worker.cut()
    try:
        seconds = seconds_until_it_goes_on(cluster, search, LONGEST_SILENCE_S + _GOES_ON_S)
        assert seconds < 30
    finally:
        worker.mend()
        worker.kill_all()  # what the head took for dead does not come back by itself


def test_the_proof_and_the_variant_are_in_the_bucket(
    cluster: Cluster, search: subprocess.Popen[str]
) -> None:
    assert search.wait(240) == 0, log_of(cluster, "search.log")
    written = cluster.objects("ztom/runs/support/")
    names = {name.removeprefix("ztom/runs/support/") for name in written}
    assert {"result.json", "report.html", "variant/manifest.json"} <= names
    result = json.loads(cluster.read("ztom/runs/support/result.json"))
    assert result["proof"]["verdict"]["outcome"] == "improved"
    assert result["proof"]["variant"] == VARIANT
    fetched = cluster.head.run("cat", "/tmp/runs/support/result.json").stdout
    assert json.loads(fetched) == result


def engines_on(node: Machine) -> list[str]:
    """Processes of engines."""
    lines = []
    for process in node.processes():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return [line for line in lines if "EngineActor" in line]


def log_of(cluster: Cluster, name: str) -> str:
    """The end of what a command on the head has printed."""
    return (cluster.head.disk / name).read_text()[-3000:]
