"""What has to be right before a server starts on a cluster that is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.examination import NodeReport
from serve_apps.server.joined import (
    require_free_route,
    require_reachable_ledger,
    settings_notes,
)
from ztom.errors import ConfigError

NODE = NodeReport("10.0.0.6")
NO_DOOR = replace(NODE, missing={"RAY_SERVE_ENABLE_HA_PROXY": "doors keep no deadlines"})
SLOW = replace(NODE, missing={"RAY_SERVE_THROUGHPUT_OPTIMIZED": "calls take longer"})


def test_another_application_at_the_root_is_named() -> None:
    require_free_route({"ztom": "/", "variant-x": None, "docs": "/docs"}, app="ztom")
    with pytest.raises(ConfigError, match=r"another application is served at /: got docs"):
        require_free_route({"docs": "/"}, app="ztom")


def test_doors_without_deadlines_are_refused_unless_somebody_says_so() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.6.*ENABLE_HA_PROXY.*--without-deadlines"):
        settings_notes([NODE, NO_DOOR], without_deadlines=False)
    (note,) = settings_notes([NODE, NO_DOOR], without_deadlines=True)
    assert "doors keep no deadlines" in note
    assert settings_notes([NODE], without_deadlines=False) == []


def test_what_only_costs_time_is_a_note() -> None:
    assert settings_notes([SLOW], without_deadlines=False) == [
        "node 10.0.0.6: RAY_SERVE_THROUGHPUT_OPTIMIZED is not set: calls take longer"
    ]


def test_a_ledger_that_a_node_does_not_reach_is_refused() -> None:
    cut_off = replace(NODE, ledger="OperationalError: refused")
    with pytest.raises(ConfigError, match=r"10\.0\.0\.6 does not reach the ledger"):
        require_reachable_ledger([cut_off], ledger="postgresql://x", alone=False)
    require_reachable_ledger([cut_off], ledger="postgresql://x", alone=True)
    require_reachable_ledger([NODE], ledger="postgresql://x", alone=False)
