"""Where an engine finds a place: on a node that is there, on one of a pool, nowhere."""

from __future__ import annotations

import json

import pytest

from cluster.capacity import ClusterCapacity, NodeNeeds, NodeShape, Pool, matches
from cluster.pools import PoolSettings, pools_of
from ztom.errors import ConfigError

HEAD = NodeShape({"CPU": 4, "node:10.0.0.1": 1})
L4 = Pool("l4", NodeShape({"CPU": 24, "GPU": 2}, {"zone": "a"}), 3)


def test_a_pool_at_zero_has_gpus() -> None:
    capacity = ClusterCapacity((HEAD,), (L4,))
    assert capacity.has_gpus()
    assert capacity.place(NodeNeeds(gpus=2)) == "later"
    assert capacity.place(NodeNeeds(cpus=2)) == "now"
    assert (capacity.most("GPU"), capacity.most("CPU")) == (6, 72)
    assert not ClusterCapacity((HEAD,), (Pool("l4", L4.node, 0),)).has_gpus()


def test_gpus_of_two_nodes_are_no_place_for_one_engine() -> None:
    nodes = (NodeShape({"GPU": 1}), NodeShape({"GPU": 1}))
    assert ClusterCapacity(nodes).place(NodeNeeds(gpus=2)) == "never"


@pytest.mark.parametrize(
    ("needs", "place"),
    [
        (NodeNeeds(gpus=1, accelerator_type="L4"), "later"),  # Ray finds a GPU's kind by itself
        (NodeNeeds(gpus=1, label_selector={"zone": "a"}), "later"),
        (NodeNeeds(gpus=1, label_selector={"zone": "b"}), "never"),
        (NodeNeeds(gpus=1, resources={"fast_disk": 1}), "never"),
        (NodeNeeds(gpus=3), "never"),
    ],
)
def test_what_is_asked_for_by_name(needs: NodeNeeds, place: str) -> None:
    assert ClusterCapacity((HEAD,), (L4,)).place(needs) == place


def test_a_kind_of_gpu_that_is_known_has_to_be_that_one() -> None:
    node = NodeShape({"GPU": 1, "accelerator_type:T4": 1})
    assert ClusterCapacity((node,)).place(NodeNeeds(gpus=1, accelerator_type="T4")) == "now"
    assert ClusterCapacity((node,)).place(NodeNeeds(gpus=1, accelerator_type="L4")) == "never"
    assert (
        ClusterCapacity((NodeShape({"GPU": 1}),)).place(NodeNeeds(gpus=1, accelerator_type="L4"))
        == "never"
    )


def test_a_refusal_says_what_there_is_and_what_was_asked_for() -> None:
    with pytest.raises(ConfigError) as error:
        ClusterCapacity((HEAD,), (L4,)).require(
            NodeNeeds(gpus=4, accelerator_type="L4"), what="an engine"
        )
    text = str(error.value)
    assert "an engine" in text
    assert "got nodes: (4 CPU); pool l4: 3 x (24 CPU, 2 GPU)" in text
    assert "a node with 4 GPU, L4" in text


@pytest.mark.parametrize(
    ("nodes", "pools", "device", "kind", "gpus"),
    [
        ((HEAD,), (), "auto", None, 0),
        ((HEAD,), (L4,), "auto", None, 2),
        ((HEAD,), (L4,), "cpu", None, 0),
        ((HEAD,), (), "gpu", None, 2),
        ((HEAD,), (), "auto", "L4", 2),
    ],
)
def test_the_device_that_is_chosen(nodes, pools, device, kind, gpus) -> None:
    needs = NodeNeeds(gpus=2, accelerator_type=kind)
    assert ClusterCapacity(nodes, pools).choose(needs, device).gpus == gpus


@pytest.mark.parametrize(
    ("wanted", "value", "fits"),
    [
        ("a", "a", True),
        ("a", None, False),
        ("!a", None, True),
        ("!a", "a", False),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("!in(a,b)", "c", True),
    ],
)
def test_labels_are_selected_as_ray_does(wanted: str, value: str | None, fits: bool) -> None:
    labels = {} if value is None else {"zone": value}
    assert matches({"zone": wanted}, labels) is fits


def test_pools_of_the_autoscalers_configuration() -> None:
    kinds = {
        "head": {"resources": {"CPU": 4}, "max_workers": 0},
        "l4": {"resources": {"GPU": 2}, "labels": {"zone": "a"}, "max_workers": 9},
        "t4": {"resources": {"GPU": 1}},
        "off": {"resources": {"GPU": 8}, "max_workers": 0},
    }
    content = {"max_workers": 4, "head_node_type": "head", "available_node_types": kinds}
    assert list(pools_of(content)) == [
        Pool("l4", NodeShape({"GPU": 2}, {"zone": "a"}), 4),
        Pool("t4", NodeShape({"GPU": 1}), 4),
    ]


def test_the_operator_states_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = {"name": "l4", "resources": {"GPU": 2}, "max_nodes": 4}
    monkeypatch.setenv("ZTOM_POOLS", json.dumps([pool]))
    (stated,) = PoolSettings().pools
    assert (stated.name, stated.resources, stated.max_nodes) == ("l4", {"GPU": 2.0}, 4)
    monkeypatch.setenv("ZTOM_POOLS", json.dumps([{**pool, "max": 3}]))
    with pytest.raises(ConfigError, match="max"):
        PoolSettings()
