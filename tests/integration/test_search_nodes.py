"""A search on several nodes of which one dies: it goes on with the engines that are left."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray
from fake_search import make_config, make_inputs
from ray_nodes import LocalNodes, local_nodes

from cluster.capacity import NodeNeeds
from tune_search.engine_client import EngineClient
from tune_search.engine_pool import make_clients, stop_engines
from tune_search.payload import EnginePlace, StudyInputs
from tune_search.session import ray_for_search
from tune_search.study import run_search
from ztom.errors import ConfigError
from ztom.ledger import TrialStatus
from ztom.search.events import Event, TrialEnded


@pytest.fixture(scope="module")
def nodes(environment: Path) -> Iterator[LocalNodes]:
    with local_nodes() as nodes, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes


@pytest.fixture(scope="module")
def workers(nodes: LocalNodes) -> list[Any]:
    return [nodes.add(), nodes.add(labels={"zone": "b"}, resources={"fast_disk": 1})]


def test_engines_run_on_the_nodes_that_they_are_asked_for(workers, tmp_path):
    inputs = make_inputs(tmp_path)
    with ray_for_search(1):
        nodes_by_id = {node["NodeID"]: node for node in ray.nodes()}
        for needs in (
            NodeNeeds(label_selector={"zone": "b"}),
            NodeNeeds(resources={"fast_disk": 1}),
        ):
            with _clients(replace(inputs, place=EnginePlace(needs=needs))) as (client,):
                client.start()
                (node,) = ray.util.placement_group_table(client.slot)["bundles_to_node_id"].values()
            assert nodes_by_id[node]["Labels"].get("zone") == "b"
        nowhere = EnginePlace(needs=NodeNeeds(gpus=1, accelerator_type="L4"))
        with pytest.raises(ConfigError, match="an engine.*a node with .*1 GPU, L4"):
            _clients(replace(inputs, place=nowhere)).__enter__()


@contextlib.contextmanager
def _clients(inputs: StudyInputs) -> Iterator[tuple[EngineClient, ...]]:
    clients = make_clients(inputs, replicas=1, deadline_s=60, start_deadline_s=60)
    try:
        yield clients
    finally:
        stop_engines(clients)


def test_a_node_that_dies_costs_its_engine_and_a_new_one_brings_one(nodes, workers, tmp_path):
    (tmp_path / "slow").touch()  # trials enough until a new node is there
    joining = threading.Thread(target=nodes.add)
    ends: list[float] = []
    stopped: list[int] = []

    def on_event(event: Event) -> None:
        if not isinstance(event, TrialEnded):
            return
        if event.ended == 8:
            nodes.kill(workers[1])
        ends.append(time.monotonic())
        if event.ended == 24:
            joining.start()
        if len(set(_processes(tmp_path))) == 3 and not stopped:
            stopped.append(event.number)  # a second signal would abandon what is under way
            signal.raise_signal(signal.SIGINT)

    config = make_config(tmp_path, 1000, engine={"replicas": 2}, sampler="random")
    with ray_for_search(2):
        outcome = run_search(config, inputs=make_inputs(tmp_path), on_event=on_event)
    joining.join()
    assert outcome.stop_reason == "interrupted"  # a third engine has answered
    assert {trial.status for trial in outcome.trials} == {TrialStatus.FINISHED}
    assert {trial.outcome.attempts for trial in outcome.trials} == {1}
    assert len(set(_processes(tmp_path))) == 3
    # 24 s where a trial waits until Ray has declared the node dead, 2 s where it goes elsewhere
    assert max(after - before for before, after in pairwise(ends[7:])) < 10.0


def _processes(folder: Path) -> list[str]:
    file = folder / "processes"
    return file.read_text().split() if file.exists() else []
