"""This process as a client of a stand-in of the Hub, with a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import Hub


def use_hub(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, cache: Path, *, token: str | None = None
) -> None:
    """Point `huggingface_hub` at the stand-in; it reads its variables once, when it is imported."""
    from huggingface_hub import close_session, constants

    close_session()  # whose guard knows the Hub that was there before
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv(
        "HF_TOKEN", raising=False
    )
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
