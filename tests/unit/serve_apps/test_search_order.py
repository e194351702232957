"""Searches take turns by project, and as many run as the cluster has engines for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serve_apps.control_plane.search_order import next_to_start, search_places


def search(name: str) -> Any:
    """A request whose project is the first letter of its name."""
    return SimpleNamespace(id=name, project_id=name[0])


def order(waiting: str, *, places: int, running: str = "") -> list[str]:
    """The names of the searches that are started, one after the other."""
    queue, under_way = [*map(search, waiting.split())], [*map(search, running.split())]
    started = []
    while (request := next_to_start(queue, under_way, places=places)) is not None:
        queue.remove(request)
        under_way.append(request)
        started.append(request.id)
    return started


@pytest.mark.parametrize(
    ("waiting", "running", "places", "started"),
    [
        ("a1 a2", "", 1, ["a1"]),
        ("a1 a2", "b1", 1, []),
        ("", "a1", 3, []),
        ("a1 a2 a3 b1", "", 2, ["a1", "b1"]),
        ("a2 a3 b1 c1", "a1", 3, ["b1", "c1"]),
        ("a1 a2 b1 b2", "", 8, ["a1", "b1", "a2", "b2"]),
        ("a3 b1", "a1 a2", 4, ["b1", "a3"]),
    ],
)
def test_projects_take_turns(waiting: str, running: str, places: int, started: list[str]) -> None:
    assert order(waiting, running=running, places=places) == started


@pytest.mark.parametrize(
    ("gpus", "nodes", "replicas", "per_engine", "places"),
    [
        (0, 1, 1, 1, 1),
        (0, 3, 1, 1, 3),
        (0, 3, 2, 1, 1),
        (8, 2, 1, 1, 8),
        (8, 2, 1, 2, 4),
        (8, 2, 2, 2, 2),
        (1, 1, 4, 2, 1),
        (0, 0, 1, 1, 1),
    ],
)
def test_there_are_as_many_places_as_engines(
    gpus: float, nodes: int, replicas: int, per_engine: int, places: int
) -> None:
    options = {"replicas": replicas, "gpus_per_engine": per_engine}
    assert search_places(gpus=gpus, cpu_nodes=nodes, **options) == places
