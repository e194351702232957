"""Nobody is told where a server keeps its files, on its disk or in the operator's storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_apps.control_plane.store import Store


def test_neither_the_data_folder_nor_the_storage_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZTOM_STORAGE", "gs://internal/z")
    store = Store.open(tmp_path / "data")
    try:
        message = store.without_folders(
            f"{tmp_path}/data/requests/1 and gs://internal/z/variants/abc, not gs://internal/mine"
        )
        assert message == "requests/1 and abc, not gs://internal/mine"
    finally:
        store.close()
