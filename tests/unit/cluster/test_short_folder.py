"""Ray's sockets have short paths or none: said before Ray is started."""

from __future__ import annotations

import pytest

from cluster.environment import require_short_folder
from ztom.errors import ConfigError


def test_a_long_temporary_folder_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    require_short_folder()
    monkeypatch.setenv("TMPDIR", f"/tmp/{'x' * 60}")
    with pytest.raises(ConfigError, match=r"too long for Ray: got /tmp/xx.*at most \d\d bytes\. "):
        require_short_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    require_short_folder()
