"""What every node has to find in its environment, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path

import yaml

from cluster.node_settings import (
    HAPROXY_PROGRAM,
    HEALTH_SETTINGS,
    LONGEST_SILENCE_S,
    NODE_SETTINGS,
    TOKEN_SETTINGS,
    missing_settings,
)
from serve_apps.control_plane.flow import IMPORT_PATH


def test_a_node_with_all_of_them_lacks_nothing() -> None:
    assert missing_settings({**NODE_SETTINGS, HAPROXY_PROGRAM: "/opt/haproxy"}) == {}


def test_what_is_missing_is_named_with_what_goes_wrong() -> None:
    environment = {**NODE_SETTINGS, "RAY_SERVE_ENABLE_HA_PROXY": "0"}
    assert missing_settings(environment) == {
        "RAY_SERVE_ENABLE_HA_PROXY": "doors keep no deadlines",
        HAPROXY_PROGRAM: "doors keep no deadlines",
    }
    assert "RAY_AUTH_MODE" in missing_settings({})


def test_a_silent_node_is_missed_within_half_a_minute() -> None:
    period, timeout, failures = (int(value) for value in HEALTH_SETTINGS.values())
    assert failures * (period + timeout) / 1000 == LONGEST_SILENCE_S <= 30


def test_serve_finds_the_guard_of_bodies() -> None:
    assert NODE_SETTINGS["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == IMPORT_PATH


def test_the_chart_sets_them_on_every_node() -> None:
    file = Path(__file__).parents[3] / "cluster/helm/ztom/files/node-environment.yaml"
    chart = yaml.safe_load(file.read_text(encoding="utf-8"))
    by_the_secret = set(TOKEN_SETTINGS)
    wanted = {name: NODE_SETTINGS[name] for name in NODE_SETTINGS.keys() - by_the_secret}
    assert {name: chart.get(name) for name in wanted} == wanted
    assert HAPROXY_PROGRAM in chart
