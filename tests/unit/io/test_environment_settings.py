"""Settings of the environment that are wrong, by the variable's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_apps.control_plane.config import ServerConfig
from ztom.errors import ConfigError
from ztom.io.places import require_listable
from ztom.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ZTOM_ALLOWED_ROOTS", "/models", "ZTOM_ALLOWED_ROOTS is not valid JSON: expected a list"),
        ("ZTOM_STORAGE_RETRIES", "x", r"\(ZTOM_\.\.\.\) are wrong: storage_retries: has to be a w"),
        ("ZTOM_SERVER_POINTER_ROOTS", "/a", "ZTOM_SERVER_POINTER_ROOTS is not valid JSON"),
        ("ZTOM_SERVER_TOKEN_HOURS", "-1", "token_hours: has to be greater than 0.0, got '-1'"),
    ],
)
def test_a_variable_that_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        (ServerConfig if "SERVER" in name else Settings)()


def test_a_setting_that_is_misspelt_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"token_ours: no such key \(did you mean token_hours\?\)"
    ):
        ServerConfig(data=tmp_path, token_ours=1)


def test_roots_that_cannot_be_listed_are_refused_before_the_server_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_listable([str(tmp_path), "gs://team-models"])
    for root in ("nothing", "file"):
        with pytest.raises(ConfigError, match=rf"a root cannot be listed: .*{root}: n"):
            require_listable([str(tmp_path / root)])
