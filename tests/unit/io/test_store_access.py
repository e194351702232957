"""A store that does not answer, or does not know who asks: said within ten seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ztom.checkpoints.object_store import ObjectSource
from ztom.errors import StorageError
from ztom.io import store_access
from ztom.io.store_access import DEADLINE_S, has_credentials, require_answer
from ztom.io.store_client import is_transient, require_reachable_store
from ztom.settings import Settings


class NoCredentialsError(Exception):
    """Is called like botocore's."""


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variables, _ in store_access._PLACES.values():
        for name in variables:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store_access, "_reached", set())


@pytest.fixture
def hanging() -> Iterator[Callable[[], None]]:
    ended = threading.Event()
    yield lambda: ended.wait(60) and None
    ended.set()
    for thread in threading.enumerate():  # a command of a later test would not wait for it
        if thread.name == "store-access":
            thread.join(10)


def ask(scheme: str, look: Callable[[], Any], deadline_s: float = DEADLINE_S) -> None:
    require_answer(
        scheme, "no-such-bucket/x", look, is_transient=is_transient, deadline_s=deadline_s
    )


def failing(error: Exception) -> Callable[[], None]:
    def look() -> None:
        raise error

    return look


@pytest.mark.parametrize(
    ("scheme", "login"),
    [("gs", "gcloud auth application-default login"), ("s3", "aws configure")],
)
def test_what_hangs_is_given_up_with_the_way_to_log_in(
    scheme: str, login: str, hanging: Callable[[], None]
) -> None:
    with pytest.raises(StorageError) as refusal:
        ask(scheme, hanging, 0.05)
    message = str(refusal.value)
    assert f"{scheme}://no-such-bucket does not answer: nothing came within 0.05 s" in message
    assert "no login is to be found on this machine" in message
    assert login in message
    assert DEADLINE_S <= 8


@pytest.mark.parametrize(
    "look",
    [
        lambda: require_reachable_store("gs://bucket/x"),
        lambda: ObjectSource("gs://bucket/x", "gs", "bucket/x", settings=Settings()),
    ],
    ids=["before a command", "of a checkpoint"],
)
def test_a_client_that_looks_for_a_login_for_ever_is_given_up_too(
    hanging: Callable[[], None], monkeypatch: pytest.MonkeyPatch, look: Callable[[], object]
) -> None:
    """gcsfs asks for the metadata of a cloud while it is made, which takes 14 s where none is."""
    monkeypatch.setattr("fsspec.filesystem", lambda *_, **__: hanging())
    monkeypatch.setattr(store_access.require_answer, "__kwdefaults__", {"deadline_s": 0.05})
    with pytest.raises(StorageError, match="does not answer: nothing came within 0.05 s"):
        look()


@pytest.mark.parametrize(
    "error", [NoCredentialsError("Unable to locate"), PermissionError("Access Denied")]
)
def test_a_refusal_says_how_to_log_in(error: Exception) -> None:
    with pytest.raises(StorageError, match=r"refuses to be read.*aws configure"):
        ask("s3", failing(error))


@pytest.mark.parametrize("error", [FileNotFoundError("x"), ConnectionError("once"), None])
def test_what_is_missing_or_passes_is_its_readers_concern(error: Exception | None) -> None:
    ask("gs", failing(error) if error else lambda: None)


def test_a_bucket_is_looked_at_once(hanging: Callable[[], None]) -> None:
    ask("gs", lambda: None)
    ask("gs", hanging)
    ask("memory", hanging)


def test_a_login_is_seen_where_clients_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not has_credentials("gs")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    assert has_credentials("gs")
    assert not has_credentials("s3")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").touch()
    assert has_credentials("s3")
