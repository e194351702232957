"""What has to be right before a server starts on a cluster that is there."""

from __future__ import annotations

import pytest

from cluster.serve import ServeState
from serve_apps.server.joined import joined_at, settings_notes
from ztom.errors import ConfigError

NO_DOOR = {"10.0.0.6": {"RAY_SERVE_ENABLE_HA_PROXY": "doors keep no deadlines"}}
SLOW = {"10.0.0.6": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "calls take longer"}}


def joined(applications: dict[str, str | None], *, is_ours: bool = False, port: int = 0) -> object:
    state = ServeState("0.0.0.0", 8000, applications)
    return joined_at(state, app="ztom", is_ours=is_ours, host="127.0.0.1", port=port)


def test_a_serve_with_other_applications_is_joined_where_it_listens() -> None:
    assert joined({"docs": "/docs", "by-handle": None}) == ("0.0.0.0", 8000)


def test_another_application_at_the_root_is_named() -> None:
    with pytest.raises(ConfigError, match=r"serves another application at /: got docs"):
        joined({"docs": "/"})


def test_a_server_is_taken_over_by_a_launcher_on_its_data_only() -> None:
    assert joined({"ztom": "/", "variant-x": None}, is_ours=True) == ("0.0.0.0", 8000)
    with pytest.raises(ConfigError, match=r"got ztom, on 0\.0\.0\.0:8000"):
        joined({"ztom": "/"})


def test_another_port_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected --port 8000, or 0"):
        joined({}, port=9000)


def test_doors_without_deadlines_are_refused_unless_somebody_says_so() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.6.*ENABLE_HA_PROXY.*--without-deadlines"):
        settings_notes(NO_DOOR, without_deadlines=False)
    (note,) = settings_notes(NO_DOOR, without_deadlines=True)
    assert "doors keep no deadlines" in note
    assert settings_notes({"10.0.0.6": {}}, without_deadlines=False) == ()


def test_what_only_costs_time_is_a_note() -> None:
    assert settings_notes(SLOW, without_deadlines=False) == (
        "node 10.0.0.6: RAY_SERVE_THROUGHPUT_OPTIMIZED is not set: calls take longer",
    )
